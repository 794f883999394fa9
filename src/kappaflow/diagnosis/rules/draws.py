"""Rules on the draws that a flow makes itself."""

from collections.abc import Iterator

from kappaflow.adapters import Wrapped
from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.rules.log_dets import LOST
from kappaflow.diagnosis.rules.values import not_finite

UNLIKELY = 1e-7  # of a right flow, in one examination


def draws_do_not_follow(m: Measured) -> Iterator[Finding]:
    """KF208: draws have another law than the density says."""
    if m.draws is None or not m.draws.significance <= UNLIKELY or any(not_finite(m)):
        return
    missed = (m.profile.round_trip_latent[-1] / m.norm_latent.clamp_min(1)).max().item()
    if not missed <= LOST:
        return  # KF202: what is drawn is not what its latent says
    yield Finding(
        code="KF208",
        severity="error",
        layer=None,
        message=(
            f"The latents of {m.draws.number} samples of {_owner(m)} are no draws of the base: "
            f"their distributions are {m.draws.distance:.2f} apart where equal ones would be as "
            f"far in {m.draws.significance:.0e} of all cases."
        ),
        cause=(
            "sample leaves out a layer or takes them in another order, scales the base, or "
            "gives a sample the context of another row."
        ),
        cure="Sample by base.sample and the inverse of each layer, in the reverse order.",
        evidence={
            "kolmogorov_smirnov": m.draws.distance,
            "significance": m.draws.significance,
            "samples": m.draws.number,
        },
    )


def draws_not_repeatable(m: Measured) -> Iterator[Finding]:
    """KF704: a seed does not make the same draws again."""
    if m.draws is None or not m.draws.repeated:
        return
    yield Finding(
        code="KF704",
        severity="warning",
        layer=None,
        message=f"Samples of {_owner(m)} differ although torch's generator has the same seed.",
        cause="They are drawn from numpy, from a generator of their own, or on another device.",
        cure="Draw from torch's generator, or from one that the caller gives.",
        evidence={"worst": m.draws.repeated},
    )


def _owner(m: Measured) -> str:
    return m.flow.library if isinstance(m.flow, Wrapped) else "the flow"
