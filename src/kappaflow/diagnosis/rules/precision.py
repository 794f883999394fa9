"""Rules on floating-point types."""

from collections.abc import Iterator

from kappaflow.diagnosis.finding import Finding, Severity
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.measures.precision import Answer


def log_det_narrow(m: Measured) -> Iterator[Finding]:
    """KF701: a log_det is kept in fewer digits than float32 has."""
    found = m.precision.narrow_log_det
    if found is None:
        return
    yield Finding(
        code="KF701",
        severity="warning",
        layer=found.layer,
        message=f"The log_det of its {_named(found)} is kept in {_short(found.got)}.",
        cause="It is summed in the type of the values; two or three digits are left of a sum.",
        cure="Sum log-scales in float32 (dtype=torch.float32), whatever the values are.",
        evidence={"direction": found.direction, "type": _short(found.got)},
    )


def type_lost(m: Measured) -> Iterator[Finding]:
    """KF702: a layer answers in another type than it was asked in."""
    here, wide = m.precision.other_type, m.precision.in_float64
    found = here or wide
    if found is None:
        return
    severity: Severity = "warning" if here else "note"
    where = "" if here else "In a copy in float64, "
    message = (
        f"{where}{'its' if where else 'Its'} {_named(found)} returns {_short(found.got)} for "
        f"points in {_short(found.given)}."
    )
    yield Finding(
        code="KF702",
        severity=severity,
        layer=found.layer,
        message=message,
        cause="A constant, a mask or a call of float() has a type of its own.",
        cure="Make tensors in the type and on the device of the input (x.new_zeros, buffers).",
        evidence={
            "direction": found.direction,
            "given": _short(found.given),
            "got": _short(found.got),
        },
    )


def autocast_leaks(m: Measured) -> Iterator[Finding]:
    """KF703: under autocast the log_det falls below float32."""
    found = m.precision.under_autocast
    if found is None or m.precision.narrow_log_det is not None:
        return
    yield Finding(
        code="KF703",
        severity="note",
        layer=found.layer,
        message=f"Under autocast the log_det of its {_named(found)} is {_short(found.got)}.",
        cause="The log-scales come out of a matrix product, which autocast does in few digits.",
        cure="Convert log-scales to float32 before they are summed, or train without autocast.",
        evidence={"direction": found.direction, "type": _short(found.got)},
    )


def _named(answer: Answer) -> str:
    return {"forward": "forward direction", "inverse": "inverse"}[answer.direction]


def _short(dtype: str) -> str:
    return dtype.removeprefix("torch.")
