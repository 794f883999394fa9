"""The cost of singular values in float64 instead of the flow's float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any
from unittest.mock import patch

from torch import Tensor

import kappaflow as kf
from benchmarks.lines import Line
from benchmarks.ours import noisy
from benchmarks.peak import peak_of_call
from benchmarks.turns import in_turn, timed

NOISE = 0.02  # standard deviation of the noise on all parameters
ROUNDS = 5
Case = tuple[Callable[[], kf.Flow], tuple[int, ...]]  # function that makes the flow; point shape
COSTS: dict[str, Case] = {
    "8 couplings of 16 features, 64 points": (lambda: kf.real_nvp(16), (64, 16)),
    "32 couplings of 64 features, 1 point": (lambda: kf.real_nvp(64, depth=32), (1, 64)),
    "32 couplings of 64 features, 64 points": (lambda: kf.real_nvp(64, depth=32), (64, 64)),
    "Glow of 3 x 16 x 16, 24 layers, 1 image": (
        lambda: kf.glow((3, 16, 16), levels=2, steps=4, hidden=64),
        (1, 3, 16, 16),
    ),
}


def cost_of(name: str) -> Line:
    """Returns times and peak memory of `spectrum` and `profile` in both dtypes, and the ratios.

    Args:
        name: Name of a case in `COSTS`.

    Returns:
        By measurement: "time_ratio", the median of float64 over float32, measured in turn, and
        "memory_ratio" of the resident peaks above the memory in use before.
    """
    flow, x = noisy(*COSTS[name], NOISE)
    calls: dict[str, Callable[[], Any]] = {
        "spectrum": partial(kf.spectrum, flow.core, flow.standardization(x)[0]),
        "profile": partial(kf.profile, flow, x),
    }
    line: Line = {"flow": name}
    for measurement, call in calls.items():
        ways = {"float64": call, "float32": partial(_in_own_type, call)}
        for way in ways.values():
            way()
        found = in_turn({key: partial(timed, way) for key, way in ways.items()}, ROUNDS)
        times = {key: median(values) for key, values in found.items()}
        peaks = {key: peak_of_call(way) for key, way in ways.items()}
        line[measurement] = {
            "time_s": times,
            "time_ratio": times["float64"] / times["float32"],
            "peak_bytes": peaks,
            "memory_ratio": peaks["float64"] / peaks["float32"],
        }
    return line


def _in_own_type(call: Callable[[], Any]) -> None:
    with _own_type():
        call()


@contextmanager
def _own_type() -> Iterator[None]:
    """Context manager in which flows are measured in their own dtype."""
    homes = [import_module(f"kappaflow.conditioning.{name}") for name in ("spectrum", "profile")]
    with (
        patch.object(homes[0], "in_float64", _plainly),
        patch.object(homes[1], "in_float64", _plainly),
    ):
        yield


def _plainly(
    measure: Callable[..., Any],
    module: Any,  # noqa: ANN401  a bijection or a flow
    x: Tensor,
    context: Tensor | None,
    *,
    wide: object = None,  # noqa: ARG001
) -> Any:  # noqa: ANN401
    return measure(module, x, context)
