"""The rule on log-determinants, against each other and against the Jacobian."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from kappaflow.conditioning import TRUSTED
from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.measures.log_dets import LogDets

# Round trips above this share of |x| are visible in likelihoods and samples.
LOST = 1e-3
# Of a log_det, in units of rounding: as in kappaflow.testing, where right flows need 5.
SAFETY = 10.0
UNSEEN = 1e-12  # nats: the last digits of float64, which differ from processor to processor
ROUNDED = 1e-3  # of an error is left in float64 where it was rounding


def log_det_wrong(m: Measured) -> Iterator[Finding]:
    """KF203: log_det is not log|det| of the Jacobian, in one direction or in both."""
    off = {which: one for which, one in _log_det_errors(m).items() if one is not None}
    if not off:
        return
    worst, tolerance = max(off.values())
    if "sum" in off:
        message = f"The log_dets of the two directions add up to {worst:.2g} nats instead of 0."
    else:
        blamed = _DIRECTIONS[next(iter(off))] if len(off) == 1 else "both directions"
        message = (
            f"The log_det of {blamed} is off log|det| of the Jacobian by up to {worst:.2g} nats."
        )
    wide = _worst_in_float64(m.log_dets, off)
    evidence: dict[str, float | int | str | None] = {
        "worst_nats": worst,
        "tolerance_nats": tolerance,
    }
    if wide is not None and wide < ROUNDED * worst:
        yield Finding(
            code="KF203",
            severity="warning",
            layer=None,
            message=f"{message[:-1]}, and in float64 by {wide:.1g}.",
            cause="The formula is right: digits are lost in it, where large numbers cancel.",
            cure="Score and sample in float64, or rewrite the formula.",
            evidence=evidence | {"worst_nats_in_float64": wide},
        )
        return
    yield Finding(
        code="KF203",
        severity="error",
        layer=None,
        message=message,
        cause="A log_det with a wrong sign, without a term, or averaged where it should add.",
        cure="Check each layer with kappaflow.testing.check_bijection.",
        evidence=evidence,
    )


def _worst_in_float64(log_dets: LogDets, off: Iterable[str]) -> float | None:
    """Returns the largest error in float64 of the directions that are off, None without a copy."""
    wide = log_dets.wide
    if wide is None or wide.true is None:
        return None
    errors = {"forward": wide.forward - wide.true, "inverse": wide.inverse + wide.true}
    return max(errors[which].abs().nan_to_num(torch.inf).max().item() for which in off)


_DIRECTIONS = {"forward": "the forward direction", "inverse": "the inverse"}


def _log_det_errors(m: Measured) -> dict[str, tuple[float, float] | None]:
    """Returns by comparison the worst error above its tolerance, and that tolerance, in nats.

    The tolerance is that of `kappaflow.testing`: 10 eps kappa (1 + sum |log s|), with the square
    root of the number of layers in place of 1, since each of them rounds, and with the worst
    condition number over the depth. The inverse is called at a latent, and where the round trip
    misses by more than rounding, that is what its log_det may differ by. A log_det that turns
    quickly (splines near a knot) may differ by what rounding of its argument does to it as well.
    Below `UNSEEN` nothing is an error.
    """
    lost = m.profile.eps * m.profile.condition_number.amax(dim=0)
    missed = m.profile.round_trip_data[0] / m.norm_data.clamp_min(1)
    there = SAFETY * (lost * m.log_dets.size + m.log_dets.forward_moves)
    back = SAFETY * (torch.maximum(lost, missed) * m.log_dets.size + m.log_dets.inverse_moves)
    judged, returned = lost < TRUSTED, (lost < TRUSTED) & (missed <= LOST)
    forward, inverse, true = m.log_dets.forward, m.log_dets.inverse, m.log_dets.true
    if true is None:
        return {"sum": _worst_above(forward + inverse, back, returned)}
    known = torch.isfinite(true)
    return {
        "forward": _worst_above(forward - true, there, judged & known),
        "inverse": _worst_above(inverse + true, back, returned & known),
    }


def _worst_above(error: Tensor, tolerance: Tensor, judged: Tensor) -> tuple[float, float] | None:
    """Returns the largest error above its tolerance among the points that can be judged."""
    error = error.abs().nan_to_num(torch.inf)
    above = judged & (error > tolerance.clamp_min(UNSEEN))
    if not above.any():
        return None
    row = int((error * above).nan_to_num(0).argmax())
    return error[row].item(), tolerance[row].item()
