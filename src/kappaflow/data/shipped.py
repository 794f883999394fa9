"""The data sets that come inside the package, with whom to cite for them."""

from dataclasses import dataclass
from pathlib import Path

from kappaflow.errors import ArgumentError

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class DataSet:
    """A data set inside the package; rows and columns are read from its file.

    Args:
        name: What `load_table` takes for it.
        rows: The number of rows.
        columns: The names of all its columns, text included.
        description: What was measured, in one sentence.
        citation: Whom to cite.
        licence: Under which licence it is passed on.
        path: The file.
    """

    name: str
    rows: int
    columns: tuple[str, ...]
    description: str
    citation: str
    licence: str
    path: Path


@dataclass(frozen=True)
class _Entry:
    """What a file cannot say about itself."""

    file: str
    description: str
    citation: str
    licence: str


_ENTRIES = {
    "magic": _Entry(
        file="magic.parquet",
        description=(
            "Monte-Carlo events of an atmospheric Cherenkov telescope: ten image parameters, "
            "and whether a gamma (g) or a hadron (h) caused the shower."
        ),
        citation=(
            "R. Bock (2007). MAGIC Gamma Telescope. UCI Machine Learning Repository. "
            "https://doi.org/10.24432/C52C8B"
        ),
        licence="CC BY 4.0",
    ),
}


def shipped_names() -> tuple[str, ...]:
    """Returns the names of the shipped data sets, without opening a file.

    Returns:
        The names that `load_table` and `path_of` take.

    Example:
        >>> shipped_names()
        ('magic',)
    """
    return tuple(_ENTRIES)


def path_of(name: str) -> Path:
    """Returns the file of a shipped data set.

    Args:
        name: One of `shipped_names()`.

    Returns:
        The path inside the installed package.

    Raises:
        ArgumentError: If no data set of that name is shipped.

    Example:
        >>> path_of("magic").name
        'magic.parquet'
    """
    if name not in _ENTRIES:
        raise ArgumentError(
            f"'name' should be one of {', '.join(map(repr, _ENTRIES))}, got {name!r}."
        )
    return _HERE / _ENTRIES[name].file


def data_sets() -> tuple[DataSet, ...]:
    """Returns the shipped data sets, their sizes counted in their files.

    Returns:
        One entry a data set.

    Example:
        >>> [(data.name, data.rows, len(data.columns)) for data in data_sets()]
        [('magic', 19020, 11)]
    """
    return tuple(_data_set(name) for name in _ENTRIES)


def _data_set(name: str) -> DataSet:
    import polars as pl

    entry, path = _ENTRIES[name], path_of(name)
    scan = pl.scan_parquet(path)
    return DataSet(
        name=name,
        rows=scan.select(pl.len()).collect().item(),
        columns=tuple(scan.collect_schema().names()),
        description=entry.description,
        citation=entry.citation,
        licence=entry.licence,
        path=path,
    )
