"""The rule on latents that are far out."""

from collections.abc import Iterator

from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.rules.log_dets import LOST
from kappaflow.diagnosis.rules.values import round_trip_lost, round_trip_not_finite

NEAR, MANY = 2, 0.1  # sigmas and share: some draws in a hundred lie there


def tails_lost(m: Measured) -> Iterator[Finding]:
    """KF303: latents that are far out do not come back, where those of the base do."""
    if any(round_trip_not_finite(m)) or any(round_trip_lost(m)):
        return  # these say more
    bad = (~(m.tails.missed <= LOST)).double().mean(1).tolist()
    if bad[0]:
        return  # so does KF102
    for sigma, share, fault in zip(m.tails.sigmas, bad, m.tails.faults, strict=True):
        if not share:
            continue
        near = sigma <= NEAR and share > MANY
        yield Finding(
            code="KF303",
            severity="warning" if near else "note",
            layer=fault,
            message=(
                f"Of latents {sigma} sigma beyond the draws of the base {100 * share:.0f} % do "
                "not come back from the data."
            ),
            cause="Scales grow or shrink without bound where the networks were not trained.",
            cure=(
                "Bound the log-scales (scale_bound of real_nvp), or sample in float64 and look "
                "at the largest of many samples."
            ),
            evidence={
                f"lost_at_{one}_sigma": value
                for one, value in zip(m.tails.sigmas, bad, strict=True)
            },
        )
        return
