"""The training loop: epochs of steps, with a state that can be saved and restored."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from kappaflow.data.batches import Batch, Batches
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow
from kappaflow.flows.standardization import standardization_log_det
from kappaflow.storage import plain
from kappaflow.training.budget import ConditionBudget, DualVariable, project_to_budget
from kappaflow.training.checkpoint import Groups, copied_as
from kappaflow.training.collectives import all_gather, from_rank_zero
from kappaflow.training.distributed import Engine, has_unused_parameters
from kappaflow.training.likelihood import Likelihood
from kappaflow.training.measure import (
    CONDITIONING,
    budget_figures,
    conditioning_figures,
    likelihood_figures,
    peak_memory_bytes,
)
from kappaflow.training.nonfinite import first_nonfinite_layer
from kappaflow.training.optimizer import AdamW, WeightEMA, learning_rate_at
from kappaflow.training.own_optimizer import OwnOptimizer
from kappaflow.training.settings import MEASUREMENTS, Settings

Figures = dict[str, Any]
CLOCK_EVERY = 10  # steps between two readings of the clock, with several ranks
MOST_CLOSING = 0.2  # share of a time limit that is kept for the end of the last epoch, at most
clock = time.perf_counter  # benchmarks replace it by processor time
RISE = 100  # steps over which the learning rate rises during a model search


@dataclass
class Progress:
    """The state of a training in plain numbers: a checkpoint without its tensors."""

    epoch: int = 0
    step: int = 0
    start_epoch: int = 0
    start_step: int = 0
    start_s: float = 0.0
    steps_of_others: int = 0
    updates: int = 0
    best_nll: float = float("inf")
    best_epoch: int = 0
    skipped_steps: int = 0
    skipped_in_row: int = 0
    blamed: str | None = None
    time_s: float = 0.0
    closing_s: float = 0.0  # longest time from the last step of an epoch to the next epoch
    measured: int = 0  # number of measurements of the conditioning that were due
    dual: DualVariable = field(default_factory=DualVariable)
    scale: dict[str, int | float] = field(default_factory=dict)
    optimizer: Any = None  # the state of an optimizer of the caller, without its tensors

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Progress":
        """Returns the progress from the dict that `asdict` returned.

        Raises:
            ValueError: A value is missing or has the wrong type.
        """
        try:
            return TypeAdapter(cls).validate_python(plain)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


class Training:
    """A flow in training, with its optimizer, its data and its progress.

    The order of the rows and the numbers that random layers draw depend only on the seed and the
    epoch. A training that is restored at an epoch therefore continues exactly as if it had never
    stopped. With several ranks, each rank takes a share of each batch. The first rank measures,
    and all ranks use its figures. `started` is the reading of the clock at which its time begins.
    """

    def __init__(
        self,
        flow: Flow,
        train: Batches,
        validation: Batches,
        settings: Settings,
        engine: Engine,
        optimizer: OwnOptimizer | None = None,
        started: float | None = None,
    ) -> None:
        self.flow, self.train, self.validation = flow, train, validation
        self.settings, self.engine = settings, engine
        self.optimizer = optimizer or AdamW(
            flow, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        some_unused = engine.world_size > 1 and has_unused_parameters(flow, train)
        self.likelihood = Likelihood(flow, compiled=settings.compile)
        self.module = engine.parallel(self.likelihood, some_unused=some_unused)
        self.average = WeightEMA(flow, settings.average)
        self.best = copied(flow.state_dict())
        self.start = {} if settings.condition_budget is None else self.best
        self.progress, self.history = Progress(), list[Figures]()
        self.batch_size = settings.rows_a_step(len(train))
        self.steps_per_epoch = -(-len(train) // self.batch_size)
        self.epochs = settings.epochs(self.steps_per_epoch)
        self.patience = settings.epochs_of_patience(self.steps_per_epoch)
        self.steps = self.steps_per_epoch * self.epochs
        self.racing = False
        self._counted = clock() if started is None else started  # `time_s` counts until then
        self._time_used, self._rate_share = 0.0, None  # the share is of the highest learning rate
        self.budget = self._budget()

    def run(self, after_epoch: Callable[[Figures], None]) -> str:
        """Returns why the training ended: "max_epochs", "max_time_s" or "patience"."""
        while (reason := self._finished()) is None:
            train_nll = self._epoch()
            self.progress.epoch += 1
            with self._closing():
                after_epoch(self._measured(train_nll))
        return reason

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Measures the time that the end of an epoch takes: validation, checkpoint, callbacks."""
        ended = clock()
        yield
        self.progress.closing_s = max(self.progress.closing_s, clock() - ended)

    def race(self, seconds: float, last: float = math.inf, end: float = math.inf) -> None:
        """Trains at the highest learning rate for some processor time of a model search.

        Stops at the step `last`, when the clock reads `end`, and after `patience` epochs without
        improvement. Takes at least one step before `last`.
        """
        self.racing, self._counted = True, clock()
        progress, until = self.progress, time.process_time() + seconds

        def is_over() -> bool:
            return progress.step >= last or time.process_time() >= until or clock() >= end

        while progress.step < last and progress.epoch - progress.best_epoch < self.patience:
            train_nll = self._epoch(is_over)
            progress.epoch += 1
            with self._closing():
                self._measured(train_nll)
            if is_over():
                break
        self.racing = False

    def load_best(self) -> None:
        self.flow.load_state_dict(self.best)

    def state(self) -> Groups:
        """Returns all tensors that the training needs to continue."""
        entries = self.optimizer.state_dict()
        optimizer = {f"{i}.{key}": t for i, entry in entries.items() for key, t in entry.items()}
        return {
            "flow": self.flow.state_dict(),
            "average": self.average.state(),
            "best": self.best,
            "start": self.start,
            "optimizer": optimizer,
        }

    def restore(self, groups: Groups, progress: dict[str, Any], history: list[Figures]) -> None:
        """Restores a state that `state` returned, with its progress and its history."""
        self.flow.load_state_dict(groups["flow"])
        self.average.restore(groups["average"])
        self.best = copied_as(groups["best"], self.best)
        self.start = copied_as(groups.get("start", {}), self.start)
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups.get("optimizer", {}).items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = tensor
        self.progress, self.history = Progress.of(progress), list(history)
        self.optimizer.load_state_dict(entries, self.progress.optimizer)
        self.budget = self._budget()
        self.engine.restore_scaler(self.progress.scale)

    def plain_progress(self) -> dict[str, Any]:
        self.progress.optimizer = self.optimizer.plain_state()
        return asdict(self.progress)

    def _budget(self) -> ConditionBudget | None:
        limit = self.settings.condition_budget
        if limit is None:
            return None
        return ConditionBudget(limit, self.flow, self.progress.dual, self.steps)

    def _finished(self) -> str | None:
        progress = self.progress
        if progress.epoch - max(progress.best_epoch, progress.start_epoch) >= self.patience:
            return "patience"
        if progress.epoch and from_rank_zero(self._time_share) >= 1:
            return "max_time_s"
        used = progress.epoch + self._epochs_of_others()
        return "max_epochs" if used >= self.epochs else None

    def _time_share(self) -> float:
        """Returns the used share of the time for steps; 0 without a limit on time.

        The end of the last epoch, with its validation and checkpoint, is within the limit too.
        """
        if self.settings.max_time_s is None:
            return 0.0
        progress, limit = self.progress, self.settings.max_time_s
        elapsed = progress.time_s + clock() - self._counted
        closing = min(progress.closing_s, MOST_CLOSING * limit)
        left = max(limit - progress.start_s - closing, 1e-9)
        return max(0.0, min(1.0, (elapsed - progress.start_s) / left))

    def share_done(self) -> float:
        """Returns the share of the training that is done, by steps or by time."""
        return min(1.0, self._steps_done() / self._steps_planned())

    def _steps_planned(self) -> int:
        """Returns the number of steps from the start, or from the end of a model search."""
        left = self.epochs - self.progress.start_epoch - self._epochs_of_others()
        return max(1, left * self.steps_per_epoch)

    def _epochs_of_others(self) -> int:
        """Returns the number of epochs that other models of a search have used."""
        return self.progress.steps_of_others // self.steps_per_epoch

    def _steps_done(self) -> float:
        """Returns how many of these steps are done, at least the used share of the time limit."""
        progress = self.progress
        return max(progress.step - progress.start_step, self._time_used * self._steps_planned())

    def _learning_rate(self) -> float:
        """Returns the rate of the next step: a linear rise, then half a cosine to zero.

        During a model search the rate stays at its highest value. The cosine of the selected
        model begins at the end of the search.
        """
        progress, highest = self.progress, self.settings.learning_rate
        if self.racing:
            return highest * min(1.0, (progress.step + 1) / RISE)
        warmup = 0.0 if progress.start_step else self.settings.warmup
        done, planned = self._steps_done(), self._steps_planned()
        return learning_rate_at(done, planned, highest=highest, warmup=warmup)

    def _epoch(self, is_over: Callable[[], bool] = lambda: False) -> float:
        """Returns the mean training NLL of the steps of an epoch, without skipped ones.

        An epoch ends early at the time limit, and where `is_over` returns True.
        """
        self.flow.train()
        seed = epoch_seed(self.settings.seed, self.progress.epoch)
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        total, rows = 0.0, 0
        cuda = [self.flow.device] if self.flow.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(
                epoch_seed(self.settings.seed, self.progress.epoch, self.engine.rank)
            )
            batches = order.to(self.train.index_device).split(self.batch_size)
            if self.settings.compile:
                self._check_compiled(batches[0])
            for i, index in enumerate(batches):
                if i % CLOCK_EVERY == 0 or self.engine.world_size == 1:
                    self._time_used = from_rank_zero(self._time_share)
                if i > 0 and (self._time_used >= 1 or is_over()):
                    break
                is_whole = len(index) == len(batches[0])
                nll = self._step(*self._share(index), is_whole=is_whole)
                if nll is not None:
                    total, rows = total + nll * len(index), rows + len(index)
        return total / rows if rows else float("nan")

    def _check_compiled(self, index: Tensor) -> None:
        """Compares gradients with those of the uncompiled flow; raises if they differ."""
        batch, _ = self._share(index)
        with self.engine.autocast():
            self.likelihood.check(batch.x, batch.context, self.progress.epoch + 1)

    def _share(self, index: Tensor) -> tuple[Batch, float]:
        """Returns this rank's rows of a batch, and their weight in the mean over ranks.

        If there are fewer rows than ranks, the other ranks take the first row with weight zero.
        """
        ranks = self.engine.world_size
        own = index.tensor_split(ranks)[self.engine.rank]
        return self.train.at(own if len(own) else index[:1]), len(own) * ranks / len(index)

    def _step(self, batch: Batch, share: float, *, is_whole: bool) -> float | None:
        """Returns the NLL of a training step, or None if it was not finite and was skipped.

        `share` weighs the mean over the rows of this rank; gradients and NLL are means over ranks.
        `is_whole` tells whether the batch, over all ranks, has the full batch size.
        """
        rate, highest = self._learning_rate(), self.settings.learning_rate
        follows = self.optimizer.set_rate(rate, highest)
        self._rate_share = rate / highest if follows else None
        self.progress.step += 1
        self.optimizer.zero_grad()
        alone = self.engine.world_size == 1 and not self.settings.compile
        with self.optimizer.joined() if alone else nullcontext():
            with self.engine.autocast():
                log_prob = self.module(batch.x, batch.context, is_whole)
                loss = -batch.mean(log_prob) * share
            mean = self.engine.mean_over_ranks(loss)
            if self.budget is not None and torch.isfinite(mean):
                loss = self.budget.loss(loss, batch, self.progress.step)
            clip_norm = self.settings.clip_norm
            nll, norm = self.engine.clipped_step(self.optimizer, loss, mean, clip_norm=clip_norm)
        if math.isfinite(nll) and math.isfinite(norm):
            self.progress.updates += 1
            self.average.update(self.progress.updates)
            self.progress.skipped_in_row = 0
            return nll
        scale = self.engine.lower_scale() if math.isfinite(nll) else None
        if scale is not None:
            self._skip(f"gradients in float16 at a scale of {scale:g}")
            return None
        # If only some ranks have a loss that is not finite, one of them names the layer.
        self._skip(
            min(all_gather((bool(torch.isfinite(loss)), first_nonfinite_layer(self.flow, batch))))[
                1
            ]
        )
        return None

    def _skip(self, blamed: str) -> None:
        """Counts a step that was not finite, and stops the training after many in a row."""
        progress = self.progress
        progress.skipped_steps += 1
        progress.skipped_in_row += 1
        progress.blamed = blamed
        if progress.skipped_in_row < self.settings.most_skipped:
            return
        self.load_best()
        self.flow.eval()
        raise NumericalError(
            f"training stopped in epoch {progress.epoch + 1}: {progress.skipped_in_row} steps in "
            f"a row were not finite, starting at {progress.blamed}. The flow has the weights of "
            f"epoch {progress.best_epoch}. Likely causes: (a) the learning rate is too high, try "
            f"learning_rate={self.settings.learning_rate / 10:.1g}; (b) the log-scales are too "
            "large, try a smaller scale_bound; (c) extreme rows. kappaflow.doctor(flow, x) shows "
            "which."
        )

    def _conditioning(self) -> Figures:
        """Returns the conditioning after this epoch; each figure is None if it is not measured."""
        if not self._measures_conditioning():
            return dict.fromkeys(CONDITIONING)
        if self.budget is None:
            return conditioning_figures(self.flow, self.validation)
        condition = budget_figures(self.flow, self.validation)
        multiplier = self.progress.dual.per_log
        self.budget.measured(condition["condition_number_p95"], self.steps_per_epoch)
        figures = conditioning_figures(self.flow, self.validation, condition)
        return figures | {"condition_price": multiplier}

    def _measures_conditioning(self) -> bool:
        """Returns whether the conditioning is measured after this epoch."""
        progress, every = self.progress, self.settings.conditioning_every
        if self.racing:
            return False
        if every is not None:
            return progress.epoch in (1, self.epochs) or progress.epoch % every == 0
        before, progress.measured = progress.measured, int(self.share_done() * MEASUREMENTS)
        return not self.history or before < progress.measured

    def _is_within(self, figures: Figures) -> bool:
        """Returns whether the figures of an epoch keep the condition budget, if any."""
        p95, limit = figures["condition_number_p95"], self.settings.condition_budget
        return limit is None or (p95 is not None and p95 <= limit)

    def _measured(self, train_nll: float) -> Figures:
        """Returns the metrics of the epoch, and stores the weights if they are the best so far."""
        progress = self.progress
        self.flow.eval()
        with self.average.in_place():
            figures, moved = from_rank_zero(partial(self._validated, train_nll))
            if figures["validation_nll"] < progress.best_nll and self._is_within(figures):
                progress.best_nll, progress.best_epoch = figures["validation_nll"], progress.epoch
                self.best = copied(self.flow.state_dict() if moved is None else moved)
        figures |= {
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "learning_rate_share": self._rate_share,
            "skipped_steps": progress.skipped_steps,
            "blamed": progress.blamed,
            **from_rank_zero(self._costs),
        }
        progress.time_s, progress.scale = figures["time_s"], self.engine.scaler_state()
        self.history.append(plain(figures))
        self.optimizer.end_epoch(figures["validation_nll"])
        return self.history[-1]

    def _validated(self, train_nll: float) -> tuple[Figures, dict[str, Tensor] | None]:
        """Returns the figures on validation rows, and other weights if those keep a budget."""
        figures = {
            "epoch": self.progress.epoch,
            "train_nll": train_nll,
            "train_nll_standardized": train_nll + standardization_log_det(self.flow),
            **likelihood_figures(self.flow, self.validation),
            **self._conditioning(),
        }
        limit = self.settings.condition_budget
        if limit is None:
            return figures, None
        moved = project_to_budget(self.flow, self.start, self.validation, limit, figures)
        if moved is None or not moved[0]["validation_nll"] < self.progress.best_nll:
            return figures, None
        return figures | moved[0], moved[1]

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
