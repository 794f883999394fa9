"""All rows that are compared."""

from benchmarks.ours import any_module_rows, recipe_rows
from benchmarks.peers import peer_rows
from benchmarks.row import Row

INSTALL = "pip install 'kappaflow[bench]'"


def all_rows() -> list[Row]:
    """Returns every row, including those of libraries that are not installed."""
    return [*recipe_rows(), *any_module_rows(), *peer_rows()]
