"""What a source holds before columns are chosen: series of any kind under their names."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kappaflow.data.table import FloatArray, IntArray
from kappaflow.errors import DataError

if TYPE_CHECKING:
    import narwhals as nw


@dataclass(frozen=True)
class Column:
    """One column of a source; `stray` is the first text where most are numbers.

    A stray is its place and itself: ("line 4", "n.a.").
    """

    name: str
    series: "nw.Series[Any]"
    stray: tuple[str, str] | None = None

    @property
    def is_number(self) -> bool:
        """Whether it can be modelled: integers, floats, decimals, and booleans as 0 and 1."""
        import narwhals as nw

        return self.series.dtype.is_numeric() or self.series.dtype == nw.Boolean

    @property
    def is_single(self) -> bool:
        """Whether it holds float32, to whose rounding a typed-in number has to be brought."""
        import narwhals as nw

        return self.series.dtype == nw.Float32

    def numbers(self) -> FloatArray:
        """Returns the column as float64, missing values as NaN."""
        import narwhals as nw

        return np.asarray(self.series.cast(nw.Float64).to_numpy(), dtype=np.float64)

    def texts(self) -> list[str | None]:
        """Returns the column as strings, missing values as None."""
        return [None if value is None else str(value) for value in self.series.to_list()]


@dataclass(frozen=True)
class Raw:
    """The columns of a source, of one length; `subject` names the source in a sentence.

    `lines` holds the line of a text file on which each row starts, counted from 1.
    """

    columns: dict[str, Column]
    source: str
    subject: str
    lines: IntArray | None = None

    @property
    def row_count(self) -> int:
        """The number of data rows."""
        return len(next(iter(self.columns.values())).series)


def collect(
    columns: list[Column], source: str, subject: str, lines: IntArray | None = None
) -> Raw:
    """Returns the columns under their names, or says which names come twice."""
    if not columns:
        raise DataError(f"{subject} has no columns: give a table with at least one column.")
    twice = [name for name, count in Counter(c.name for c in columns).items() if count > 1]
    if twice:
        raise DataError(
            f"{subject} has more than one column named {quoted(twice)}: rename them, so that "
            "each name stands for one column."
        )
    return Raw({column.name: column for column in columns}, source, subject, lines)


def from_frame(frame: "nw.DataFrame[Any]", source: str, subject: str) -> Raw:
    """Returns the columns of an eager narwhals frame."""
    columns = [Column(str(name), frame.get_column(name)) for name in frame.columns]
    return collect(columns, source, subject)


def quoted(names: list[str] | tuple[str, ...], most: int = 12) -> str:
    """Returns the names in quotes, separated by commas, the tail of a long list counted only."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
