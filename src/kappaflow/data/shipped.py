"""The data set in the package: its file, columns, source and license."""

from dataclasses import dataclass
from pathlib import Path

from kappaflow.errors import ArgumentError


@dataclass(frozen=True)
class DataSet:
    """A data set inside the package."""

    name: str
    rows: int
    columns: tuple[str, ...]
    description: str
    citation: str
    license: str
    path: Path


_MAGIC = DataSet(
    name="magic",
    rows=19_020,
    columns=(
        *("fLength", "fWidth", "fSize", "fConc", "fConc1", "fAsym", "fM3Long", "fM3Trans"),
        *("fAlpha", "fDist", "class"),
    ),
    description=(
        "Monte-Carlo events of an atmospheric Cherenkov telescope: ten image parameters, "
        "and whether a gamma (g) or a hadron (h) caused the shower."
    ),
    citation=(
        "R. Bock (2007). MAGIC Gamma Telescope. UCI Machine Learning Repository. "
        "https://doi.org/10.24432/C52C8B"
    ),
    license="CC BY 4.0",
    path=Path(__file__).with_name("magic.parquet"),
)
_SHIPPED = {_MAGIC.name: _MAGIC}


def shipped_names() -> tuple[str, ...]:
    """Returns the names of the shipped data sets, without opening a file.

    Example:
        >>> shipped_names()
        ('magic',)
    """
    return tuple(_SHIPPED)


def path_of(name: str) -> Path:
    """Returns the file of a shipped data set.

    Raises:
        ArgumentError: If no data set of that name is shipped.

    Example:
        >>> path_of("magic").name
        'magic.parquet'
    """
    if name not in _SHIPPED:
        raise ArgumentError(
            f"'name' should be one of {', '.join(map(repr, _SHIPPED))}, got {name!r}."
        )
    return _SHIPPED[name].path


def data_sets() -> tuple[DataSet, ...]:
    """Returns the shipped data sets.

    Example:
        >>> [(data.name, data.rows, len(data.columns)) for data in data_sets()]
        [('magic', 19020, 11)]
    """
    return tuple(_SHIPPED.values())
