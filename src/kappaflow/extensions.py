"""What hangs on the core: packages that the core loads by name and never imports."""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

GROUPS: dict[str, tuple[str, ...]] = {
    "datasets": ("kappaflow.images.kind",),  # kinds of data beyond tables
    "models": ("kappaflow.images.jet",),  # names in model files
    "libraries": ("kappaflow.interop",),  # flows of other libraries, and exports
    "views": ("kappaflow.plot", "kappaflow.runs.page"),  # `plot` and `report` of results
}
NAMES: dict[str, str] = {  # objects of such packages that commands use, as module:name
    "export_run": "kappaflow.interop.exports.run:export_run",
    "factors_page": "kappaflow_studies.factors.page:factors_page",
    "image_options": "kappaflow.images.options",
    "scaled_lower_bound": "kappaflow_studies.theory.conditioning:scaled_lower_bound",
    "separated_modes": "kappaflow_studies.theory.separated_modes:separated_modes",
    "studies": "kappaflow_studies",
}


@cache
def load_extensions(group: str) -> None:
    """Imports the modules of a group of `GROUPS` once, so that they register what they add.

    A package of yours joins a group by an entry point, for instance `kappaflow.datasets`.
    """
    for module in GROUPS[group]:
        import_module(module)
    for point in entry_points(group=f"kappaflow.{group}"):
        point.load()


def load_by_name(name: str) -> Any:
    """Returns an object of a package that hangs on the core, by its name in `NAMES`."""
    module, _, attribute = NAMES[name].partition(":")
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
