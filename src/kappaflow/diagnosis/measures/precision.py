"""In which floating-point types the layers of a flow answer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.adapters.parts import ForeignLayer
from kappaflow.bijection import Bijection
from kappaflow.conditioning import layers_of
from kappaflow.diagnosis.unchanged import another
from kappaflow.flows import Flow

ROWS = 2
NARROW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Answer:
    """A type that a layer answers in, where another was due.

    Attributes:
        layer: Its name.
        direction: "forward" or "inverse".
        given: Type of the points.
        got: Type of the answer.
    """

    layer: str
    direction: str
    given: str
    got: str


@dataclass(frozen=True)
class Precision:
    """The first layer of each kind, None where there is none.

    Attributes:
        narrow_log_det: Its log_det is kept in a type below float32.
        other_type: Its values are of another type than the points.
        in_float64: The same of a copy in float64.
        under_autocast: Its log_det is below float32 under autocast to bfloat16.
    """

    narrow_log_det: Answer | None
    other_type: Answer | None
    in_float64: Answer | None
    under_autocast: Answer | None


def precision_of(flow: Flow, x: Tensor, context: Tensor | None) -> Precision:
    """Returns in which types the layers answer, each in both directions.

    Args:
        flow: In evaluation mode.
        x: Points as its bijection takes them, (B, *event).
        context: (B, C) or None.

    Returns:
        What was found.
    """
    x, context = x[:ROWS], None if context is None else context[:ROWS]
    values, log_dets = _answers(flow, x, context)
    wide = None
    if flow.dtype != torch.float64:
        copy = another(flow, x, context, torch.float64)
        if copy is not None and copy.dtype == torch.float64:
            wide = _tried(copy, x.double(), None if context is None else context.double())
    cast = None
    if flow.dtype == torch.float32:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            cast = _tried(flow, x, context)
    return Precision(
        narrow_log_det=_first(log_dets, _is_narrow),
        other_type=_first(values, _is_other),
        in_float64=None if wide is None else _first(wide[0], _is_other),
        under_autocast=None if cast is None else _first(cast[1], _is_narrow),
    )


Answers = list[Answer]


def _is_narrow(answer: Answer) -> bool:
    return answer.got in map(str, NARROW)


def _is_other(answer: Answer) -> bool:
    return answer.got != answer.given


def _first(answers: Answers, condition: Callable[[Answer], bool]) -> Answer | None:
    return next(filter(condition, answers), None)


def _tried(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Answers, Answers] | None:
    try:
        return _answers(flow, x, context)
    except Exception:  # types that do not go together: no wrong number comes of that
        return None


def _answers(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Answers, Answers]:
    """Returns the types of all values, and those of all log_dets."""
    values, log_dets, state = [], [], x
    for layer in layers_of(flow.bijection, context):
        for direction in ("forward", "inverse"):
            call = _raw(layer.bijection, direction)
            value, log_det = call(state.clone(), layer.context)
            given = str(state.dtype)
            values.append(Answer(layer.name, direction, given, str(value.dtype)))
            if isinstance(log_det, Tensor):
                log_dets.append(Answer(layer.name, direction, given, str(log_det.dtype)))
            if direction == "forward":
                state = value.to(x.dtype)
    return values, log_dets


def _raw(layer: Bijection, direction: str) -> Callable[..., tuple[Tensor, object]]:
    """Returns a direction of a layer as its library answers, before it is brought into form."""
    if isinstance(layer, ForeignLayer):
        return layer.encode if direction == "forward" else layer.decode
    return layer.forward if direction == "forward" else layer.inverse
