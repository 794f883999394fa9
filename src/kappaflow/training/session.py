"""`fit_split`: one training, from the first step or the last checkpoint to the result."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from kappaflow.data import Dataset, MappedTable
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.files import describe_run
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.flows.rows import name_columns
from kappaflow.locking import locked
from kappaflow.ranks import is_first, ranks
from kappaflow.training import loop
from kappaflow.training.batches import fit_standardization
from kappaflow.training.callbacks import Callback, check_callbacks
from kappaflow.training.checkpoint import Groups
from kappaflow.training.collectives import check_same, from_rank_zero, lost_ranks_as_errors
from kappaflow.training.distributed import make_engine
from kappaflow.training.loop import Training
from kappaflow.training.maximum_likelihood import MaximumLikelihood
from kappaflow.training.objective import Figures
from kappaflow.training.own_optimizer import MakeOptimizer, MakeScheduler, OwnOptimizer
from kappaflow.training.progress import describe_likelihood, epochs_shown
from kappaflow.training.results import EnergyResult, FitResult
from kappaflow.training.run_folder import RunFolder
from kappaflow.training.settings import Settings

STOPPED = {
    "max_epochs": "the limit on epochs",
    "max_time_s": "the limit on time",
    "patience": "no better validation likelihood",
}


R = TypeVar("R", FitResult, EnergyResult)
TrainingState = tuple[Groups, dict[str, Any], list[Figures]]  # tensors, progress, history


def history_facts(result: FitResult) -> list[tuple[str, str]]:
    """Returns the facts of a report about the course of a training; none without a history."""
    if not result.history:
        return []
    first, last = result.history[0].get("weight_decay"), result.history[-1]
    decayed = [f["epoch"] for f in result.history if f.get("weight_decay") != first]
    overfit = f"{last.get('weight_decay'):g} from epoch {decayed[0]}" if decayed else None
    return [
        *([("weight decay against overfitting", overfit)] if overfit else []),
        ("epochs", f"{last['epoch']} (best: {result.best_epoch})"),
        ("stopped because of", STOPPED.get(result.stopped_because, result.stopped_because)),
        ("time", f"{last['time_s']:.0f} s"),
        ("peak memory of the process", f"{last['memory_bytes'] / 2**20:.0f} MiB"),
        ("steps skipped", str(last["skipped_steps"])),
    ]


def fit_split(
    flow: Flow,
    train: Dataset,
    validation: Dataset,
    settings: Settings,
    *,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    about: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    start: TrainingState | None = None,
    optimizer: MakeOptimizer | None = None,
    scheduler: MakeScheduler | None = None,
) -> FitResult:
    """Returns the result, without notes, of a training on data that is prepared and split.

    Of several ranks only the first opens the folder, calls the callbacks and shows a bar. A
    finished run is not trained again. `about` has more entries for config.json, such as where the
    data came from; to be resumed, a run must have the same ones. `start` is the state in which a
    training without a checkpoint starts, from a model search. `fit` describes the other arguments.
    """
    started = loop.clock()
    _check_budget(settings, flow)
    engine = make_engine(flow, device, settings.precision)
    train.check(flow)
    validation.check(flow, held_out=True)
    check_callbacks(callbacks)
    own = _own_optimizer(flow, settings, optimizer, scheduler)
    described = train.describe()
    name_columns(flow, described.get("columns"), described.get("context_columns"))
    run = {
        **described,
        **(about or {}),
        "fingerprints": {"train": train.fingerprint(), "validation": validation.fingerprint()},
        "training": settings.model_dump(),
        **({} if own is None else own.describe()),
    }
    check_same((run["fingerprints"], run["training"]))
    batches, held_out = train.batches(flow), validation.batches(flow)
    rows = {
        "train": train.sample if isinstance(train, MappedTable) else train,
        "validation": validation,
    }
    folder = None

    def finished_before() -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        nonlocal folder
        if out is None:
            return None
        folder = RunFolder(out, describe_run(flow, run))
        stored = folder.finished(flow)
        return None if stored is None else (stored, flow.state_dict())

    finished = from_rank_zero(finished_before)
    if finished is not None:
        flow.load_state_dict(finished[1])
        return replace(FitResult.stored(flow.eval(), finished[0]), **rows)
    if start is not None:  # fitted by the search
        flow.load_state_dict(start[0]["flow"])
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        fit_standardization(flow, batches)
    with _started(folder, flow):
        objective = MaximumLikelihood(flow, batches, held_out, settings, engine)
        training = Training(objective, settings, engine, own, started)
        _resume(training, folder, start)
        name = "joint nll" if flow.likelihood == "joint" else "nll"
        describe = partial(describe_likelihood, name=name, budget=settings.condition_budget)
        result = trained(
            training,
            callbacks,
            partial(_result, training),
            describe=describe,
            progress=progress,
            folder=folder,
        )
        return replace(result, **rows)


def _own_optimizer(
    flow: Flow,
    settings: Settings,
    optimizer: MakeOptimizer | None,
    scheduler: MakeScheduler | None,
) -> OwnOptimizer | None:
    """Returns the optimizer that the caller's functions make; None without any."""
    if optimizer is None and scheduler is None:
        return None
    rates = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    make = optimizer or partial(torch.optim.AdamW, fused=True, **rates)
    return OwnOptimizer(flow.parameters(), make, scheduler)


def _check_budget(settings: Settings, flow: Flow) -> None:
    """Raises an error for a condition budget that this training cannot keep."""
    if settings.condition_budget is None:
        return
    if len(flow.event_shape) > 1:
        raise ArgumentError(
            "'condition_budget' should be left out for images: measuring the condition number of "
            "so many dimensions takes longer than the training. Only tables can have one."
        )
    if ranks() > 1:
        raise ArgumentError(
            "'condition_budget' should be left out with several ranks: its dual variable "
            "follows the rows of one process. Start the same training with WORLD_SIZE=1."
        )


@contextmanager
def _started(folder: RunFolder | None, flow: Flow) -> Iterator[None]:
    """A context of a training: its folder is locked and can be loaded, gradients are on."""
    with ExitStack() as kept:

        def start() -> None:
            if folder is not None:
                kept.enter_context(locked(folder.path))
                folder.start(flow)

        from_rank_zero(start)
        with torch.inference_mode(False), torch.enable_grad(), lost_ranks_as_errors():
            yield


def _resume(training: Training, folder: RunFolder | None, start: TrainingState | None) -> None:
    """Restores a training on all ranks from the last checkpoint, or from `start`."""

    def resumed() -> TrainingState | None:
        if folder is not None:
            folder.resume(training)
        if start is not None and not training.progress.step:
            training.restore(*start)
            if folder is not None:
                for figures in training.history:
                    folder.log(figures)
                folder.checkpoint(training)
        if ranks() == 1:
            return None
        return training.state(), training.plain_progress(), training.history

    state = from_rank_zero(resumed)
    if not is_first() and state is not None:
        training.restore(*state)


def trained(
    training: Training,
    callbacks: Sequence[Callback],
    result_of: Callable[[str], R],
    *,
    describe: Callable[[Figures], str],
    progress: bool | None,
    folder: RunFolder | None = None,
) -> R:
    """Returns the result of a training, which runs with its callbacks, checkpoints and a bar.

    `result_of` makes it from the reason of the end, of the flow with its best weights. If there
    are none, NumericalError. If the training is stopped, the best weights so far are written.
    """

    def call(event: str, content: object) -> None:
        if not callbacks:
            return
        with training.average.in_place(), evaluation_mode(training.flow):
            for callback in callbacks:
                getattr(callback, event)(training.flow, content)

    def after_epoch(figures: Figures) -> None:
        show(figures)
        call("on_epoch", figures)
        if training.progress.best_epoch == figures["epoch"]:
            call("on_best", figures)
        if folder is not None:
            folder.end_epoch(training, figures)

    def ended(result: R) -> None:
        if folder is not None and isinstance(result, FitResult):
            folder.finish(result.content())
        for callback in callbacks:
            callback.on_end(result)

    with epochs_shown(
        training.share_done,
        visible=progress if is_first() else False,
        describe=describe,
        begins="compiling" if training.objective.compiled else "",
    ) as show:
        from_rank_zero(partial(call, "on_start", training.settings))
        try:
            reason = training.run(lambda figures: from_rank_zero(partial(after_epoch, figures)))
            if training.progress.best_epoch:
                if folder is not None:
                    folder.checkpoint(training)
                training.load_best()
                result = result_of(reason)
                from_rank_zero(partial(ended, result))
                return result
        except BaseException as stopped:
            training.load_best()
            if folder is not None:
                folder.leave(training, stopped)
            raise
    training.load_best()
    raise NumericalError(training.objective.why_none(training.history))


def _result(training: Training, reason: str) -> FitResult:
    progress = training.progress
    return FitResult(
        flow=training.flow,
        history=tuple(training.history),
        validation_nll=progress.best_nll,
        best_epoch=progress.best_epoch,
        stopped_because=reason,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
