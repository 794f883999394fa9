"""`fit_table`: a model of a table of mixed columns, from a frame or a file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from kappaflow.data.load import read_source
from kappaflow.data.raw import Reading
from kappaflow.mixed import MixedParts, TableModel, chosen_rows, prepared
from kappaflow.runs.candidate import ModelSearch
from kappaflow.runs.model_search import search_model
from kappaflow.training import Callback, FitResult, Settings, checked_settings, fit_split
from kappaflow.training.fit import FRACTIONS, OPTIONS, warn_of


@dataclass(frozen=True)
class TableFit:
    """A fitted table model, with the training of its flow.

    Attributes:
        model: The model.
        training: The training of the flow of the numbers; None for a table of labels alone.
        notes: The kinds of the columns, and remarks on the data, one sentence each.
    """

    model: TableModel
    training: FitResult | None
    notes: tuple[str, ...]


def fit_table(
    data: Any,  # noqa: ANN401
    *,
    kinds: Mapping[str, str] | None = None,
    weights: str | None = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    columns: Sequence[str] | None = None,
    exclude: str | Iterable[str] = (),
    context: str | Iterable[str] = (),
    where: str | Iterable[str] | None = None,
    missing: str | Iterable[str] = (),
    decimal: Literal[".", ","] | None = None,
    separator: str | None = None,
    comment: str | None = None,
    search_time: float = 60.0,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,  # noqa: ANN401
) -> TableFit:
    """Fits a density to a table of mixed columns: numbers, counts, labels, dates, with gaps.

    The density is p(labels) p(numbers | labels). Categories, truth values and counts are labels,
    and a small network models each of them given those before. A flow, chosen by a search and
    trained as by `kappaflow.fit_auto`, models the numbers given the labels. Rounded numbers get
    uniform noise as wide as a step, new for each batch; missing numbers are drawn given the
    others, by the flow in training.

    Args:
        data: A data frame, a path or a shipped name; rows may have missing values.
        kinds: The kinds of columns by name, where they are not recognized: "continuous",
            "positive", "circular", "integer", "category", "boolean", "date" or "identifier".
        weights: The column with the weight of each row, 0 or more.
        out: A folder for the training of the flow, which resumes there, and for the model.
        device: Where to train, "cpu" or "cuda".
        columns: Columns to model, by name; all by default.
        exclude: Columns to leave out.
        context: Columns that the density is conditioned on, of any kind but identifiers; they are
            not modeled. A missing value of text is a label; one of a number becomes the mean of
            the others and a column that says so.
        where: A condition that rows have to meet, such as "class=g", or several.
        missing: Values that mean a missing one, such as "-999".
        decimal: The decimal sign of a text file.
        separator: The sign between the fields of a text file.
        comment: The sign of comment lines at the top of a text file. This and the five before are
            as for `kappaflow.load_table`.
        search_time: Time limit of the search in seconds.
        progress: Show what is being trained; by default on a terminal and in a notebook.
        callbacks: Called after each epoch, as for `kappaflow.fit`.
        **settings: `max_time_s`, `max_epochs`, `seed` and the other fields of
            `kappaflow.training.Settings`, for the flow. The labels are trained before it, in at
            most about 4,000 steps, which `max_time_s` does not count.

    Returns:
        The fit; `model` is the `TableModel`.

    Raises:
        ArgumentError: An argument is wrong, or a column is not of the kind that was given.
        DataError: The data has no density that a model could fit.
        NumericalError: None of the flows could be trained.

    Example:
        >>> import polars as pl, kappaflow as kf
        >>> frame = pl.DataFrame({
        ...     "size": [0.1 * i + (i % 3) for i in range(300)],
        ...     "kind": ["red", "green", "green"] * 100,
        ... })
        >>> fit = kf.fit_table(frame, max_epochs=3, search_time=0)
        >>> fit.model.sample(2).schema == frame.schema
        True
    """
    checked = checked_settings(OPTIONS, **settings)
    reading = Reading.of(columns, exclude, context, where, decimal, missing, separator, comment)
    raw, counts = chosen_rows(read_source(data, reading), reading, weights)
    parts = prepared(raw, dict(kinds or {}), FRACTIONS, checked.seed, counts, reading.context)
    warn_of(parts.warnings, stacklevel=3)
    search = ModelSearch(seconds=search_time, learning_rate=settings.get("learning_rate"))
    training, notes = None, parts.notes
    if parts.encoding.numbers:
        training, choice = _trained(
            parts, search, checked, out=out, device=device, progress=progress, callbacks=callbacks
        )
        notes = (*notes, choice)
    flow = None if training is None else training.flow
    model = TableModel(parts.encoding, parts.labels, parts.proposals, flow, empty_like(data))
    if out is not None:
        model.write_columns(Path(out))
    return TableFit(model, training, notes)


def _trained(
    parts: MixedParts,
    search: ModelSearch,
    settings: Settings,
    *,
    out: str | Path | None,
    device: str | torch.device | None,
    progress: bool | None,
    callbacks: Sequence[Callback],
) -> tuple[FitResult, str]:
    """Returns the training of the flow, and a sentence on how it was chosen."""
    train, validation = parts.tables
    choice, start = search_model(
        train,
        validation,
        search,
        settings,
        folder=None if out is None else Path(out),
        domains=parts.domains,
        device=device,
        progress=progress,
    )
    result = fit_split(
        choice.build(train, parts.domains, settings.seed),
        parts.train,
        validation,
        choice.settings(settings),
        out=out,
        device=device,
        progress=progress,
        about={"model_search": choice.model_dump(mode="json")},
        callbacks=callbacks,
        start=start,
    )
    return result, str(choice)


def empty_like(data: Any) -> Any:  # noqa: ANN401
    """Returns a data frame without its rows; None for a path."""
    import narwhals as nw

    frame = nw.from_native(data, eager_only=True, pass_through=True)
    return nw.to_native(frame.head(0)) if isinstance(frame, nw.DataFrame) else None
