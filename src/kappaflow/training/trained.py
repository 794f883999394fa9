"""Rows and a flow in, a trained flow out: a training from its first step to what is kept of it."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kappaflow.errors import NumericalError
from kappaflow.files import describe_model
from kappaflow.flows import Flow
from kappaflow.locking import locked
from kappaflow.ranks import is_first
from kappaflow.training.callbacks import Callback, Told
from kappaflow.training.checkpoint import Groups
from kappaflow.training.collectives import from_rank_zero, lost_ranks_as_errors
from kappaflow.training.distributed import Engine
from kappaflow.training.loop import Figures, Training
from kappaflow.training.progress import likelihood_in_words, progress_bar
from kappaflow.training.rows import AnyRows
from kappaflow.training.run_folder import RunFolder
from kappaflow.training.settings import Settings
from kappaflow.training.units import fit_units

SECONDS_BETWEEN_CHECKPOINTS = 1.0


State = tuple[Groups, dict[str, Any], list[Figures]]  # of a training: tensors, progress, history


@dataclass(frozen=True)
class FitResult:
    """What a training came to.

    Attributes:
        flow: The flow that was given, with the best weights, in evaluation mode.
        history: The figures of each epoch, as in metrics.jsonl.
        validation_nll: Mean negative log-likelihood of the validation rows, in nats, in the units
            of x; what `Flow.log_prob` says, where that is a bound or a joint density.
        best_epoch: The epoch whose weights were kept.
        stopped_because: "max_epochs", "max_time_s" or "patience".
        notes: What was said about the data, one sentence each.
    """

    flow: Flow
    history: tuple[Figures, ...]
    validation_nll: float
    best_epoch: int
    stopped_because: str
    notes: tuple[str, ...] = ()


def trained(
    flow: Flow,
    train: AnyRows,
    validation: AnyRows,
    settings: Settings,
    engine: Engine,
    *,
    out: str | Path | None,
    progress: bool | None,
    asked: dict[str, Any],
    callbacks: Sequence[Callback],
    start: State | None = None,
) -> FitResult:
    """Returns what came of a training, also of one that is finished already.

    Under torchrun the first rank alone has the folder, tells the callbacks and shows a bar.

    Args:
        flow: Trained in place; its units are fitted first.
        train: Rows to train on.
        validation: Rows to stop by.
        settings: How.
        engine: Where, and in which precision.
        out: A run folder to write and to resume from, which no other process may be writing to;
            None for none.
        progress: Show a progress bar; on a terminal only if None.
        asked: What else config.json says of the run, which a run that goes on has to have alike.
        callbacks: Are told of each epoch.
        start: Where a training that has no checkpoint yet begins: weights, progress, history.

    Returns:
        The result, without notes.
    """
    folder, told = None, Told(callbacks)

    def opened() -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        nonlocal folder
        if out is None:
            return None
        run = {**asked, "training": settings.model_dump()}
        folder = RunFolder(out, describe_model(flow).model_copy(update={"run": run}))
        stored = folder.finished(flow)
        return None if stored is None else (stored, flow.state_dict())

    def started() -> None:
        if folder is not None:
            kept.enter_context(locked(folder.path))
            folder.start(flow)

    finished = from_rank_zero(opened)
    if finished is not None:
        flow.load_state_dict(finished[1])
        return _stored_result(flow, finished[0])
    with ExitStack() as kept:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            fit_units(flow, train)
        from_rank_zero(started)
        with torch.inference_mode(False), torch.enable_grad(), lost_ranks_as_errors():
            training = Training(flow, train, validation, settings, engine)
            _resume(training, folder, start)
            return _train(training, folder, progress, told)


def _resume(training: Training, folder: RunFolder | None, start: State | None) -> None:
    """Takes a training, on all ranks, to where the last checkpoint or `start` stands."""

    def resumed() -> State:
        if folder is not None:
            folder.resume(training)
        if start is not None and not training.progress.step:
            training.restore(*start)
            if folder is not None:
                for figures in training.history:
                    folder.log(figures)
                folder.checkpoint(training)
        return training.state(), training.plain_progress(), training.history

    state = from_rank_zero(resumed)
    if not is_first():
        training.restore(*state)


def _train(
    training: Training, folder: RunFolder | None, progress: bool | None, told: Told
) -> FitResult:
    written = time.perf_counter()
    name = "joint nll" if training.flow.likelihood == "joint" else "nll"
    budget = training.settings.condition_budget
    words = partial(likelihood_in_words, name=name, budget=budget)
    visible = progress if is_first() else False
    begins = "compiling" if training.settings.compile else ""
    with progress_bar(training.share_done, visible=visible, in_words=words, begins=begins) as show:

        def started() -> None:
            with training.average.in_place():
                told.on_start(training.flow, training.settings)

        def after_epoch(figures: Figures) -> None:
            nonlocal written
            show(figures)
            with training.average.in_place():
                told.on_epoch(training.flow, figures)
                if training.progress.best_epoch == figures["epoch"]:
                    told.on_best(training.flow, figures)
            if folder is None:
                return
            folder.log(figures)
            if time.perf_counter() - written >= SECONDS_BETWEEN_CHECKPOINTS:
                folder.checkpoint(training)
                written = time.perf_counter()
            else:
                folder.hold(training)

        from_rank_zero(started)
        try:
            reason = training.run(lambda figures: from_rank_zero(partial(after_epoch, figures)))
            if training.progress.best_epoch:
                return _ended(training, folder, told, reason)
        except BaseException as stopped:
            _leave(training, folder, stopped)
            raise
    training.load_best()
    training.flow.eval()
    raise NumericalError(_why_none(training))


def _ended(training: Training, folder: RunFolder | None, told: Told, reason: str) -> FitResult:
    """Returns the result of a training that has come to its end, and keeps it."""
    if folder is not None:
        folder.checkpoint(training)
    training.load_best()
    training.flow.eval()
    result = _result(training, reason)

    def ended() -> None:
        if folder is not None:
            folder.finish(_to_store(result))
        told.on_end(result)

    from_rank_zero(ended)
    return result


def _leave(training: Training, folder: RunFolder | None, stopped: BaseException) -> None:
    """Keeps what a training that was stopped has come to: the last epoch, the best weights."""
    training.load_best()
    training.flow.eval()
    if folder is None:
        return
    folder.keep(training)
    if isinstance(stopped, KeyboardInterrupt):
        said = f"interrupted in epoch {folder.epoch + 1}: the same command goes on from there."
        stopped.add_note(said)


def _why_none(training: Training) -> str:
    """Returns why no epoch of a training left weights to keep."""
    progress, settings = training.progress, training.settings
    measured = [line["condition_number_p95"] for line in training.history]
    finite = [value for value in measured if value is not None]
    if settings.condition_budget is not None and finite:
        return (
            f"in {progress.epoch} epochs no weights kept the condition budget of "
            f"{settings.condition_budget:g}, the nearest had {min(finite):.4g}: the flow is as it "
            "was. Try more epochs, a lower learning rate, a larger budget, or a flow that starts "
            "as the identity."
        )
    return (
        f"no validation likelihood was finite in {_counted(progress.epoch, 'epoch')}, with "
        f"{_counted(progress.skipped_steps, 'skipped step')}: the flow is unchanged. Try a "
        f"learning rate far below {settings.learning_rate:g}, and look for extreme rows."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _result(training: Training, reason: str) -> FitResult:
    progress = training.progress
    return FitResult(
        flow=training.flow,
        history=tuple(training.history),
        validation_nll=progress.best_nll,
        best_epoch=progress.best_epoch,
        stopped_because=reason,
    )


def _to_store(result: FitResult) -> dict[str, Any]:
    last = result.history[-1]
    return {
        "validation_nll": result.validation_nll,
        "epochs": last["epoch"],
        "best_epoch": result.best_epoch,
        "stopped_because": result.stopped_because,
        "skipped_steps": last["skipped_steps"],
        "time_s": last["time_s"],
        "history": list(result.history),
    }


def _stored_result(flow: Flow, stored: dict[str, Any]) -> FitResult:
    flow.eval()
    return FitResult(
        flow=flow,
        history=tuple(stored["history"]),
        validation_nll=stored["validation_nll"],
        best_epoch=stored["best_epoch"],
        stopped_because=stored["stopped_because"],
    )
