"""Rules on the ways to a density: each compares two that should agree."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kappaflow.adapters import Wrapped
from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.rules.log_dets import LOST, log_det_wrong

# What two right ways may differ by: nats, and a multiple of rounding.
NATS, SHARE = 1e-2, 1e2


def random_answers(m: Measured) -> Iterator[Finding]:
    """KF104: the same points have another density at each call."""
    worst = _largest_difference(m.paths.again, m.log_prob)
    if not worst > SHARE * m.profile.eps * (1 + _size(m.log_prob)):  # sums in another order
        return
    yield Finding(
        code="KF104",
        severity="note",
        layer=None,
        message=f"log_prob differs from call to call, by up to {worst:.2g} nats.",
        cause="A layer draws random numbers also in evaluation mode: an estimate, or noise.",
        cure="Take the mean of several calls, and say that it is an estimate.",
        evidence={"worst_nats": worst},
    )


def rows_depend(m: Measured) -> Iterator[Finding]:
    """KF204: what a row gives depends on the rows beside it."""
    if m.paths.in_halves is None or any(random_answers(m)):
        return
    worst, tolerance = _compared(m, m.paths.in_halves, m.log_prob, m.paths.rounding)
    if not worst > tolerance:
        return
    yield Finding(
        code="KF204",
        severity="error",
        layer=m.paths.mixing,
        message=f"log_prob of a row changes by up to {worst:.2g} nats with the rows beside it.",
        cause="A layer computes statistics of the batch, or a log_det is summed over rows.",
        cure="Use running statistics in evaluation mode, and reduce over features only.",
        evidence={"worst_nats": worst},
    )


def own_log_prob_differs(m: Measured) -> Iterator[Finding]:
    """KF205: log_prob is not the base's density and the log_dets of the layers."""
    if m.paths.own is None or any(random_answers(m)):
        return
    worst, tolerance = _compared(m, m.paths.own, m.log_prob, m.paths.rounding)
    if not worst > tolerance:
        return
    yield Finding(
        code="KF205",
        severity="error",
        layer=None,
        message=(
            f"log_prob is off the density of the base and the log_dets of the layers by up to "
            f"{worst:.2g} nats."
        ),
        cause="log_prob leaves out a log_det or a term of the base, or takes a stale value.",
        cure="Compare log_prob with base.log_prob(z) + log_det of the same points.",
        evidence={"worst_nats": worst, "tolerance_nats": tolerance},
    )


def drawn_log_prob_differs(m: Measured) -> Iterator[Finding]:
    """KF206: the density that comes with samples is not the density at the samples."""
    drawn, said, rounding = m.paths.drawn, m.paths.drawn_said, m.paths.drawn_rounding
    if drawn is None or said is None or rounding is None:
        return
    if any(random_answers(m)) or any(log_det_wrong(m)):
        return  # these say more, and this follows from them
    missed = (m.profile.round_trip_latent[-1] / m.norm_latent.clamp_min(1)).max().item()
    if not missed <= LOST:
        return  # what is drawn is not what its latent says
    worst, tolerance = _compared(m, said, drawn, rounding)
    tolerance += SHARE * missed * math.prod(m.flow.joint_shape)
    if not worst > tolerance:
        return
    library = m.flow.library if isinstance(m.flow, Wrapped) else "the flow"
    yield Finding(
        code="KF206",
        severity="error",
        layer=None,
        message=(
            f"The log_prob that {library} returns with its samples is off log_prob at these "
            f"samples by up to {worst:.2g} nats."
        ),
        cause="The log_det of the inverse is added where it should be subtracted, or left out.",
        cure="Call log_prob on the samples, until the sampling path is mended.",
        evidence={"worst_nats": worst, "tolerance_nats": tolerance},
    )


def _compared(m: Measured, a: Tensor, b: Tensor, rounding: Tensor) -> tuple[float, float]:
    """Returns the largest difference of two ways, and what right ones may differ by, in nats.

    Points at which rounding alone moves the density by much are not judged.
    """
    judged = SHARE * rounding <= NATS
    tolerance = NATS + SHARE * m.profile.eps * _size(b[judged])
    return _largest_difference(a[judged], b[judged]), tolerance


def _size(log_prob: Tensor) -> float:
    return max(log_prob.abs().nan_to_num(0, posinf=0).tolist(), default=0.0)


def _largest_difference(a: Tensor, b: Tensor) -> float:
    """Returns the largest difference where both are finite; 0 if nowhere."""
    difference = (a.double() - b.double()).abs()
    finite = difference[torch.isfinite(difference)]
    return finite.max().item() if len(finite) else 0.0
