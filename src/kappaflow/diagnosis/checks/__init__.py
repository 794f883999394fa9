"""The checks of the doctor, by code. A new check is a new function in one of these files.

Every file of this folder is imported, so that its checks register themselves; see
`kappaflow.diagnosis.check` for the three decorators they are written with.
"""

import importlib
import pkgutil
from collections.abc import Sequence

from kappaflow.diagnosis.check import CHECKS, Check
from kappaflow.errors import ArgumentError

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

CODES = {code: CHECKS[code].title for code in sorted(CHECKS)}


def checks_of_flows() -> list[Check[...]]:
    """Returns the checks that run on a flow; a check that explains another one precedes it."""
    checks = [check for check in CHECKS.values() if check.subject == "flow"]
    return sorted(
        checks, key=lambda check: (check.before or check.code, not check.before, check.code)
    )


def is_selected(code: str, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> bool:
    """Returns whether the options keep a code; the longest matching prefix decides."""
    selected = max((len(prefix) for prefix in select if code.startswith(prefix)), default=-1)
    ignored = max((len(prefix) for prefix in ignore if code.startswith(prefix)), default=-1)
    return selected > ignored if select else ignored < 0


def check_codes(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> None:
    """Raises an ArgumentError for a code, or a prefix of one, that no check has."""
    for name, codes in (("select", select), ("ignore", ignore)):
        for prefix in codes:
            if not prefix or not any(code.startswith(prefix) for code in CODES):
                raise ArgumentError(
                    f"'{name}' should be codes or prefixes of codes, such as KF203 or KF2, got "
                    f"{prefix!r}. The codes are {', '.join(CODES)}."
                )
