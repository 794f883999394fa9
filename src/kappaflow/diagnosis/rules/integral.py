"""The rule on the integral of a density."""

from collections.abc import Iterator

from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.rules.log_dets import log_det_wrong

LEAST, ERRORS, WORTH = 0.05, 6.0, 200.0  # off one by as much; standard errors; draws


def not_normalised(m: Measured) -> Iterator[Finding]:
    """KF207: the density does not integrate to one."""
    found = m.integral
    if found is None or found.effective < WORTH or any(log_det_wrong(m)):
        return
    if abs(found.value - 1) <= max(LEAST, ERRORS * found.standard_error):
        return
    yield Finding(
        code="KF207",
        severity="error",
        layer=None,
        message=f"The density integrates to {found.value:.3g} ± {found.standard_error:.1g}.",
        cause="The base is not normalised, or the map is not one to one, or not onto.",
        cure="Integrate the base alone, and check that each layer is onto and one to one.",
        evidence={
            "integral": found.value,
            "standard_error": found.standard_error,
            "effective_draws": found.effective,
        },
    )
