"""KF701, KF702, KF703: the floating-point dtypes in which layers return their results."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.bijection import Bijection
from kappaflow.conditioning import layers_of
from kappaflow.diagnosis.check import Measurements, Symptom, check, measurement
from kappaflow.flows import Flow
from kappaflow.foreign.layers import ForeignLayer

ROWS = 2
NARROW = ("torch.float16", "torch.bfloat16")


@dataclass(frozen=True)
class Result:
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

    @property
    def where(self) -> str:
        """The direction, as part of a sentence."""
        return {"forward": "forward direction", "inverse": "inverse"}[self.direction]

    @property
    def evidence(self) -> dict[str, float | int | str | None]:
        return {"direction": self.direction, "type": _short(self.returned)}


Results = list[Result]


@dataclass(frozen=True)
class Dtypes:
    """The first layer with each problem; None if no layer has it.

    Attributes:
        narrow_log_det: Its log_det has less precision than float32.
        changed: Its values have another dtype than the points.
        changed_in_float64: The same in a float64 copy.
        under_autocast: Its log_det has less precision than float32 under autocast to bfloat16.
    """

    narrow_log_det: Result | None
    changed: Result | None
    changed_in_float64: Result | None
    under_autocast: Result | None


@measurement("dtypes", checked="dtypes")
def dtypes(m: Measurements) -> Dtypes:
    """Calls each layer in both directions in its own dtype, in float64, and under autocast."""
    flow, x, context = m.flow, m.points[:ROWS], None if m.context is None else m.context[:ROWS]
    values, log_dets = _results(flow, x, context)
    in_float64 = cast = None
    if flow.dtype != torch.float64 and m.wide is not None and m.wide.dtype == torch.float64:
        in_float64 = _try(m.wide, x.double(), None if context is None else context.double())
    if flow.dtype == torch.float32:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            cast = _try(flow, x, context)
    return Dtypes(
        narrow_log_det=_first(one for one in log_dets if one.is_narrow),
        changed=_first(one for one in values if one.is_changed),
        changed_in_float64=_first(one for one in (in_float64 or [[]])[0] if one.is_changed),
        under_autocast=_first(one for one in (cast or [[], []])[1] if one.is_narrow),
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
        yield Symptom(
            f"The log_det of the {result.where} is in {_short(result.returned)}.",
            result.evidence,
            layer=result.layer,
        )


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
    own, wide = dtypes(m).changed, dtypes(m).changed_in_float64
    result = own or wide
    if result is None:
        return
    where = f"The {result.where}" if own else f"In a float64 copy, the {result.where}"
    given, returned = _short(result.given), _short(result.returned)
    yield Symptom(
        f"{where} returns {returned} for points in {given}.",
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
        class Scaling(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.network = torch.nn.Linear(2, 2)
                self.register_buffer("one", torch.ones(1, 2))

            def encode(self, x):
                log_scale = self.network(self.one)
                return x * log_scale.exp(), log_scale.sum().expand(len(x))

            def decode(self, z):
                log_scale = self.network(self.one)
                return z * (-log_scale).exp(), -log_scale.sum().expand(len(z))


        flow = Scaling()
        x = torch.randn(64, 2)
    """
    result = dtypes(m).under_autocast
    if result is not None and dtypes(m).narrow_log_det is None:
        yield Symptom(
            f"Under autocast, the log_det of the {result.where} is in {_short(result.returned)}.",
            result.evidence,
            layer=result.layer,
        )


def _short(dtype: str) -> str:
    return dtype.removeprefix("torch.")


def _first(results: Iterator[Result]) -> Result | None:
    return next(results, None)


def _try(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Results, Results] | None:
    try:
        return _results(flow, x, context)
    except Exception:  # dtypes that cannot be mixed raise an error, not a wrong number
        return None


def _results(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Results, Results]:
    """Returns the dtypes of all values and the dtypes of all log_dets."""
    values, log_dets, state = [], [], x
    for layer in layers_of(flow.bijection, context):
        for direction in ("forward", "inverse"):
            call = _unconverted(layer.bijection, direction)
            value, log_det = call(state.clone(), layer.context)
            given = str(state.dtype)
            values.append(Result(layer.name, direction, given, str(value.dtype)))
            if isinstance(log_det, Tensor):
                log_dets.append(Result(layer.name, direction, given, str(log_det.dtype)))
            if direction == "forward":
                state = value.to(x.dtype)
    return values, log_dets


def _unconverted(layer: Bijection, direction: str) -> Callable[..., tuple[Tensor, object]]:
    """Returns the function of a layer for one direction, before its result is converted."""
    if isinstance(layer, ForeignLayer):
        return layer.encode if direction == "forward" else layer.decode
    return layer.forward if direction == "forward" else layer.inverse
