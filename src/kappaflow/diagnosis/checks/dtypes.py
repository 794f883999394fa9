"""KF701, KF702, KF703: the floating-point dtypes in which layers return their results."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.bijection import Bijection
from kappaflow.conditioning import layers_of
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.flows import Flow
from kappaflow.foreign.layers import ForeignLayer

ROWS = 2
NARROW = ("float16", "bfloat16")
DIRECTIONS = {"forward": "forward direction", "inverse": "inverse"}
Call = Callable[..., tuple[Tensor, object]]


class Returned(NamedTuple):
    """The dtype of a value or a log_det that a layer returned, "forward" or "inverse"."""

    layer: str
    direction: str
    is_value: bool
    input_dtype: str
    dtype: str

    def narrow_log_det(self, start: str) -> Symptom:
        """Returns the symptom of a log_det that has less precision than float32."""
        message = f"{start} log_det of the {DIRECTIONS[self.direction]} is in {self.dtype}."
        return Symptom(message, {"direction": self.direction, "type": self.dtype}, self.layer)


class Dtypes(NamedTuple):
    """The first result of a layer with each problem; None if no layer has it."""

    narrow_log_det: Returned | None  # less precise than float32
    changed: Returned | None  # values in another dtype than the points
    changed_in_float64: Returned | None  # the same in a float64 copy
    under_autocast: Returned | None  # a narrow log_det under autocast to bfloat16


@measurement("dtypes")
def dtypes(m: Measurements) -> Dtypes:
    """Calls each layer in both directions in its own dtype, in float64, and under autocast."""
    x, context = m.first(ROWS)
    own, cast = _returned(m.flow, x, context), list[Returned]()
    copy = m.in_float64(_returned, x, context) or []
    copy = copy if m.float64_copy is not None and m.float64_copy.dtype == torch.float64 else []
    if m.flow.dtype == torch.float32:
        with torch.autocast(x.device.type, dtype=torch.bfloat16), suppress(Exception):
            cast = _returned(m.flow, x, context)  # dtypes that cannot be mixed raise an error
    return Dtypes(_narrow_log_det(own), _changed(own), _changed(copy), _narrow_log_det(cast))


def _narrow_log_det(results: list[Returned]) -> Returned | None:
    narrow = (r for r in results if not r.is_value and r.dtype in NARROW)
    return next(narrow, None)


def _changed(results: list[Returned]) -> Returned | None:
    changed = (r for r in results if r.is_value and r.dtype != r.input_dtype)
    return next(changed, None)


@check(
    "KF701",
    "a log_det has less precision than float32",
    severity="warning",
    cause="The layer sums it in the dtype of the values, which leaves two or three digits.",
    fix="Sum log-scales in float32 (dtype=torch.float32), whatever the dtype of the values.",
)
def log_det_narrow(m: Measurements) -> Iterator[Symptom]:
    """The dtype of the log_det is bfloat16 or float16.

    Example:
        def encode(x):
            return 2 * x, torch.full((len(x),), 1.3863, dtype=torch.bfloat16)


        flow = (encode, lambda z: (z / 2, torch.full((len(z),), -1.3863)))
        x = torch.randn(64, 2)
    """
    result = dtypes(m).narrow_log_det
    if result is not None:
        yield result.narrow_log_det("The")


@check(
    "KF702",
    "a layer changes dtype",
    severity="warning",
    cause="A constant, a mask or a call of float() has a fixed dtype.",
    fix="Create tensors with the dtype and the device of the input (x.new_zeros, buffers).",
)
def dtype_changed(m: Measurements) -> Iterator[Symptom]:
    """It is a warning in the flow's dtype. If only a float64 copy falls back to float32, it is
    a note: such a flow cannot be scored in float64.

    Example:
        def encode(x):
            return x.double() * 2, torch.full((len(x),), 1.3863)


        flow = (encode, lambda z: (z / 2, torch.full((len(z),), -1.3863)))
        x = torch.randn(64, 2)
    """
    own = dtypes(m).changed
    result = own or dtypes(m).changed_in_float64
    if result is None:
        return
    start = "The" if own else "In a float64 copy, the"
    yield Symptom(
        f"{start} {DIRECTIONS[result.direction]} returns {result.dtype} for points in "
        f"{result.input_dtype}.",
        {"direction": result.direction, "given": result.input_dtype, "got": result.dtype},
        layer=result.layer,
        severity="warning" if own else "note",
    )


@check(
    "KF703",
    "autocast reduces the precision of a log_det",
    severity="note",
    cause="The log-scales come from a matrix product, which autocast computes in bfloat16.",
    fix="Convert log-scales to float32 before they are summed, or train without autocast.",
)
def autocast_narrows(m: Measurements) -> Iterator[Symptom]:
    """Under `torch.autocast` the log_det comes back in bfloat16.

    Example:
        class Scaling(kf.bijections.ElementwiseAffine):
            def forward(self, x, context=None):
                log_scale = self.log_scale @ torch.eye(2)
                return x * log_scale.exp() + self.shift, log_scale.sum().expand(len(x))


        flow = kf.Flow(kf.StandardNormal(2), Scaling(2))
        x = torch.randn(64, 2)
    """
    result = dtypes(m).under_autocast
    if result is not None and dtypes(m).narrow_log_det is None:
        yield result.narrow_log_det("Under autocast, the")


def _returned(flow: Flow, x: Tensor, context: Tensor | None) -> list[Returned]:
    """Returns the dtypes of all values and log_dets."""
    results, state = list[Returned](), x
    for layer in layers_of(flow.bijection, context):
        for direction, call in zip(DIRECTIONS, unconverted(layer.bijection), strict=True):
            value, log_det = call(state.clone(), layer.context)
            for result in (value, log_det):
                if isinstance(result, Tensor):
                    names = (str(t.dtype).removeprefix("torch.") for t in (state, result))
                    results.append(Returned(layer.name, direction, result is value, *names))
            if direction == "forward":
                state = value.to(x.dtype)
    return results


def unconverted(layer: Bijection) -> tuple[Call, Call]:
    """Returns both directions of a layer, as a library computes them: without copies."""
    if isinstance(layer, ForeignLayer):
        return layer.encode, layer.decode
    return layer.forward, layer.inverse
