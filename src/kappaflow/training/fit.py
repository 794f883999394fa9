"""`fit`: data and a flow in, a trained flow and its history out.

This file reads, repairs and splits the data; `session.py` trains on the two parts.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch

from kappaflow.data import Dataset, Table, TableOnDisk, split, weigh_duplicate_rows
from kappaflow.data.batches import domains_in
from kappaflow.data.dataset import Kind, kind_of
from kappaflow.data.domains import Bounds, Domains, bounds_of, clip_to_domain, domains_of
from kappaflow.data.duplicates import Duplicates
from kappaflow.data.on_disk import SplitRequest
from kappaflow.data.prepare import few_to_train_on, noisy, prepare_table
from kappaflow.data.raw import Reading
from kappaflow.errors import ArgumentError, DataWarning, KappaflowError
from kappaflow.flows import Flow, set_bounds
from kappaflow.flows.standardization import far_column
from kappaflow.foreign.wrapped import Wrapped, wrap_to_fit
from kappaflow.locking import locked
from kappaflow.options import Repair
from kappaflow.ranks import is_first
from kappaflow.training.budget import correlation_note
from kappaflow.training.callbacks import Callback
from kappaflow.training.distributed import check_trainable
from kappaflow.training.on_disk import examine_sample, rows_kept_until, split_for
from kappaflow.training.own_optimizer import MakeOptimizer, MakeScheduler
from kappaflow.training.results import FitResult
from kappaflow.training.rows import as_table, held_out_like, refuse_reading
from kappaflow.training.session import fit_split
from kappaflow.training.settings import Settings, checked_settings
from kappaflow.training.torch_data import is_torch_data, read_torch_data

# One of them may be meant by an unknown argument.
OPTIONS = ("validation", "weights", "callbacks", "optimizer", "scheduler")
FRACTIONS = (0.9, 0.1)  # of the rows, for training and for validation


def fit(
    flow: Flow | object,
    data: Any,
    *,
    validation: Any = None,
    weights: Any = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    repair: Repair | None = None,
    duplicates: Duplicates = "keep",
    bounds: Bounds | None = None,
    columns: Sequence[str] | None = None,
    exclude: str | Iterable[str] = (),
    context: str | Iterable[str] = (),
    where: str | Iterable[str] | None = None,
    missing: str | Iterable[str] = (),
    decimal: Literal[".", ","] | None = None,
    separator: str | None = None,
    comment: str | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    optimizer: MakeOptimizer | None = None,
    scheduler: MakeScheduler | None = None,
    **settings: Any,
) -> FitResult:
    """Trains a flow by maximum likelihood, and returns it with its history.

    The first layers of a recipe's flow (`Standardize`, and `Whiten` if the flow starts with one)
    are fitted first, on the training rows only, unless they are fitted already. Each epoch is
    validated; the weights with the best validation likelihood are kept. A step that is not finite
    is skipped and counted, and many in a row stop the training. With `out`, an interrupted run
    resumes from its last checkpoint and reaches bit-identical losses on the same machine; a
    finished one returns its stored result. All processes of a launch, such as by torchrun, or of a
    process group train one flow together, and the first writes.

    Args:
        flow: The flow, trained in place: a `Flow`, or one of another library that
            `kappaflow.wrap` supports, which is trained by the log_prob of the library. Standardize
            the data of the latter first.
        data: A tensor, array, data frame, `Table`, path or shipped name; with a context, (x,
            context); a `TableOnDisk`, which is not read into memory. For a flow of images
            `kappaflow.images.Images`, or their path or name; likewise for another registered
            `kappaflow.data.Kind`. Or a `torch.utils.data.Dataset` or `DataLoader` of rows or
            images x, or of pairs (x, context): each item is read once, into memory.
        validation: Data that decides when to stop, in memory, of the same kind. By default a
            tenth of `data`; of a `TableOnDisk` at most 100,000 rows.
        weights: Weight of each row of `data`, (N,), 0 or more, or the name of the column that has
            them; equal by default. A weight of two is the row given twice. Only ratios count.
            Tables only.
        out: A run folder to write to and to resume from.
        device: Where to train, "cpu" or "cuda"; where the flow is by default.
        repair: How to repair data that has no density: "drop" or "jitter", see
            `kappaflow.data.prepare`. "dequantize" adds uniform noise to rounded columns, exactly
            as wide as one step of their values; log_prob at such noisy rows is then a bound on
            that of rounded ones. By default only columns of few values get it; "keep" adds none.
        duplicates: What to do with rows that repeat earlier ones: "keep" them, with all copies in
            one part of the split; "drop" them; or "weigh" each row by the number of its copies.
        bounds: Domains of columns by name, in which all samples then lie, such as
            {"mass": "positive", "p": (0, 1), "angle": "circular"}. The flow has to be one that a
            recipe made and that is not fitted; it becomes what its recipe makes with these
            `bounds`. Circles need `spline`.
        columns: Columns to model, by name; all columns of numbers by default.
        exclude: Columns to leave out.
        context: Columns that the density is conditioned on.
        where: A condition that rows of `data` and `validation` have to meet, such as "class=g",
            or several. `weights` are still those of all rows.
        missing: Values that mean a missing one, such as "-999".
        decimal: The decimal sign of a text file.
        separator: The sign between the fields of a text file.
        comment: The sign of comment lines at the top of a text file. This and the seven before are
            the options of `kappaflow.load_table`.
        progress: Show a progress bar; by default on a terminal and in a notebook.
        callbacks: Called after each epoch: `Callback`, such as `kappaflow.training.TensorBoard`.
        optimizer: A function that makes an optimizer of torch from the list of parameters, such as
            `functools.partial(torch.optim.SGD, lr=0.01)`. Its learning rate rises and falls as
            that of the default, AdamW, does.
        scheduler: A function that makes a scheduler of torch from the optimizer, in place of this
            rise and fall. It moves after each epoch; `OneCycleLR` and `CyclicLR` after each step.
        **settings: `max_epochs`, `max_time_s`, `batch_size`, `learning_rate`, `seed`,
            `condition_budget` and the other fields of `kappaflow.training.Settings`.

    Returns:
        The result; its `flow` is the one that was given, or the wrapper of that.

    Raises:
        ArgumentError: An argument is wrong, or `out` was made with other data or arguments.
        DataError: The data has no density that a flow could fit.
        NumericalError: Many steps in a row were not finite; the flow has its best weights. Or no
            epoch had a finite validation likelihood or kept the condition budget; the flow has its
            first weights.

    Example:
        >>> import kappaflow as kf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * 3
        >>> result = kf.fit(kf.real_nvp(2, depth=2, hidden=(8,)), x, max_epochs=3)
        >>> result.stopped_because, len(result.history)
        ('max_epochs', 3)
    """
    checked = checked_settings(OPTIONS, **settings)
    replaced = {"learning_rate": optimizer, "weight_decay": optimizer, "warmup": scheduler}
    for name, make in replaced.items():
        if make is not None and name in settings:
            own = "scheduler" if name == "warmup" else "optimizer"
            raise ArgumentError(f"'{name}' should be left out: the '{own}' has its own.")
    own = flow if isinstance(flow, Flow) else None
    data, validation = (
        read_torch_data(rows, own) if is_torch_data(rows) else rows for rows in (data, validation)
    )
    reading = Reading.of(columns, exclude, context, where, decimal, missing, separator, comment)
    if not isinstance(flow, Flow):
        flow = _wrapped(flow, data, reading)
    request = _DataRequest(
        flow,
        data,
        validation,
        weights,
        repair,
        duplicates,
        bounds,
        reading,
        checked,
        out,
        device,
        progress,
    )
    foreign = flow.by_library() if isinstance(flow, Wrapped) else nullcontext()
    with foreign, request.split() as parts:
        far = _not_standardized(flow, parts.train)
        warn_of((*parts.warnings, *far), stacklevel=3)
        result = fit_split(
            flow,
            parts.train,
            parts.validation,
            checked,
            out=out,
            device=device,
            progress=progress,
            callbacks=callbacks,
            optimizer=optimizer,
            scheduler=scheduler,
        )
    return replace(result, notes=(*parts.notes, *far))


def _wrapped(flow: object, data: Any, reading: Reading) -> Flow:
    """Returns a flow of another library as a `Flow` that shares its parameters."""
    if hasattr(flow, "_orig_mod"):
        raise ArgumentError("'flow' should be the flow before torch.compile: give compile=True.")
    if kind_of(data) is not None or isinstance(data, TableOnDisk):
        raise ArgumentError(
            "'data' should be a table in memory for a flow of another library, got "
            f"{type(data).__name__}: pass rows, or the flow that kappaflow.wrap returns."
        )
    table = as_table(data, reading)
    width = len(table.context_columns)
    wrapped = wrap_to_fit(flow, len(table.columns), width)
    if not isinstance(wrapped, Wrapped):
        return wrapped
    x, context = (torch.zeros(2, n, dtype=wrapped.dtype) for n in (len(table.columns), width))
    try:
        with torch.no_grad(), wrapped.by_library():
            wrapped.log_prob(x.to(wrapped.device), context.to(wrapped.device) if width else None)
    except KappaflowError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise ArgumentError(
            f"'flow' should take rows of {len(table.columns)} columns with a context of {width}, "
            f"its log_prob raises {type(error).__name__} ({first}): pass x, or (x, context), as "
            "the flow expects."
        ) from error
    return wrapped


def _not_standardized(flow: Flow, train: Dataset) -> tuple[str, ...]:
    """Returns a warning if a flow of another library gets columns far from mean 0, deviation 1."""
    if not isinstance(flow, Wrapped) or not isinstance(train, Table):
        return ()
    result = far_column(torch.from_numpy(train.values), set())
    if result is None:
        return ()
    number, mean, deviation = result
    return (
        f"column {train.columns[number]!r} has mean {mean:.3g} and standard deviation "
        f"{deviation:.3g}, and a flow of {flow.library} does not standardize its data: pass "
        "(x - mean) / deviation.",
    )


D = TypeVar("D", bound=Dataset, covariant=True)


@dataclass(frozen=True)
class SplitData(Generic[D]):
    """Data to train on, data that decides when to stop, remarks, and what `fit` warns about."""

    train: D
    validation: D
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _DataRequest:
    """The arguments of `fit` that decide which data to train on."""

    flow: Flow
    data: Any
    validation: Any
    weights: Any
    repair: Repair | None
    duplicates: Duplicates
    bounds: Bounds | None
    reading: Reading
    settings: Settings
    out: str | Path | None
    device: str | torch.device | None
    progress: bool | None

    @contextmanager
    def split(self) -> Iterator[SplitData[Dataset]]:
        """Yields the data; a table on disk keeps its training rows in a file meanwhile."""
        if (kind := kind_of(self.data)) is not None:
            yield self._of_kind(kind)
        elif isinstance(self.data, TableOnDisk):
            self._refuse("a TableOnDisk", "weights", "repair", "duplicates")
            with self._on_disk(self.data) as parts:
                yield parts
        else:
            yield self._table()

    def _refuse(self, kind: str, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value == "keep"):
                raise ArgumentError(f"'{name}' should be left out for {kind}.")
        refuse_reading(self.reading, kind)

    def _table(self) -> SplitData[Table]:
        table, bounds = as_table(self.data, self.reading, self.weights), self.bounds
        domains = domains_of(bounds, table) if bounds else domains_in(self.flow, table)
        parts = split_rows(
            table,
            self.validation,
            domains,
            self.settings,
            self.reading,
            repair=self.repair,
            duplicates=self.duplicates,
        )
        self._set_bounds(domains, parts.train.columns)
        return parts

    def _of_kind(self, kind: Kind) -> SplitData[Dataset]:
        """Returns data of a kind beyond tables, and that which decides when to stop."""
        self._refuse(kind.name, "weights", "bounds", "duplicates")
        train = kind.load(self.data, self.flow)
        if self.validation is None:
            return SplitData(*kind.split(train, FRACTIONS, self.settings.seed))
        return SplitData(train, kind.load(self.validation, self.flow))

    @contextmanager
    def _on_disk(self, data: TableOnDisk) -> Iterator[SplitData[Dataset]]:
        """Yields the training rows in a file of the run folder, and validation rows in memory."""
        if self.out is None:
            raise ArgumentError(
                "'out' should be given for a TableOnDisk: its training rows are written there."
            )
        check_trainable(self.flow.dtype)
        folder = Path(self.out)
        requested = SplitRequest(
            data,
            fractions=FRACTIONS if self.validation is None else (),
            seed=self.settings.seed,
            dtype=str(self.flow.dtype).removeprefix("torch."),
        )
        with locked(folder), rows_kept_until(folder):
            device = self.device or self.flow.device.type
            result = split_for(requested, out=folder, device=device, progress=self.progress)
            sample, notes, warned = examine_sample(result)
            if self.bounds:
                domains = domains_of(self.bounds, sample)
                clip_to_domain(sample, domains, offered=())
                self._set_bounds(domains, sample.columns)
            if self.validation is None:
                held_out = result.held_out[0]
            else:
                held_out = held_out_like(as_table(self.validation, every=True), sample)
            warned += _budget_notes(self.settings, sample)
            rows = replace(result.train.sample, warnings=sample.warnings)
            train = replace(result.train, sample=rows)
            yield SplitData(train, held_out, notes + warned, warned)

    def _set_bounds(self, domains: Domains, columns: tuple[str, ...]) -> None:
        if self.bounds:
            set_bounds(self.flow, bounds_of(domains, columns) or (), seed=self.settings.seed)


def split_rows(
    table: Table,
    validation: Any,
    domains: Domains,
    settings: Settings,
    reading: Reading,
    *,
    repair: Repair | None,
    duplicates: Duplicates,
) -> SplitData[Table]:
    """Returns a table, prepared and split, with notes; by default a tenth is held out."""
    notes_of_loading = table.notes
    prepared = prepare_table(table, domains=domains, repair=repair, duplicates=duplicates)
    table = prepared.table
    if validation is None:
        train, held_out = split(table, fractions=FRACTIONS, seed=settings.seed)
    else:
        is_read = isinstance(validation, Table)
        reading = Reading() if is_read else replace(reading, columns=None, exclude=())
        held_out = held_out_like(as_table(validation, reading, every=True), table)
        train, held_out = table, noisy(held_out, table.grids, domains)
    few = few_to_train_on(len(train))  # before copies of a row become one
    if duplicates == "weigh":
        train, _ = weigh_duplicate_rows(train)
    train = replace(train, warnings=(*train.warnings, *few))
    warned = (*prepared.warnings, *few, *_budget_notes(settings, train))
    notes = (*prepared.notes, *warned)
    return SplitData(train, held_out, notes, warnings=(*notes_of_loading, *warned))


def _budget_notes(settings: Settings, train: Table) -> tuple[str, ...]:
    """Returns a warning if the correlations of the columns alone exceed the condition budget."""
    budget = settings.condition_budget
    note = None if budget is None else correlation_note(train, budget)
    return () if note is None else (note,)


def warn_of(notes: Sequence[str], *, stacklevel: int) -> None:
    """Warns about each note, on the first rank; `stacklevel` 2 is the caller of this function."""
    for note in notes if is_first() else ():
        warnings.warn(note, DataWarning, stacklevel=stacklevel)
