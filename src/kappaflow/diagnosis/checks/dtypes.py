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
from kappaflow.finding import Evidence
from kappaflow.flows import Flow
from kappaflow.foreign.layers import ForeignLayer

ROWS = 2
NARROW = ("float16", "bfloat16")
DIRECTIONS = {"forward": "forward direction", "inverse": "inverse"}
Call = Callable[..., tuple[Tensor, object]]


class Result(NamedTuple):
    """The dtype of a value or a log_det that a layer returned, "forward" or "inverse"."""

    layer: str
    direction: str
    given: str
    returned: str

    @property
    def is_narrow(self) -> bool:
        """Whether the result has less precision than float32."""
        return self.returned in NARROW

    @property
    def is_changed(self) -> bool:
        return self.returned != self.given

    def symptom(self, text: str) -> Symptom:
        """Returns a symptom; `text` has places for the direction and the dtype."""
        message = text.format(DIRECTIONS[self.direction], self.returned)
        evidence: Evidence = {"direction": self.direction, "type": self.returned}
        return Symptom(message, evidence, layer=self.layer)


Results = list[Result]


class Dtypes(NamedTuple):
    """The first result of a layer with each problem; None if no layer has it."""

    narrow_log_det: Result | None  # less precise than float32
    changed: Result | None  # values in another dtype than the points
    changed_in_float64: Result | None  # the same in a float64 copy
    under_autocast: Result | None  # a narrow log_det under autocast to bfloat16


@measurement("dtypes", checked="dtypes")
def dtypes(m: Measurements) -> Dtypes:
    """Calls each layer in both directions in its own dtype, in float64, and under autocast."""
    x, context = m.first(ROWS)
    values, log_dets = _results(m.flow, x, context)
    values64 = m.in_float64(_values_in_float64, x, context) or []
    cast: Results = []
    if m.flow.dtype == torch.float32:
        with torch.autocast(x.device.type, dtype=torch.bfloat16), suppress(Exception):
            cast = _results(m.flow, x, context)[1]  # dtypes that cannot be mixed raise an error
    return Dtypes(
        narrow_log_det=next((entry for entry in log_dets if entry.is_narrow), None),
        changed=next((entry for entry in values if entry.is_changed), None),
        changed_in_float64=next((entry for entry in values64 if entry.is_changed), None),
        under_autocast=next((entry for entry in cast if entry.is_narrow), None),
    )


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
        yield result.symptom("The log_det of the {} is in {}.")


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
    start, given, returned = "The" if own else "In a float64 copy, the", *result[2:]
    yield Symptom(
        f"{start} {DIRECTIONS[result.direction]} returns {returned} for points in {given}.",
        {"direction": result.direction, "given": given, "got": returned},
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
        yield result.symptom("Under autocast, the log_det of the {} is in {}.")


def _results(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Results, Results]:
    """Returns the dtypes of all values and the dtypes of all log_dets."""
    values, log_dets, state = [], [], x
    for layer in layers_of(flow.bijection, context):
        for direction, call in zip(DIRECTIONS, unconverted(layer.bijection), strict=True):
            value, log_det = call(state.clone(), layer.context)
            values.append(Result(layer.name, direction, *_names(state, value)))
            if isinstance(log_det, Tensor):
                log_dets.append(Result(layer.name, direction, *_names(state, log_det)))
            if direction == "forward":
                state = value.to(x.dtype)
    return values, log_dets


def _values_in_float64(flow: Flow, x: Tensor, context: Tensor | None) -> Results:
    return _results(flow, x, context)[0] if flow.dtype == torch.float64 else []


def _names(*tensors: Tensor) -> list[str]:
    return [str(tensor.dtype).removeprefix("torch.") for tensor in tensors]


def unconverted(layer: Bijection) -> tuple[Call, Call]:
    """Returns both directions of a layer, as a library computes them: without copies."""
    if isinstance(layer, ForeignLayer):
        return layer.encode, layer.decode
    return layer.forward, layer.inverse
