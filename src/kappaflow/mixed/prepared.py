"""A source of mixed columns, encoded, split and completed: what a table model is fitted to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kappaflow.data import Table, split
from kappaflow.data.columns import find_column, parse_condition, refuse_clashes
from kappaflow.data.duplicates import groups_of, repeats_of
from kappaflow.data.load import kept_rows
from kappaflow.data.naming import FloatArray, IntArray
from kappaflow.data.prepare import few_to_train_on, prepare_table
from kappaflow.data.raw import RawTable, Reading, no_rows
from kappaflow.data.table import weighted
from kappaflow.domains import Interval
from kappaflow.errors import DataError
from kappaflow.mixed.encoding import Encoded, Encoding
from kappaflow.mixed.kinds import detect_kinds
from kappaflow.mixed.labels import Labels
from kappaflow.mixed.proposals import Proposals
from kappaflow.mixed.rows import IncompleteRows, filled_rows
from kappaflow.mixed.saved import new_parts
from kappaflow.mixed.table_model import TableModel

COMPLETE_ROWS = 100  # of a part to validate or test with: fewer are joined by completed rows


@dataclass(frozen=True)
class MixedParts:
    """The parts of a mixed table.

    Attributes:
        encoding: How columns become numbers and labels.
        labels: The distribution of the labels, fitted to the training rows.
        proposals: Draws of missing numbers, fitted to the training rows.
        tables: Each part with its gaps filled once. Parts to validate or test with have only the
            rows without missing numbers, if there are 100 or more.
        sources: The rows of each part in the source, all of them.
        weights: The weights of these, None if all rows count equally.
        train: The training rows with gaps.
        domains: The domains of the numbers.
        notes: Sentences on the columns and the data.
        warnings: Sentences that keep the verdict from being green.
    """

    encoding: Encoding
    labels: Labels
    proposals: Proposals
    tables: tuple[Table, ...]
    sources: tuple[RawTable, ...]
    weights: tuple[FloatArray | None, ...]
    train: IncompleteRows
    domains: dict[str, Interval]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def chosen_rows(
    raw: RawTable, reading: Reading, weights: object = None
) -> tuple[RawTable, FloatArray | None]:
    """Returns the columns and rows of a source that are read, with the weights of the rows.

    `weights` has a number for each row of the source, or is the name of its column.
    """
    if raw.row_count == 0:
        raise no_rows(raw.subject, reading.purpose)
    roles = {"columns": reading.columns or (), "context": reading.context}
    roles["exclude"] = reading.exclude
    roles["weights"] = (weights,) if isinstance(weights, str) else ()
    names = {role: [find_column(raw, n, role).name for n in some] for role, some in roles.items()}
    refuse_clashes(**names)
    gone = [*names["exclude"], *names["weights"]]
    if reading.columns is not None:
        gone += set(raw.columns) - {*names["columns"], *names["context"]}
    if isinstance(weights, str):
        weights = find_column(raw, weights, "weights").numbers()
    keep = kept_rows(raw, [parse_condition(text, raw) for text in reading.where])
    raw = raw.select(keep).without(gone)
    if not set(raw.columns) - set(names["context"]):
        raise DataError(f"{raw.subject} has no columns left to model.")
    return raw, None if weights is None else np.asarray(weights, dtype=np.float64)[keep]


def completed_rows(model: TableModel, raw: RawTable) -> Table:
    """Returns the rows without missing numbers, or all, completed, if these are few."""
    encoded = model.encoding.encode(raw)
    parts = model.encoding, encoded, model.labels, model.proposals
    return _complete(filled_rows(*parts, _grouped(raw, encoded, None)))


def prepared(
    raw: RawTable,
    kinds: Mapping[str, str],
    fractions: tuple[float, ...],
    seed: int,
    weights: FloatArray | None = None,
    context: Sequence[str] = (),
) -> MixedParts:
    """Returns the parts of a table; equal rows are in one part."""
    names = [find_column(raw, name, "context").name for name in context]
    encoding = Encoding.fit(raw, detect_kinds(raw, kinds), names)
    encoded = encoding.encode(raw)
    parts = split(_grouped(raw, encoded, weights), fractions=fractions, seed=seed)
    rows = [part.rows - 1 for part in parts]
    labels, proposals = new_parts(encoding)
    codes, others = torch.from_numpy(encoded.codes), torch.from_numpy(encoded.context)
    shares = parts[0].weights
    counts = None if shares is None else torch.from_numpy(shares)
    (train, validation), contexts = ([x[rows[0]], x[rows[1]]] for x in (codes, others))
    labels.fit(train, validation, counts, seed, contexts=(contexts[0], contexts[1]))
    inputs = labels.read(train, contexts[0]).double().numpy()
    proposals.fit(encoded.numbers[rows[0]], inputs)
    filled = [
        filled_rows(encoding, encoded.at(index), labels, proposals, part)
        for part, index in zip(parts, rows, strict=True)
    ]
    tables = (filled[0].table, *(_complete(part) for part in filled[1:]))
    domains = {n: d for n, d in zip(encoding.numbers, encoding.domains, strict=True) if d}
    return MixedParts(
        encoding,
        labels,
        proposals,
        tables,
        tuple(raw.select(np.isin(np.arange(raw.row_count), index)) for index in rows),
        tuple(_in_order(part) for part in parts),
        filled[0],
        domains,
        (*raw.notes, *(column.about for column in (*encoding.columns, *encoding.context))),
        (*_warnings(tables[0], domains), *few_to_train_on(len(tables[0]))),
    )


def _grouped(raw: RawTable, encoded: Encoded, weights: FloatArray | None) -> Table:
    """Returns the rows of a source as a table to split: equal rows have one group.

    Not if half of the rows or more repeat others by chance, as in a table of labels: a split of
    few different rows would leave labels out of the training.
    """
    rows = encoded.known
    table = Table(
        values=np.zeros((len(rows), 0)),
        columns=(),
        rows=np.arange(1, len(rows) + 1),
        source=raw.source,
        lines=raw.lines,
        labels=raw.labels,
        groups=_groups(rows),
        notes=raw.notes,
    )
    return weighted(table, weights)


def _groups(rows: FloatArray) -> IntArray | None:
    """Returns the number of the group of equal rows of each row, None for no groups."""
    names = tuple(map(str, range(rows.shape[1])))
    table = Table(rows, names, np.arange(1, len(rows) + 1), "")
    repeats = repeats_of(table)
    by_chance = not repeats.unexpected and 2 * repeats.total >= len(rows)
    return None if by_chance else groups_of(table)


def _in_order(part: Table) -> FloatArray | None:
    """Returns the weights of the rows of a part in the order of the source."""
    return None if part.weights is None else part.weights[np.argsort(part.rows)]


def _complete(rows: IncompleteRows) -> Table:
    """Returns the rows without missing numbers; all, completed, if these are few."""
    complete = ~rows.gaps.missing.any(1).numpy()
    return rows.table.select(complete) if complete.sum() >= COMPLETE_ROWS else rows.table


def _warnings(train: Table, domains: dict[str, Interval]) -> tuple[str, ...]:
    """Returns warnings on the numbers; DataError if they have no density."""
    if not train.columns:
        return ()
    return prepare_table(train, domains=domains, repair="keep", offered=()).warnings
