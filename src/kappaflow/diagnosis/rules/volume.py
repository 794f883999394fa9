"""Rules on volumes and linear layers that are nearly singular."""

import math
from collections.abc import Iterator

from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured

COLLAPSED = math.log(1e-3)  # of a side, in nats a dimension
SINGULAR = 1e-3  # eps times the condition number
CONSTANT = 1e-3  # relative spread over the points


def volume_collapses(m: Measured) -> Iterator[Finding]:
    """KF304: draws fill hardly any of the volume that the data spreads over."""
    log_det = m.log_dets.forward - m.log_dets.units
    side = (-log_det / m.dimensions).median().item() - m.log_spread
    if not (math.isfinite(side) and side < COLLAPSED):
        return
    yield Finding(
        code="KF304",
        severity="warning",
        layer=None,
        message=(
            f"Around a point the flow fills {math.exp(side):.1e} of the width of the data in the "
            "geometric mean over all directions."
        ),
        cause=(
            "The data lies near a surface, or single points were learnt by heart: the likelihood "
            "grows without bound as the volume shrinks."
        ),
        cure="Look for dependent columns, add noise of a known width, or stop training earlier.",
        evidence={"share_of_width": math.exp(side), "nats_a_dimension": side},
    )


def linear_singular(m: Measured) -> Iterator[Finding]:
    """KF305: a layer with the same Jacobian everywhere is nearly singular."""
    each = m.profile.layer_condition_number
    low, high = each.amin(dim=1), each.amax(dim=1)
    constant = (high - low) <= CONSTANT * low
    bad = constant & (m.profile.eps * low > SINGULAR)
    if not bad.any() or each.shape[1] < 2:
        return
    layer = int((high * bad).argmax())
    kappa = high[layer].item()
    yield Finding(
        code="KF305",
        severity="warning",
        layer=m.profile.layers[layer],
        message=f"A linear layer is nearly singular: its condition number is {kappa:.1e}.",
        cause="Its matrix is free, and training has squeezed a direction of it.",
        cure="Take a form with a bound (svd or orthogonal), or a penalty on its singular values.",
        evidence={"condition_number": kappa},
    )
