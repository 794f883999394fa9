"""kappaflow: normalizing flows with their depth and their conditioning in plain sight.

The stub `__init__.pyi` lists the public names. Each is loaded at its first use, so that `import
kappaflow` and the help of the command line do not wait for torch.
"""

from importlib import import_module

import lazy_loader

__version__ = "0.1.0"

NAMESPACES = ("bijections", "nets", "flows", "training", "data", "images")
ELSEWHERE = {"theory": "kappaflow_studies.theory"}  # loaded by name, never imported
_load, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ELSEWHERE  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    """Returns a public name; the error for an unknown one names what is meant."""
    if name in ELSEWHERE:
        return import_module(ELSEWHERE[name])
    if name in __all__ or name.startswith("_"):
        return _load(name)
    from kappaflow.names import CLASSES, did_you_mean

    homes = [home for home in NAMESPACES if name in import_module(f"kappaflow.{home}").__all__]
    if homes:
        hint = f": did you mean '{homes[0]}.{name}'?"
    else:
        hint = did_you_mean(name, [*__all__, *CLASSES], CLASSES)
    raise AttributeError(f"module 'kappaflow' has no attribute {name!r}{hint or '.'}")
