"""`doctor`: measures a flow at points, asks the rules, and says the whole in words."""

import torch
from torch import Tensor

from kappaflow.conditioning import profile
from kappaflow.conditioning.jacobian import dense
from kappaflow.conditioning.round_trip import latent_points
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.finding import SEVERITIES, Diagnosis, Finding
from kappaflow.diagnosis.rules import RULES, Measured
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow

POINTS = 64


def doctor(flow: Flow, x: Tensor | None = None, context: Tensor | None = None) -> Diagnosis:
    """Returns what is wrong with a flow, where, why, and what to do about it.

    The flow is examined in evaluation mode from its standardised columns on, at the given points
    and at draws of its base; its state, its mode and the random generators are left as they were.

    Args:
        flow: A flow.
        x: Points from the data, (B, *event); the first 64 are used. Its own samples if left out,
            which shows less: a flow is rarely bad where it puts its own mass.
        context: (B, C), for a conditional flow.

    Returns:
        The findings, with a verdict in words.

    Raises:
        ArgumentError: It is no flow, a shape does not fit, or a context is missing.

    Example:
        >>> import kappaflow as kf
        >>> kf.doctor(kf.real_nvp(4, depth=2, hidden=(8,)), torch.zeros(8, 4)).ok
        True
    """
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    if flow.context_features and context is None:
        raise ArgumentError(f"'context' should be given, with {flow.context_features} columns.")
    training = flow.training
    flow.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            measured = _measure(flow, x, context)
            findings = [finding for rule in RULES for finding in rule(measured)]
    finally:
        flow.train(training)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(tuple(findings), _verdict(measured, findings), _figures(measured))


def _measure(flow: Flow, x: Tensor | None, context: Tensor | None) -> Measured:
    context = None if context is None else context[:POINTS]
    z = latent_points(flow, POINTS if context is None else len(context))
    drawn = flow.bijection.inverse(z, context)[0]
    x = drawn if x is None else x[:POINTS]
    shape = profile(flow, x, context=context)
    points = flow.units(x)[0]
    return Measured(
        flow=flow,
        profile=shape,
        norm_data=points.flatten(1).double().norm(dim=1),
        norm_latent=latent_points(flow, len(x)).flatten(1).double().norm(dim=1),
        log_prob=flow.log_prob(x, context),
        log_det_error=_log_det_error(flow, points, context),
        samples_finite=torch.isfinite(drawn).flatten(1).all(dim=1).double().mean().item(),
    )


def _log_det_error(flow: Flow, points: Tensor, context: Tensor | None) -> Tensor | None:
    if points[0].numel() > DENSE_UP_TO:
        return None
    linearization = flow.core.linearize(points, context)
    matrices = dense(linearization.jv, points)
    finite = torch.isfinite(matrices).all(dim=(1, 2))
    error = torch.full((len(points),), torch.nan, dtype=torch.float64)
    if finite.any():
        expected = torch.linalg.slogdet(matrices[finite])[1]
        error[finite.cpu()] = (expected - linearization.log_det[finite]).abs().cpu()
    return error


def _figures(m: Measured) -> dict[str, float | int | str | None]:
    condition = m.profile.condition_number[-1]
    return {
        "points": m.profile.sigma_max.shape[1],
        "layers": len(m.profile.layers),
        "dtype": str(m.flow.dtype).removeprefix("torch."),
        "condition_number_median": condition.median().item(),
        "condition_number_p95": condition.quantile(0.95).item(),
        "condition_number_max": condition.max().item(),
        "round_trip_data_max": m.profile.round_trip_data[0].max().item(),
        "round_trip_latent_max": m.profile.round_trip_latent[-1].max().item(),
        "predicted_round_trip_max": m.profile.predicted_round_trip.max().item(),
        "worst_layer": m.profile.layers[m.profile.worst_layer],
        "status": m.profile.status,
    }


def _verdict(m: Measured, findings: list[Finding]) -> str:
    """Returns whether to believe the flow, and the figures behind that, in two sentences."""
    figures = _figures(m)
    severe = [finding for finding in findings if finding.severity != "note"]
    if any(finding.severity == "error" for finding in severe):
        opening = f"Do not believe this flow yet: {severe[0].message}"
    elif severe:
        opening = f"Believe this flow with care: {severe[0].message}"
    else:
        opening = (
            f"Nothing speaks against this flow at the points examined, in {figures['dtype']}."
        )
    if figures["status"] == "not finite":
        return opening
    return (
        f"{opening} Its condition number is {figures['condition_number_median']:.3g} in the "
        f"median and "
        f"{figures['condition_number_max']:.3g} at worst; round trips miss by at most "
        f"{figures['round_trip_data_max']:.1e} on the data and "
        f"{figures['round_trip_latent_max']:.1e} on "
        f"draws of the base, in standardised units."
    )
