"""`fit`: data and a flow in, a trained flow and its history out."""

import dataclasses
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from kappaflow.data import (
    Images,
    Table,
    examine,
    is_images,
    load_images,
    prepare,
    split,
    weighted,
)
from kappaflow.data.domains import Bounds, bounds_of, domains_of, put_back, within
from kappaflow.data.images import split_images
from kappaflow.errors import ArgumentError, DataError, DataWarning, NumericalError
from kappaflow.files import describe_model
from kappaflow.flows import Flow, set_bounds
from kappaflow.training.budget import correlation_note
from kappaflow.training.callbacks import Callback, Told
from kappaflow.training.engine import engine
from kappaflow.training.image_rows import ImageRows, check_pixels
from kappaflow.training.loop import Figures, Training
from kappaflow.training.progress import likelihood_in_words, progress_bar
from kappaflow.training.rows import (
    AnyRows,
    as_table,
    domains_in,
    refuse_collapsed,
    refuse_outside,
    rows_of,
)
from kappaflow.training.run_folder import RunFolder
from kappaflow.training.settings import Settings, checked_settings
from kappaflow.training.units import fit_units

SECONDS_BETWEEN_CHECKPOINTS = 1.0


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


def fit(
    flow: Flow,
    data: Any,  # noqa: ANN401
    *,
    validation: Any = None,  # noqa: ANN401
    weights: Any = None,  # noqa: ANN401
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    repair: Literal["drop", "jitter"] | None = None,
    bounds: Bounds | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,  # noqa: ANN401
) -> FitResult:
    """Trains a flow by maximum likelihood, and returns it with its history.

    What a recipe's flow begins with (`Standardize`, and `Whiten` where it starts with one) is
    fitted first, on the training rows only, unless it is fitted already. Each epoch is validated;
    the weights with the best validation likelihood are kept. A step that is not finite is skipped
    and counted, and many in a row stop the training. With `out`, a run that was interrupted goes
    on where its last checkpoint stands, to the same losses, bit for bit on the same machine; a
    finished one returns its stored result.

    Args:
        flow: Trained in place.
        data: A tensor, array, data frame, `Table`, path or shipped name; with a context, (x,
            context). For a flow of images `Images`, or their path or name.
        validation: The same, for the rows to stop by; if left out, a tenth of `data`.
        weights: How much each row of `data` counts in the likelihood, (N,), 0 or more; all alike
            if left out. Tables only.
        out: A run folder to write and to resume from.
        device: Where to train, "cpu" or "cuda"; where the flow is if left out.
        repair: "drop" or "jitter": go on where the data has no density, see
            `kappaflow.data.prepare`.
        bounds: Domains of columns by name, in which all samples then lie, such as
            {"mass": "positive", "p": (0, 1), "angle": "circular"}: the flow, one that a recipe
            made and that is not fitted, becomes what its recipe makes with these `bounds`.
        progress: Show a progress bar; on a terminal only if left out.
        callbacks: Are told of each epoch: `Callback`, of which `kappaflow.training.TensorBoard`
            is one.
        **settings: `max_epochs`, `max_time_s`, `batch_size`, `learning_rate`, `seed`,
            `condition_budget` and the other fields of `kappaflow.training.Settings`.

    Returns:
        The result; its `flow` is the one that was given.

    Raises:
        ArgumentError: An argument is wrong, or `out` was made with other data or arguments.
        DataError: The data has no density that a flow could fit.
        NumericalError: Many steps in a row were not finite; the flow has its best weights. Or no
            epoch kept the condition budget; the flow is as it was.

    Example:
        >>> import kappaflow as kf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * 3
        >>> result = kf.fit(kf.real_nvp(2, depth=2, hidden=(8,)), x, max_epochs=3)
        >>> result.stopped_because, len(result.history)
        ('max_epochs', 3)
    """
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    checked = checked_settings(**settings)
    if is_image_data(data):
        for name, value in (("weights", weights), ("bounds", bounds)):
            if value is not None:
                raise ArgumentError(f"'{name}' should be left out for images.")
        return _fit_any_images(flow, data, validation, checked, out, device, progress, callbacks)
    table = weighted(as_table(data), weights)
    domains = domains_of(bounds, table) if bounds else domains_in(flow, table)
    table, moved = within(table, domains, repair=repair)
    table, notes = prepare(table, repair=repair)
    table, notes = put_back(table, domains), moved + notes
    if bounds:
        set_bounds(flow, bounds_of(domains, table.columns) or (), seed=checked.seed)
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    if validation is None:
        train, held_out = split(table, fractions=(0.9, 0.1), seed=checked.seed)
    else:
        train, held_out = table, _held_out(as_table(validation), table)
    if checked.condition_budget is not None:
        said = correlation_note(train, checked.condition_budget)
        if said is not None:
            warnings.warn(said, DataWarning, stacklevel=2)
            notes = (*notes, said)
    result = fit_tables(
        flow,
        train,
        held_out,
        checked,
        out=out,
        device=device,
        progress=progress,
        callbacks=callbacks,
    )
    return dataclasses.replace(result, notes=notes)


def is_image_data(data: Any) -> bool:  # noqa: ANN401
    """Returns whether data are images, or a path or a name of such."""
    return isinstance(data, Images) or (isinstance(data, str | Path) and is_images(data))


def _fit_any_images(
    flow: Flow,
    data: Any,  # noqa: ANN401
    validation: Any,  # noqa: ANN401
    settings: Settings,
    out: str | Path | None,
    device: str | torch.device | None,
    progress: bool | None,
    callbacks: Sequence[Callback],
) -> FitResult:
    """Returns what `fit` does for images of any kind, resized to the flow's shape if need be."""
    if len(flow.event_shape) != 3:
        raise ArgumentError(
            f"'flow' should be one of images for this data, got one of shape {flow.event_shape}."
        )

    channels, height, width = flow.event_shape

    def images(given: Any) -> Images:  # noqa: ANN401
        if isinstance(given, Images):
            return given
        return load_images(given, size=(height, width), grey=channels == 1)

    if validation is None:
        train, held_out = split_images(images(data), fractions=(0.9, 0.1), seed=settings.seed)
    else:
        train, held_out = images(data), images(validation)
    return fit_images(
        flow,
        train,
        held_out,
        settings,
        out=out,
        device=device,
        progress=progress,
        callbacks=callbacks,
    )


def fit_tables(
    flow: Flow,
    train: Table,
    validation: Table,
    settings: Settings,
    *,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    about: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Does what `fit` does with tables that are prepared and split already.

    Args:
        flow: Trained in place.
        train: Rows to train on.
        validation: Rows to stop by.
        settings: How.
        out: A run folder to write and to resume from.
        device: Where to train; where the flow is if left out.
        progress: Show a progress bar; on a terminal only if left out.
        about: What else config.json should say of the run: where the tables came from.
        callbacks: Are told of each epoch.

    Returns:
        The result, without notes.
    """
    fabric = engine(flow, device, settings.precision)
    refuse_collapsed(train, flow)
    for part in (train, validation):
        refuse_outside(part, flow)
    asked = {
        **(about or {}),
        "columns": list(train.columns),
        "context_columns": list(train.context_columns),
        "fingerprints": {"train": train.fingerprint(), "validation": validation.fingerprint()},
    }
    rows = rows_of(train, flow), rows_of(validation, flow)
    return _fit_rows(
        flow,
        *rows,
        settings,
        fabric,
        out=out,
        progress=progress,
        asked=asked,
        callbacks=callbacks,
    )


def fit_images(
    flow: Flow,
    train: Images,
    validation: Images,
    settings: Settings,
    *,
    flip: bool = False,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    about: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Does what `fit` does with images that are split already.

    Args:
        flow: Trained in place.
        train: Images to train on.
        validation: Images to stop by.
        settings: How.
        flip: Mirror training images at random.
        out: A run folder to write and to resume from.
        device: Where to train; where the flow is if left out.
        progress: Show a progress bar; on a terminal only if left out.
        about: What else config.json should say of the run: where the images came from.
        callbacks: Are told of each epoch.

    Returns:
        The result, without notes.
    """
    if settings.condition_budget is not None:
        raise ArgumentError(
            "'condition_budget' should be left out for images: the condition number of so many "
            "dimensions takes longer to measure than the training does; that of a table can be "
            "asked for."
        )
    fabric = engine(flow, device, settings.precision)
    check_pixels(train, flow)
    asked = {
        **(about or {}),
        "flip": flip,
        "fingerprints": {"train": train.fingerprint(), "validation": validation.fingerprint()},
    }
    rows = ImageRows(train, flow, flip=flip), ImageRows(validation, flow)
    return _fit_rows(
        flow,
        *rows,
        settings,
        fabric,
        out=out,
        progress=progress,
        asked=asked,
        callbacks=callbacks,
    )


def _fit_rows(
    flow: Flow,
    train: AnyRows,
    validation: AnyRows,
    settings: Settings,
    fabric: Fabric,
    *,
    out: str | Path | None,
    progress: bool | None,
    asked: dict[str, Any],
    callbacks: Sequence[Callback],
) -> FitResult:
    """Returns what came of a training, also of one that is finished; `asked` is written down."""
    folder, told = None, Told(callbacks)
    if out is not None:
        run = {**asked, "training": settings.model_dump()}
        folder = RunFolder(out, describe_model(flow).model_copy(update={"run": run}))
    stored = None if folder is None else folder.finished(flow)
    if stored is not None:
        return _stored_result(flow, stored)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        fit_units(flow, train)
    if folder is not None:
        folder.start(flow)
    with torch.inference_mode(False), torch.enable_grad():
        training = Training(flow, train, validation, settings, fabric)
        return _train(training, folder, progress, told)


def _held_out(validation: Table, train: Table) -> Table:
    """Returns the given validation rows, with the columns that are trained on, all finite."""
    lacking = [name for name in train.columns if name not in validation.columns]
    if lacking or validation.context_columns != train.context_columns:
        raise DataError(
            f"the validation rows should have the columns of the training rows, "
            f"{', '.join(train.columns + train.context_columns)}; they have "
            f"{', '.join(validation.columns + validation.context_columns)}."
        )
    order = [validation.columns.index(name) for name in train.columns]
    validation = dataclasses.replace(
        validation,
        values=validation.values[:, order],
        columns=train.columns,
        integer_columns=(),
    )
    bad = [p.message for p in examine(validation) if p.code in {"missing", "infinite"}]
    if bad:
        raise DataError(f"the validation rows cannot be scored: {bad[0]}.")
    return validation


def _train(
    training: Training, folder: RunFolder | None, progress: bool | None, told: Told
) -> FitResult:
    if folder is not None:
        folder.resume(training)
    written = time.perf_counter()
    epochs, done = training.settings.max_epochs, training.progress.epoch
    name = "joint nll" if training.flow.likelihood == "joint" else "nll"
    budget = training.settings.condition_budget
    words = partial(likelihood_in_words, name=name, budget=budget)
    with progress_bar(epochs, done, visible=progress, in_words=words) as show:

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

        with training.average.in_place():
            told.on_start(training.flow, training.settings)
        try:
            reason = training.run(after_epoch)
        finally:
            if folder is not None:
                folder.keep_best(training)
    if not training.progress.best_epoch:
        training.load_best()
        training.flow.eval()
        raise NumericalError(_why_none(training))
    if folder is not None:
        folder.checkpoint(training)
    training.load_best()
    training.flow.eval()
    result = _result(training, reason)
    if folder is not None:
        folder.finish(_to_store(result))
    told.on_end(result)
    return result


def _why_none(training: Training) -> str:
    """Returns why no epoch of a training left weights to keep."""
    progress, settings = training.progress, training.settings
    measured = [line["condition_number_p95"] for line in progress.history]
    finite = [value for value in measured if value is not None]
    if settings.condition_budget is not None and finite:
        return (
            f"in {progress.epoch} epochs no weights kept the condition budget of "
            f"{settings.condition_budget:g}, the nearest had {min(finite):.4g}: the flow is as it "
            "was. Try more epochs, a lower learning rate, a larger budget, or a flow that starts "
            "as the identity."
        )
    return (
        f"in {progress.epoch} epochs no validation likelihood was finite, and "
        f"{progress.skipped_steps} steps were skipped: the flow is as it was. Try a learning rate "
        f"far below {settings.learning_rate:g}, and look for extreme rows."
    )


def _result(training: Training, reason: str) -> FitResult:
    progress = training.progress
    return FitResult(
        flow=training.flow,
        history=tuple(progress.history),
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
