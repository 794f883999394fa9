"""Training by maximum likelihood: rows in random order, validated after each epoch."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kappaflow.autograd.replay import Replay, owners_of
from kappaflow.data.batches import Batch, Batches
from kappaflow.errors import BuildError
from kappaflow.flows import Flow
from kappaflow.training.budget import ConditionBudget, project_to_budget
from kappaflow.training.collectives import all_gather
from kappaflow.training.distributed import Engine, has_unused_parameters
from kappaflow.training.loop import Progress, copied
from kappaflow.training.measure import (
    CONDITIONING,
    budget_figures,
    conditioning_figures,
    likelihood_figures,
    train_figures,
)
from kappaflow.training.nonfinite import first_nonfinite_layer
from kappaflow.training.objective import Averages, Figures, Loss, Measured, State
from kappaflow.training.settings import MEASUREMENTS, Settings

SAME_RANDOM: dict[str, Any] = {"fallback_random": True}  # the random numbers of uncompiled code
LARGEST_ERROR = 0.01  # of a gradient; reordered sums differ by far less
ROUNDINGS = 16  # allowed error in units of the rounding of a narrow type, if that is larger
NEGLIGIBLE = 0.01  # of the norm of the whole gradient


class CheckedLikelihood(nn.Module):
    """The log_prob of a flow in training steps; `torch.compile` runs full batches, if compiled."""

    def __init__(self, flow: Flow, *, compiled: bool) -> None:
        super().__init__()
        self.flow = flow
        self._compiled = None
        if compiled:
            # It warns about in-place operations; wrong gradients from these would be found below.
            logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
            self._compiled = torch.compile(_own_code(flow), dynamic=False, options=SAME_RANDOM)
        self._checked = False

    def forward(self, x: Tensor, context: Tensor | None, is_whole: bool) -> Tensor:
        """Returns the log_prob (B,) of a full batch, or of the last batch of an epoch."""
        if self._compiled is None or not is_whole:
            return self.flow.log_prob(x, context)
        return self._compiled(x, context)

    def check(self, x: Tensor, context: Tensor | None, epoch: int) -> None:
        """Compares compiled gradients with others in some epochs; BuildError if they differ."""
        if self._compiled is None or (self._checked and epoch & (epoch - 1)):
            return
        self._checked = True
        for fault in all_gather(self._fault(x, context)):
            if fault is not None:
                raise BuildError(f"compile=True: {fault}; leave it out.")

    def _fault(self, x: Tensor, context: Tensor | None) -> str | None:
        names, trained = zip(*self._trained(), strict=True)
        replay = Replay(owners_of(self.flow), x)

        def gradients(*, is_whole: bool) -> list[Tensor]:
            with replay:
                mean = self(x, context, is_whole).mean()
                result = torch.autograd.grad(mean, trained, allow_unused=True)
            return [
                p.new_zeros(()) if g is None else g for p, g in zip(trained, result, strict=True)
            ]

        expected = gradients(is_whole=False)
        try:
            result = gradients(is_whole=True)
        except Exception as error:  # torch.compile and the C++ compiler raise many kinds
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            return f"torch.compile, which needs a C++ compiler such as g++, failed here ({reason})"
        total = torch.nn.utils.get_total_norm(expected)
        if not total.isfinite():
            return None  # this step is skipped with and without the compiler
        allowed = max(LARGEST_ERROR, ROUNDINGS * self._rounding(x.device.type))
        errors = [
            ((a - b).norm() / (b.norm() + NEGLIGIBLE * total)).nan_to_num(torch.inf).item()
            for a, b in zip(result, expected, strict=True)
        ]
        worst = max(errors)
        if worst <= allowed:
            return None
        return (
            f"torch.compile returns wrong gradients for this flow, with a relative error of "
            f"{worst:.2g} at {names[errors.index(worst)]}"
        )

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.flow.named_parameters() if p.requires_grad]

    def _rounding(self, device: str) -> float:
        """Returns the relative rounding error of the products in conditioners."""
        if torch.is_autocast_enabled(device):
            return torch.finfo(torch.get_autocast_dtype(device)).eps
        return torch.finfo(self.flow.dtype).eps


def _own_code(flow: Flow) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Returns the log_prob of a flow as a function that shares no code object with others."""
    # torch counts compilations per code object, and does not compile the ninth.

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        return flow.log_prob(x, context)

    log_prob.__code__ = log_prob.__code__.replace()
    return log_prob


OVERFIT_NATS = 0.01  # loss of validation likelihood by which a flow overfits, at least
DEVIATION = 0.4  # of the change of log p of a validation row, about, for an error of that loss


class Share(NamedTuple):
    """The rows of a batch that this rank takes, and their weight in the mean over ranks."""

    batch: Batch
    weight: float
    is_whole: bool


class MaximumLikelihood:
    """The mean negative log-likelihood of training rows, with a condition budget if one is set."""

    unit, limit, value = "epoch", "max_epochs", "validation_nll"

    def __init__(
        self,
        flow: Flow,
        train: Batches,
        validation: Batches,
        settings: Settings,
        engine: Engine,
    ) -> None:
        self.flow, self.train, self.validation = flow, train, validation
        self.settings, self.engine = settings, engine
        some_unused = engine.world_size > 1 and has_unused_parameters(flow, train)
        self.compiled = settings.compile
        self.likelihood = CheckedLikelihood(flow, compiled=self.compiled)
        self.module = engine.parallel(self.likelihood, some_unused=some_unused)
        self.batch_size = settings.rows_a_step(len(train))
        self.steps_per_epoch = -(-len(train) // self.batch_size)
        self.epochs = settings.epochs(self.steps_per_epoch)
        self.steps = self.steps_per_epoch * self.epochs
        self.patience = settings.epochs_of_patience(self.steps_per_epoch)
        self.margin = max(OVERFIT_NATS, DEVIATION / len(validation) ** 0.5)
        self.rows: State = getattr(train, "state", {})
        self.start: State = {}  # the weights towards which those are moved that exceed the budget
        if settings.condition_budget is not None:
            self.start = copied(flow.state_dict())
        self.causes = (
            "(a) the learning rate is too high, try "
            f"learning_rate={settings.learning_rate / 10:.1g}; (b) the log-scales are too large, "
            "try a smaller scale_bound; (c) extreme rows. kappaflow.doctor(flow, x) shows which."
        )

    def follow(self, progress: Progress) -> None:
        self.progress, limit = progress, self.settings.condition_budget
        self.budget = None
        if limit is not None:
            self.budget = ConditionBudget(limit, self.flow, progress.dual, self.steps)

    def batches(self, seed: int) -> Iterator[tuple[Share, int]]:
        self.flow.train()
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        parts = order.to(self.train.index_device).split(self.batch_size)
        if self.compiled:
            self._check_compiled(self.share(parts[0], is_whole=True).batch)
        for index in parts:
            yield self.share(index, is_whole=len(index) == len(parts[0])), len(index)

    def _check_compiled(self, batch: Batch) -> None:
        """Compares gradients with those of the uncompiled flow; raises if they differ."""
        with self.engine.autocast():
            self.likelihood.check(batch.x, batch.context, self.progress.epoch + 1)

    def share(self, index: Tensor, *, is_whole: bool) -> Share:
        """Returns this rank's rows of a batch; a row with weight zero if there are too few."""
        ranks = self.engine.world_size
        own = index.tensor_split(ranks)[self.engine.rank]
        batch = self.train.at(own if len(own) else index[:1])
        return Share(batch, len(own) * ranks / len(index), is_whole)

    def loss(self, batch: Share, done: float) -> Loss:
        rows = batch.batch
        with self.engine.autocast():
            log_prob = self.module(rows.x, rows.context, batch.is_whole)
            loss = -rows.mean(log_prob) * batch.weight
        mean = self.engine.mean_over_ranks(loss)
        if self.budget is not None and torch.isfinite(mean):
            loss = self.budget.loss(loss, rows, self.progress.step)
        return Loss(loss, mean)

    def first_nonfinite(self, batch: Share, loss: Loss) -> str:
        """Returns the layer; if only some ranks have a loss that is not finite, one names it."""
        layer = first_nonfinite_layer(self.flow, batch.batch)
        return min(all_gather((bool(torch.isfinite(loss.value)), layer)))[1]

    def measure(self, averages: Averages, share_done: float | None) -> Measured:
        figures = {
            "epoch": self.progress.epoch,
            **train_figures(self.flow, averages.loss),
            **likelihood_figures(self.flow, self.validation),
            **self._conditioning(share_done),
        }
        limit = self.settings.condition_budget
        if limit is None:
            return figures, None
        moved = project_to_budget(self.flow, self.start, self.validation, limit, figures)
        if moved is None or not moved[0]["validation_nll"] < self.progress.best_nll:
            return figures, None
        return figures | moved[0], moved[1]

    def _conditioning(self, share_done: float | None) -> Figures:
        """Returns the conditioning after this epoch; each figure is None if it is not measured."""
        if share_done is None or not self._measures_conditioning(share_done):
            return dict.fromkeys(CONDITIONING)
        if self.budget is None:
            return conditioning_figures(self.flow, self.validation)
        condition = budget_figures(self.flow, self.validation)
        multiplier = self.progress.dual.per_log
        self.budget.measured(condition["condition_number_p95"], self.steps_per_epoch)
        figures = conditioning_figures(self.flow, self.validation, condition)
        return figures | {"condition_price": multiplier}

    def _measures_conditioning(self, share_done: float) -> bool:
        """Returns whether the conditioning is measured after this epoch."""
        progress, every = self.progress, self.settings.conditioning_every
        if every is not None:
            return progress.epoch in (1, self.epochs) or progress.epoch % every == 0
        before, progress.measured = progress.measured, int(share_done * MEASUREMENTS)
        return progress.epoch == 1 or before < progress.measured

    def is_best(self, figures: Figures) -> bool:
        p95, limit = figures["condition_number_p95"], self.settings.condition_budget
        within = limit is None or (p95 is not None and p95 <= limit)
        return within and figures["validation_nll"] < self.progress.best_nll

    def why_none(self, history: list[Figures]) -> str:
        progress, settings = self.progress, self.settings
        measured = [line["condition_number_p95"] for line in history]
        finite = [value for value in measured if value is not None]
        if settings.condition_budget is not None and finite:
            return (
                f"in {progress.epoch} epochs no weights kept the condition budget of "
                f"{settings.condition_budget:g}, the nearest had {min(finite):.4g}: the flow is "
                "as it was. Try more epochs, a lower learning rate, a larger budget, or a flow "
                "that starts as the identity."
            )
        return (
            f"no validation likelihood was finite in {_counted(progress.epoch, 'epoch')}, with "
            f"{_counted(progress.skipped_steps, 'skipped step')}: the flow is unchanged. Try a "
            f"learning rate far below {settings.learning_rate:g}, and look for extreme rows."
        )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
