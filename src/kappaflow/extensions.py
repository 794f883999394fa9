"""What hangs on the core: packages that the core loads by name and never imports."""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

GROUPS: dict[str, tuple[str, ...]] = {
    "datasets": (),  # kinds of data beyond tables
    "libraries": (),  # flows of other libraries, and exports
    "views": ("kappaflow.plot",),  # `plot` of results
}


@cache
def load_extensions(group: str) -> None:
    """Imports the modules of a group of `GROUPS` once, so that they register what they add.

    A package of yours joins a group by an entry point, for instance `kappaflow.datasets`.

    Args:
        group: "datasets", "libraries" or "views".
    """
    for module in GROUPS[group]:
        import_module(module)
    for point in entry_points(group=f"kappaflow.{group}"):
        point.load()
