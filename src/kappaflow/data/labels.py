"""Text in a context as numbers: a column of zeros and ones for each of its labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.naming import BoolArray
from kappaflow.data.raw import Column, RawTable, Reading, quoted
from kappaflow.errors import ArgumentError, DataError
from kappaflow.options import option

MOST_LABELS = 50
SIGN = "="  # between a column and a label, as in region=north


def with_labels(
    raw: RawTable, reading: Reading, keep: BoolArray
) -> tuple[RawTable, Reading, tuple[str, ...]]:
    """Returns a table and a reading with a column for each label of a text in the context.

    The context `region` becomes the columns `region=north`, `region=south`, ... of all labels in
    the rows `keep`, and so does a text to model with `reading.labels`. Where such columns are
    named, as a run does that was trained with them, other labels are an error, or missing with
    `reading.lenient`. The third result names these texts.
    """
    columns, labels = dict(raw.columns), dict[str, list[str]]()
    for name in dict.fromkeys([*(reading.columns or ()), *reading.context]):
        named = split_name(name, raw)
        if named is not None:
            labels.setdefault(named[0], []).append(named[1])
    texts_in = {"context": reading.context, "columns": _modeled_texts(raw, reading, keep)}
    new = {
        name: _labels_of(raw.columns[name], argument, keep)
        for argument, names in texts_in.items()
        for name in names
        if name in raw.columns and _holds_labels(raw.columns[name])
    }
    labels |= new
    for name, known in labels.items():
        texts = raw.columns[name].texts()
        unknown = np.array([text is not None and text not in known for text in texts])
        if (unknown & keep).any() and not reading.lenient:
            raise _unknown(raw, name, texts, unknown & keep, known)
        gone = unknown | np.array([text is None for text in texts])
        columns |= {
            f"{name}{SIGN}{label}": _column(f"{name}{SIGN}{label}", texts, label, gone)
            for label in known
        }
    exclude = tuple(dict.fromkeys([*reading.exclude, *labels]))
    reading = replace(
        reading,
        columns=None if reading.columns is None else _expanded(reading.columns, new),
        context=_expanded(reading.context, new),
        exclude=exclude,
    )
    return replace(raw, columns=columns), reading, tuple(labels)


def refuse_labels(raw: RawTable, reading: Reading) -> None:
    """Raises ArgumentError for a text in the context, whose labels are not all known yet."""
    for name in reading.context:
        column = raw.columns.get(name)
        if column is not None and _holds_labels(column):
            raise ArgumentError(
                f"'context' names column '{name}', which holds text: a table on disk takes "
                "numbers only."
            )


def split_name(name: str, raw: RawTable) -> tuple[str, str] | None:
    """Returns the column of text and the label of a name such as region=north, if it is one."""
    if name in raw.columns:
        return None
    starts = [column for column in raw.columns if name.startswith(f"{column}{SIGN}")]
    column = max(starts, key=len, default=None)
    if column is None or not _holds_labels(raw.columns[column]):
        return None
    return column, name[len(column) + 1 :]


def columns_to_read(names: Iterable[str], raw: RawTable) -> list[str]:
    """Returns the columns of a source that hold columns of these names, each once."""
    parts = ((name, split_name(name, raw)) for name in names)
    return list(dict.fromkeys(name if part is None else part[0] for name, part in parts))


def labels_of(columns: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.generic]]:
    """Returns columns in which consecutive ones of labels are one column of texts again."""
    result: dict[str, NDArray[np.generic]] = {}
    for start, group in groupby(columns, key=lambda name: name.partition(SIGN)[0]):
        names = list(group)
        values = np.stack([columns[name] for name in names], axis=1)
        one_hot = ((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all()
        if len(names) > 1 and one_hot and all(SIGN in name for name in names):
            texts = np.array([name.partition(SIGN)[2] for name in names])
            result[start] = texts[values.argmax(axis=1)]
        else:
            result |= {name: columns[name] for name in names}
    return result


def _holds_labels(column: Column) -> bool:
    """Returns whether a column holds text or categories: no numbers or dates."""
    return not (column.is_number or column.holds_dates or column.problem)


def _modeled_texts(raw: RawTable, reading: Reading, keep: BoolArray) -> tuple[str, ...]:
    """Returns the columns that are named, or have 2 to 50 labels in two rows each on average."""
    if not reading.labels:
        return ()
    if reading.columns is not None:
        return reading.columns
    most = min(MOST_LABELS, keep.sum() // 2)
    return tuple(
        name
        for name, column in raw.columns.items()
        if name not in {*reading.exclude, *reading.context}
        and _holds_labels(column)
        and 1 < len(_different(column, keep)) <= most
    )


def _expanded(names: Iterable[str], labels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Returns names of columns, a text as the names of its labels."""
    parts = ([f"{n}{SIGN}{label}" for label in labels[n]] if n in labels else [n] for n in names)
    return tuple(chain.from_iterable(parts))


def _different(column: Column, keep: BoolArray) -> list[str]:
    """Returns the different texts of a column in the rows `keep`, in alphabetical order."""
    texts = (text for text, kept in zip(column.texts(), keep, strict=True) if kept)
    return sorted({text for text in texts if text is not None})


def _labels_of(column: Column, argument: str, keep: BoolArray) -> list[str]:
    """Returns the labels of a column; raises ArgumentError for too few or too many."""
    labels = _different(column, keep)
    if not 1 < len(labels) <= MOST_LABELS:
        number = {0: "no text", 1: "one text"}.get(len(labels), f"{len(labels):,} different texts")
        raise ArgumentError(
            f"'{argument}' names column '{column.name}', which holds {number}: a context has 2 to "
            f"{MOST_LABELS} labels. Leave it out ({option('exclude', [column.name])}), or merge "
            "labels first."
        )
    return labels


def _column(name: str, texts: Sequence[str | None], label: str, gone: BoolArray) -> Column:
    import narwhals as nw
    import polars as pl

    values = np.array([text == label for text in texts], dtype=np.float64)
    values[gone] = np.nan
    return Column(name, nw.from_native(pl.Series(name, values), series_only=True))


def _unknown(
    raw: RawTable, name: str, texts: Sequence[str | None], where: BoolArray, known: Sequence[str]
) -> DataError:
    first, more = int(where.argmax()), int(where.sum()) - 1
    also = f", and {more:,} more rows have other labels" if more else ""
    return DataError(
        f"column '{name}' has the label {texts[first]!r} at {raw.name_row(first)}{also}; the "
        f"labels that were trained on are {quoted(list(known))}."
    )
