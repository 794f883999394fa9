"""The training loop: epochs of steps on an objective, with a state that can be restored."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Self

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from kappaflow.errors import NumericalError
from kappaflow.storage import plain
from kappaflow.training.budget import DualVariable
from kappaflow.training.checkpoint import Groups, copied_as
from kappaflow.training.collectives import from_rank_zero
from kappaflow.training.distributed import Engine
from kappaflow.training.measure import peak_memory_bytes
from kappaflow.training.objective import Averages, Figures, Objective
from kappaflow.training.optimizer import AdamW, WeightEMA, learning_rate_at
from kappaflow.training.own_optimizer import OwnOptimizer
from kappaflow.training.settings import EnergySettings, Settings

CLOCK_EVERY = 10  # steps between two readings of the clock, with several ranks
MOST_CLOSING = 0.2  # share of a time limit that is kept for the end of the last epoch, at most
OVERFIT_EPOCHS = 10  # epochs without a better validation likelihood
clock = time.perf_counter  # benchmarks replace it by processor time


class _Plain:
    """Plain numbers of a checkpoint, without its tensors."""

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """Returns the numbers from a dict that has them; ValueError if one has a wrong type."""
        try:
            return TypeAdapter(cls).validate_python(plain)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass
class Progress(_Plain):
    """How far a training is, and what it has reached."""

    epoch: int = 0
    step: int = 0
    updates: int = 0
    best_nll: float = float("inf")  # a free energy in a training on an energy
    best_epoch: int = 0
    skipped_steps: int = 0
    skipped_in_row: int = 0
    blamed: str | None = None
    time_s: float = 0.0
    closing_s: float = 0.0  # longest time from the last step of an epoch to the next epoch
    measured: int = 0  # number of measurements of the conditioning that were due
    overfit_epoch: int = 0  # after which the weight decay became `overfit_decay`; 0 for none
    decays_more: bool = False
    cooldown_epoch: int = 0  # after which the learning rate falls to zero; 0 for none
    cooldown_step: int = 0
    cooldown_share: float = 1.0  # of the highest learning rate at that step
    dual: DualVariable = field(default_factory=DualVariable)
    scale: dict[str, int | float] = field(default_factory=dict)
    optimizer: Any = None  # the state of an optimizer of the caller, without its tensors


@dataclass(frozen=True)
class Start(_Plain):
    """Where the cosine of the learning rate begins: step 0, or what a model search has used."""

    start_epoch: int = 0
    start_step: int = 0
    start_s: float = 0.0
    steps_of_others: int = 0


class Training:
    """A flow in training on an objective, with its optimizer and its progress.

    The rows and the random numbers of an epoch depend only on the seed and the epoch. A training
    that is restored at an epoch therefore continues exactly as if it had never stopped. With
    several ranks, each rank takes a share of each batch. The first rank measures, and all ranks
    use its figures. `started` is the reading of the clock at which its time begins.
    """

    def __init__(
        self,
        objective: Objective,
        settings: Settings | EnergySettings,
        engine: Engine,
        optimizer: OwnOptimizer | None = None,
        started: float | None = None,
    ) -> None:
        self.objective, self.flow = objective, objective.flow
        self.settings, self.engine = settings, engine
        self.optimizer = optimizer or AdamW(
            self.flow, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.average = WeightEMA(self.flow, settings.average)
        self.best = copied(self.flow.state_dict())
        self.progress, self.start, self.history = Progress(), Start(), list[Figures]()
        objective.follow(self.progress)
        self._counted = clock() if started is None else started  # `time_s` counts until then
        self._time_used, self._rate_share = 0.0, None  # the share is of the highest learning rate

    def run(self, after_epoch: Callable[[Figures], None]) -> str:
        """Returns the limit that ends the training, such as "max_epochs", after the training."""
        while (reason := self._finished()) is None or self._cools_down(reason):
            self._adjust_decay()
            averages = self._epoch(self._learning_rate)
            self.progress.epoch += 1
            with self._closing():
                after_epoch(self._measured(averages))
        return reason

    def run_epoch(self, rate: Callable[[], float], is_over: Callable[[], bool]) -> None:
        """Trains for an epoch of a model search at its own rates; measures no conditioning."""
        averages = self._epoch(rate, is_over)
        self.progress.epoch += 1
        with self._closing():
            self._measured(averages, in_search=True)

    def start_clock(self) -> None:
        """Starts to count the time of this training from now on."""
        self._counted = clock()

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Measures the time that the end of an epoch takes: validation, checkpoint, callbacks."""
        ended = clock()
        yield
        self.progress.closing_s = max(self.progress.closing_s, clock() - ended)

    def load_best(self) -> None:
        """Gives the flow its best weights, in evaluation mode."""
        self.flow.load_state_dict(self.best)
        self.flow.eval()

    def state(self) -> Groups:
        """Returns all tensors that the training needs to continue."""
        entries = self.optimizer.state_dict()
        optimizer = {f"{i}.{key}": t for i, entry in entries.items() for key, t in entry.items()}
        return {
            "flow": self.flow.state_dict(),
            "average": self.average.state(),
            "best": self.best,
            "start": self.objective.start,
            "rows": self.objective.rows,
            "optimizer": optimizer,
        }

    def restore(self, groups: Groups, progress: dict[str, Any], history: list[Figures]) -> None:
        """Restores a state that `state` returned, with its progress and its history."""
        self.flow.load_state_dict(groups["flow"])
        self.average.restore(groups["average"])
        self.best = copied_as(groups["best"], self.best)
        self.objective.start = copied_as(groups.get("start", {}), self.objective.start)
        if groups.get("rows"):  # a search has none
            rows = copied_as(groups["rows"], self.objective.rows)
            for name, tensor in rows.items():
                self.objective.rows[name].copy_(tensor)
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups.get("optimizer", {}).items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = tensor
        self.progress, self.start = Progress.of(progress), Start.of(progress)
        self.history = list(history)
        self.optimizer.load_state_dict(entries, self.progress.optimizer)
        self._set_decay()
        self.objective.follow(self.progress)
        self.engine.restore_scaler(self.progress.scale)

    def plain_progress(self) -> dict[str, Any]:
        """Returns all numbers that the training needs to continue."""
        self.progress.optimizer = self.optimizer.plain_state()
        return asdict(self.progress) | asdict(self.start)

    def _finished(self) -> str | None:
        """Returns the limit that the training has reached, if any."""
        progress, objective = self.progress, self.objective
        since = max(progress.best_epoch, self.start.start_epoch, progress.overfit_epoch)
        patience = objective.patience
        if progress.cooldown_epoch:
            since, patience = progress.cooldown_epoch, self._epochs_of_cooldown()
        if progress.epoch - since >= patience:
            return "patience"
        if progress.epoch and from_rank_zero(self._time_share) >= 1:
            return "max_time_s"
        used = progress.epoch + self._epochs_of_others()
        is_last = used * objective.steps_per_epoch >= objective.steps
        return objective.limit if is_last else None

    def _adjust_decay(self) -> None:
        """Decays the weights more once the flow overfits, and less again if that is in vain."""
        progress = self.progress
        more = not progress.overfit_epoch and self._overfits()
        on_trial = progress.decays_more and progress.best_epoch <= progress.overfit_epoch
        in_vain = on_trial and progress.epoch - progress.overfit_epoch >= OVERFIT_EPOCHS
        if more or in_vain:
            self._return_to_best()
            progress.overfit_epoch, progress.decays_more = progress.epoch, more
            self._set_decay()

    def _overfits(self) -> bool:
        """Returns whether training rows become likelier and held-out ones steadily do not."""
        progress, value = self.progress, self.objective.value
        if self._overfit_decay is None or progress.cooldown_epoch or not progress.best_epoch:
            return False
        if progress.epoch - progress.best_epoch < OVERFIT_EPOCHS:
            return False
        half = OVERFIT_EPOCHS // 2
        columns = [[f[name] for f in self.history[-2 * half :]] for name in ("train_nll", value)]
        if any(None in column for column in columns):  # not finite
            return False
        train, held_out = ((sum(c[:half]) / half, sum(c[half:]) / half) for c in columns)
        least = min(columns[1][half:])
        rises = held_out[0] < held_out[1] and least > progress.best_nll + self.objective.margin
        return train[1] < train[0] and rises

    def _cools_down(self, reason: str) -> bool:
        """Returns whether the learning rate falls to zero before patience ends the training."""
        progress, settings = self.progress, self.settings
        if reason != "patience" or not isinstance(settings, Settings) or not settings.cooldown:
            return False
        share = self.history[-1]["learning_rate_share"]
        if progress.cooldown_epoch or share is None:
            return False
        self._return_to_best()
        progress.cooldown_epoch, progress.cooldown_step = progress.epoch, progress.step
        progress.cooldown_share = share
        return True

    def _epochs_of_cooldown(self) -> int:
        """Returns over how many epochs the rate falls: as many as before, or the patience."""
        return max(self.progress.cooldown_epoch, self.objective.patience)

    def _return_to_best(self) -> None:
        self.flow.load_state_dict(self.best)
        self.average = WeightEMA(self.flow, self.settings.average)

    @property
    def _overfit_decay(self) -> float | None:
        """The weight decay against overfitting; None with the optimizer of a caller."""
        if isinstance(self.optimizer, AdamW) and isinstance(self.settings, Settings):
            return self.settings.overfit_decay
        return None

    def _set_decay(self) -> None:
        if isinstance(self.optimizer, AdamW):
            more = self._overfit_decay if self.progress.decays_more else None
            self.optimizer.weight_decay = self.settings.weight_decay if more is None else more

    def _time_share(self) -> float:
        """Returns the used share of the time for steps; 0 without a limit on time."""
        # The end of the last epoch, with its validation and checkpoint, is within the limit too.
        if self.settings.max_time_s is None:
            return 0.0
        progress, limit, begun = self.progress, self.settings.max_time_s, self.start.start_s
        elapsed = progress.time_s + clock() - self._counted
        closing = min(progress.closing_s, MOST_CLOSING * limit)
        return max(0.0, min(1.0, (elapsed - begun) / max(limit - begun - closing, 1e-9)))

    def share_done(self) -> float:
        """Returns the share of the training that is done, by steps or by time."""
        return min(1.0, self._steps_done() / self._steps_planned())

    def _steps_planned(self) -> int:
        """Returns the number of steps from the start, or from the end of a model search."""
        used = self.start.start_epoch + self._epochs_of_others()
        return max(1, self.objective.steps - used * self.objective.steps_per_epoch)

    def _epochs_of_others(self) -> int:
        """Returns the number of epochs that other models of a search have used."""
        return self.start.steps_of_others // self.objective.steps_per_epoch

    def _steps_done(self) -> float:
        """Returns how many of these steps are done, at least the used share of the time limit."""
        done = self.progress.step - self.start.start_step
        return max(done, self._time_used * self._steps_planned())

    def _learning_rate(self) -> float:
        """Returns the rate of the next step: a linear rise, then half a cosine to zero."""
        warmup = 0.0 if self.start.start_step else self.settings.warmup
        done, planned = self._steps_done(), self._steps_planned()
        highest, progress = self.settings.learning_rate, self.progress
        rate = learning_rate_at(done, planned, highest=highest, warmup=warmup)
        if not progress.cooldown_epoch:
            return rate
        steps = self._epochs_of_cooldown() * self.objective.steps_per_epoch
        done, highest = progress.step - progress.cooldown_step, highest * progress.cooldown_share
        return min(rate, learning_rate_at(done, steps, highest=highest, warmup=0.0))

    def _epoch(
        self, rate: Callable[[], float], is_over: Callable[[], bool] = lambda: False
    ) -> Averages:
        """Returns the averages over an epoch, which ends early at the time limit."""
        total, weight, norms = 0.0, 0, list[float]()
        seed, epoch = self.settings.seed, self.progress.epoch
        cuda = [self.flow.device] if self.flow.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(epoch_seed(seed, epoch, self.engine.rank))
            batches = self.objective.batches(epoch_seed(seed, epoch))
            for i, (batch, rows) in enumerate(batches):
                if i % CLOCK_EVERY == 0 or self.engine.world_size == 1:
                    self._time_used = from_rank_zero(self._time_share)
                if i > 0 and (self._time_used >= 1 or is_over()):
                    break
                result = self._step(batch, rate())
                if result is not None:
                    total, weight = total + result[0] * rows, weight + rows
                    norms.append(result[1])
        if not weight:
            return Averages(float("nan"), float("nan"))
        return Averages(total / weight, sum(norms) / len(norms))

    def _step(self, batch: object, rate: float) -> tuple[float, float] | None:
        """Returns loss and gradient norm over all ranks, or None if the step was not finite."""
        follows = self.optimizer.set_rate(rate, self.settings.learning_rate)
        self._rate_share = rate / self.settings.learning_rate if follows else None
        done = self._steps_done()
        self.progress.step += 1
        self.optimizer.zero_grad()
        with self._joined():
            loss = self.objective.loss(batch, done)
            value, norm = self.engine.clipped_step(
                self.optimizer, loss.value, loss.mean, clip_norm=self.settings.clip_norm
            )
        if math.isfinite(value) and math.isfinite(norm):
            self.progress.updates += 1
            self.average.update(self.progress.updates)
            self.progress.skipped_in_row = 0
            return value, norm
        scale = self.engine.lower_scale() if math.isfinite(value) else None
        if scale is not None:
            self._skip(f"gradients in float16 at a scale of {scale:g}")
        else:
            self._skip(self.objective.first_nonfinite(batch, loss))
        return None

    def _joined(self) -> AbstractContextManager[None]:
        """Returns a context in which autograd handles few tensors, where that is possible."""
        alone = self.engine.world_size == 1 and not self.objective.compiled
        return self.optimizer.joined() if alone else nullcontext()

    def _skip(self, blamed: str) -> None:
        """Counts a step that was not finite, and stops the training after many in a row."""
        progress, unit = self.progress, self.objective.unit
        progress.skipped_steps += 1
        progress.skipped_in_row += 1
        progress.blamed = blamed
        if progress.skipped_in_row < self.settings.most_skipped:
            return
        self.load_best()
        raise NumericalError(
            f"training stopped in {unit} {progress.epoch + 1}: {progress.skipped_in_row} steps in "
            f"a row were not finite, starting at {progress.blamed}. The flow has the weights of "
            f"{unit} {progress.best_epoch}. Likely causes: {self.objective.causes}"
        )

    def _measured(self, averages: Averages, *, in_search: bool = False) -> Figures:
        """Returns the metrics of the epoch, and stores the weights if they are the best so far."""
        progress, done = self.progress, None if in_search else self.share_done()
        self.flow.eval()
        with self.average.in_place():
            measure = partial(self.objective.measure, averages, done)
            figures, weights = from_rank_zero(measure)
            if self.objective.is_best(figures):
                progress.best_nll = figures[self.objective.value]
                progress.best_epoch = progress.epoch
                self.best = copied(self.flow.state_dict() if weights is None else weights)
        figures |= {
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "learning_rate_share": self._rate_share,
            "weight_decay": getattr(self.optimizer, "weight_decay", None),
            "skipped_steps": progress.skipped_steps,
            "blamed": progress.blamed,
            **from_rank_zero(self._costs),
        }
        progress.time_s, progress.scale = figures["time_s"], self.engine.scaler_state()
        self.history.append(plain(figures))
        self.optimizer.end_epoch(figures[self.objective.value])
        return self.history[-1]

    def _costs(self) -> Figures:
        """Returns the time of training and the peak memory so far."""
        before, self._counted = self._counted, clock()
        return {
            "time_s": self.progress.time_s + self._counted - before,
            "memory_bytes": peak_memory_bytes(self.flow.device),
        }


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Returns a seed of 63 bits for the random numbers of an epoch and a rank."""
    named = f"{seed} {epoch} {rank}" if rank else f"{seed} {epoch}"
    return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8]) >> 1


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns a copy of a state, which later steps do not change."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}
