"""All rows that are compared."""

from benchmarks.ours import any_module_rows, recipe_rows
from benchmarks.peers import peer_rows
from benchmarks.processes import console
from benchmarks.row import Row

INSTALL = "pip install --group bench"


def installed(rows: list[Row]) -> list[Row]:
    """Returns the rows of installed libraries, and prints which libraries are not installed."""
    for package in sorted({row.package for row in rows if not row.installed}):
        text = f"{package} is not installed, its rows are left out: {INSTALL}"
        console.print(text, markup=False, soft_wrap=True)
    return [row for row in rows if row.installed]


def all_rows() -> list[Row]:
    """Returns every row, including those of libraries that are not installed."""
    return [*recipe_rows(), *any_module_rows(), *peer_rows()]
