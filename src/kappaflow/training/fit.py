"""`fit`: data and a flow in, a trained flow and its history out."""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kappaflow.data import (
    Images,
    Table,
    TableOnDisk,
    is_images,
    load_images,
    split,
    weigh_duplicate_rows,
    weighted,
)
from kappaflow.data.domains import Bounds, Domains, bounds_of, domains_of
from kappaflow.data.images import split_images
from kappaflow.data.prepare import few_to_train_on, noisy, prepare_table
from kappaflow.data.repair import Repair
from kappaflow.data.repeats import Duplicates
from kappaflow.errors import ArgumentError, DataWarning
from kappaflow.flows import Flow, set_bounds
from kappaflow.ranks import is_first
from kappaflow.training.budget import correlation_note
from kappaflow.training.callbacks import Callback
from kappaflow.training.fit_images import fit_images
from kappaflow.training.fit_on_disk import fit_on_disk
from kappaflow.training.fit_tables import fit_tables
from kappaflow.training.rows import as_table, domains_in, held_out_like
from kappaflow.training.settings import Settings, checked_settings
from kappaflow.training.trained import FitResult


def fit(
    flow: Flow,
    data: Any,  # noqa: ANN401
    *,
    validation: Any = None,  # noqa: ANN401
    weights: Any = None,  # noqa: ANN401
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    repair: Repair | None = None,
    duplicates: Duplicates = "keep",
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
    finished one returns its stored result. In a script that torchrun starts, all processes train
    together, and the first writes.

    Args:
        flow: Trained in place.
        data: A tensor, array, data frame, `Table`, path or shipped name; with a context, (x,
            context); a `TableOnDisk`, which is not read into memory. For a flow of images
            `Images`, or their path or name.
        validation: Rows to stop by, in memory, of the same kinds; if left out, a tenth of `data`,
            of a `TableOnDisk` 100,000 rows at most.
        weights: How much each row of `data` counts in the likelihood, (N,), 0 or more; all alike
            if left out. Tables only.
        out: A run folder to write and to resume from.
        device: Where to train, "cpu" or "cuda"; where the flow is if left out.
        repair: "drop" or "jitter": go on where the data has no density, see
            `kappaflow.data.prepare`. "dequantize": add uniform noise to rounded columns, exactly
            as wide as a step of their values; log_prob at such noisy rows is then a bound on that
            of rounded ones. Each row gets its noise once, by its number and the column.
        duplicates: What to do with rows that repeat earlier ones: "keep" them, with all copies in
            one part of the split; "drop" them; or "weigh" each row by the number of its copies.
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
        hint = ": give what it was made of, and compile=True" if hasattr(flow, "_orig_mod") else ""
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}{hint}.")
    checked = checked_settings(**settings)
    if is_image_data(data):
        other = None if duplicates == "keep" else duplicates
        for name, value in (("weights", weights), ("bounds", bounds), ("duplicates", other)):
            if value is not None:
                raise ArgumentError(f"'{name}' should be left out for images.")
        return _fit_any_images(flow, data, validation, checked, out, device, progress, callbacks)
    if isinstance(data, TableOnDisk):
        for name, value in (("weights", weights), ("repair", repair)):
            if value is not None:
                raise ArgumentError(f"'{name}' should be left out for a TableOnDisk.")
        return fit_on_disk(
            flow,
            data,
            validation,
            checked,
            duplicates=duplicates,
            bounds=bounds,
            out=out,
            device=device,
            progress=progress,
            callbacks=callbacks,
        )
    table = weighted(as_table(data), weights)
    domains = domains_of(bounds, table) if bounds else domains_in(flow, table)
    rows = split_rows(
        table, validation, domains, checked, repair=repair, duplicates=duplicates, stacklevel=3
    )
    if bounds:
        set_bounds(flow, bounds_of(domains, rows.train.columns) or (), seed=checked.seed)
    result = fit_tables(
        flow,
        rows.train,
        rows.validation,
        checked,
        out=out,
        device=device,
        progress=progress,
        callbacks=callbacks,
    )
    return dataclasses.replace(result, notes=rows.notes)


@dataclass(frozen=True)
class SplitRows:
    """Rows to train on and rows to stop by, and what is worth knowing about them."""

    train: Table
    validation: Table
    notes: tuple[str, ...]


def split_rows(
    table: Table,
    validation: Any,  # noqa: ANN401
    domains: Domains,
    settings: Settings,
    *,
    repair: Repair | None,
    duplicates: Duplicates,
    stacklevel: int,
) -> SplitRows:
    """Returns a table prepared and split, and warns of what may be wrong with it.

    Args:
        table: All rows.
        validation: Rows to stop by; None to take a tenth of the table.
        domains: By column, of those that have one.
        settings: Of the training.
        repair: See `fit`.
        duplicates: See `fit`.
        stacklevel: Of the warnings: 2 is the caller of this function.

    Returns:
        The rows.
    """
    read = table.notes
    prepared = prepare_table(table, domains=domains, repair=repair, duplicates=duplicates)
    table = prepared.table
    if validation is None:
        train, held_out = split(table, fractions=(0.9, 0.1), seed=settings.seed)
    else:
        given = held_out_like(as_table(validation, every=True), table)
        train, held_out = table, noisy(given, prepared.widths, domains)
    few = few_to_train_on(len(train))
    if duplicates == "weigh":
        train, _ = weigh_duplicate_rows(train)
    budget = settings.condition_budget
    note = None if budget is None else correlation_note(train, budget)
    more = few if note is None else (*few, note)
    for warning in (*read, *prepared.warnings, *more) if is_first() else ():
        warnings.warn(warning, DataWarning, stacklevel=stacklevel)
    return SplitRows(train, held_out, (*prepared.notes, *prepared.warnings, *more))


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
