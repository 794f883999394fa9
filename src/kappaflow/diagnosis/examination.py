"""`doctor`: measures a flow at points, asks the rules, and says the whole in words."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from kappaflow.adapters import Wrapped
from kappaflow.conditioning import Profile, layers_of
from kappaflow.conditioning.points import (
    checked_context,
    checked_points,
    measuring,
)
from kappaflow.conditioning.profile import profile_at
from kappaflow.conditioning.round_trip import first_not_finite, latent_points
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.all_rules import RULES, checks_of
from kappaflow.diagnosis.codes import check_codes, is_chosen
from kappaflow.diagnosis.finding import SEVERITIES, Diagnosis, Finding
from kappaflow.diagnosis.float_types import usable_in
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.measures.contexts import contexts_of
from kappaflow.diagnosis.measures.draws import draws_of
from kappaflow.diagnosis.measures.energies import energy_of
from kappaflow.diagnosis.measures.gradient import gradient_of
from kappaflow.diagnosis.measures.integral import integral_of
from kappaflow.diagnosis.measures.log_dets import log_dets_at
from kappaflow.diagnosis.measures.outliers import outliers_of
from kappaflow.diagnosis.measures.paths import paths_at
from kappaflow.diagnosis.measures.precision import precision_of
from kappaflow.diagnosis.measures.references import Comparison, TrainRows, comparisons_of
from kappaflow.diagnosis.measures.state import state_of
from kappaflow.diagnosis.measures.tails import tails_of
from kappaflow.diagnosis.progress import Progress, quietly
from kappaflow.diagnosis.rules.data import data_findings
from kappaflow.diagnosis.tables import tables_of
from kappaflow.diagnosis.unchanged import another, to_examine
from kappaflow.energies import LogDensity, check_target
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.flows import Flow

POINTS, LARGE_POINTS, HUGE_POINTS = 64, 8, 4  # up to 500 dimensions, up to 2000, and above
HUGE = 2000
SPREAD_OF = 32  # points at least, for deviations of columns
# Findings on data, likelihood and training are in the verdict after the most severe one.
IN_THE_VERDICT, MOST_IN_THE_VERDICT = ("KF5", "KF6"), 4
Compare = Callable[[Flow, Tensor, Tensor | None], tuple[Comparison, ...]]


def doctor(
    flow: object,
    x: Tensor | None = None,
    context: Tensor | None = None,
    *,
    train: TrainRows | None = None,
    make: Callable[[], object] | None = None,
    log_density: LogDensity | None = None,
    progress: Progress = quietly,
) -> Diagnosis:
    """Returns what is wrong with a flow, where, why, and what to do about it.

    The flow is examined in evaluation mode from its standardised columns on, at the given points
    and at draws of its base; its state, its mode and the random generators are left as they were.

    Args:
        flow: A flow, of ours or as `kappaflow.wrap` takes it, of which a copy is examined.
        x: Rows of the data, (B, *event), held out if there are such; the flow is measured at the
            first 64 (8 above 500 dimensions, 4 above 2000), and all are looked at as data. Its own
            samples if left out, which shows less: a flow is rarely bad where it puts its own mass.
        context: (B, C), for a conditional flow.
        train: Rows that the flow was trained on, (N, D), with a context (rows, context). A
            Gaussian and a Gaussian mixture are fitted to them, and the likelihood of `x`, which
            should then be held-out rows, is compared row by row. Left out, both are fitted to a
            random half of `x` and compared on the other, from 200 rows on: then only "the flow is
            worse" is a sound conclusion, and the only one drawn.
        make: Makes such a flow anew. The state_dict is loaded into one then, which shows what it
            does not hold.
        log_density: Of points (n, *event) the logarithm of the density that the flow was to fit,
            up to a constant, (n,), as for `kappaflow.fit_energy`. It is asked then at draws of the
            flow, at x, and where no draw is.
        progress: Is told what is measured, before it is.

    Returns:
        The findings, with a verdict in words and the profile that they were made from.

    Raises:
        ArgumentError: It is no flow, has no layer to measure, or x, context or train is not what
            it can be measured at; or there is a log_density and the flow has a context or no exact
            log_prob.

    Example:
        >>> import kappaflow as kf
        >>> kf.doctor(kf.real_nvp(4, depth=2, hidden=(8,)), torch.zeros(8, 4)).ok
        True
    """
    if train is not None and x is None:
        raise ArgumentError("'train' should come with 'x', held-out rows to compare on.")
    found = examined(
        flow,
        x,
        context,
        make=make,
        log_density=log_density,
        progress=progress,
        compare=lambda own, rows, given: comparisons_of(own, rows, given, train, progress),
    )
    return found if x is None else with_findings(found, data_findings(x))


def examined(
    flow: object,
    x: Tensor | None = None,
    context: Tensor | None = None,
    *,
    make: Callable[[], object] | None = None,
    log_density: LogDensity | None = None,
    progress: Progress = quietly,
    compare: Compare | None = None,
    names: Callable[[int], str] | None = None,
) -> Diagnosis:
    """Returns what `doctor` says of a flow, without a look at the points as data.

    Args:
        flow: As for `doctor`.
        x: As for `doctor`.
        context: As for `doctor`.
        make: As for `doctor`.
        log_density: As for `doctor`.
        progress: As for `doctor`.
        compare: Compares the flow with references at the rows; None for no comparison.
        names: Names a row in a message, by its index; None for "row" and the index.

    Returns:
        The findings on the flow alone.

    Raises:
        ArgumentError: As for `doctor`.
    """  # noqa: DOC502 - raised by the calls below
    with torch.random.fork_rng(devices=[]), to_examine(flow, x, context) as own:
        if log_density is not None:
            check_target(own, log_density)
        plain = x
        if x is None:
            context = checked_context(own, context)
        else:
            x, context = checked_points(own, x, context)
        with measuring(own), _said_in_a_sentence(own, context):
            measured = _measure(own, x, context, make, log_density, progress)
            if compare is not None and plain is not None:
                measured = dataclasses.replace(
                    measured, comparisons=compare(own, plain.detach(), context)
                )
            measured = dataclasses.replace(measured, names=names)
        findings = [finding for rule in RULES for finding in rule(measured)]
    figures = _figures(measured)
    figures["rows"] = 0 if x is None else len(x)
    figures["checked"] = ", ".join(checks_of(measured))
    whole = _diagnosis(findings, figures, measured.profile)
    return dataclasses.replace(whole, tables=tables_of(measured))


@contextmanager
def _said_in_a_sentence(flow: Flow, context: Tensor | None) -> Iterator[None]:
    """Makes what another library raises one sentence; our own errors are one already."""
    try:
        yield
    except KappaflowError:
        raise
    except Exception as error:
        if not isinstance(flow, Wrapped):
            raise
        hint = (
            "if it is conditional, give its 'context'"
            if context is None
            else "if it is not conditional, leave 'context' out"
        )
        first = (str(error).splitlines() or [""])[0]
        raised = type(error).__name__ + (f" ({first})" if first else "")
        raise ArgumentError(
            f"the flow of {flow.library} cannot be examined, it raised {raised}: {hint}."
        ) from error


def with_findings(
    diagnosis: Diagnosis, more: Iterable[Finding], checked: Sequence[str] = ()
) -> Diagnosis:
    """Returns a diagnosis with findings from elsewhere, and the verdict that follows from all.

    Args:
        diagnosis: The diagnosis.
        more: The findings.
        checked: The names of the checks that they come from.

    Returns:
        The diagnosis of both.
    """
    if checked:
        names = f"{diagnosis.measured['checked']}, {', '.join(checked)}"
        diagnosis = dataclasses.replace(
            diagnosis, measured={**diagnosis.measured, "checked": names}
        )
    return _of_findings(diagnosis, [*diagnosis.findings, *more])


def chosen(
    diagnosis: Diagnosis, select: Sequence[str] = (), ignore: Sequence[str] = ()
) -> Diagnosis:
    """Returns a diagnosis with some of its findings, and the verdict that follows from these.

    Args:
        diagnosis: Of all.
        select: Codes or beginnings of them, such as "KF2"; all if empty.
        ignore: The same, left out.

    Returns:
        The diagnosis.

    Raises:
        ArgumentError: One is the code of no finding.
    """
    check_codes(select, ignore)
    findings = [one for one in diagnosis.findings if is_chosen(one.code, select, ignore)]
    return _of_findings(diagnosis, findings)


def _of_findings(diagnosis: Diagnosis, findings: list[Finding]) -> Diagnosis:
    """Returns a diagnosis with other findings."""
    other = _diagnosis(findings, diagnosis.measured, diagnosis.profile)
    return dataclasses.replace(other, tables=diagnosis.tables)


def _diagnosis(
    findings: list[Finding],
    figures: dict[str, float | int | str | None],
    profile: Profile | None,
) -> Diagnosis:
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(tuple(ordered), _verdict(figures, ordered), figures, profile)


def _measure(
    flow: Flow,
    x: Tensor | None,
    context: Tensor | None,
    make: Callable[[], object] | None,
    log_density: LogDensity | None,
    progress: Progress,
) -> Measured:
    most = _points_of(flow)
    few = None if context is None else context[:most]
    progress("drawing samples")
    z = latent_points(flow, most if few is None else len(few), few)
    at = flow.bijection.inverse(z, few)[0] if x is None else x[:most]
    progress("what calls change")
    state = state_of(flow, at, few, make)  # the first calls, where points are given
    drawn = flow.bijection.inverse(z, few)[0]
    at = drawn if x is None else at
    wide = another(flow, at, few, torch.float64)
    over_depth = functools.partial(_over_depth, progress)
    shape = profile_at(flow, at, few, wide=wide, progress=over_depth)
    points, latents = flow.units(at)[0], latent_points(flow, len(at), few)
    layers = layers_of(flow.core, few)
    progress("log_prob by all ways")
    log_prob = flow.joined_log_prob(at, few)
    paths = paths_at(flow, at, few, log_prob)
    drawn_log_prob = flow.joined_log_prob(drawn, few)
    progress("log_dets beside the Jacobian")
    log_dets = log_dets_at(flow, at, few, shape, wide)
    progress("latents that are far out")
    tails = tails_of(flow, len(at), few)
    progress("the integral of the density")
    integral = integral_of(flow, drawn, few)
    progress("the gradient beside differences")
    gradient = gradient_of(flow, at, few, wide)  # moves the weights of the copy
    progress("the law of samples")
    draws = draws_of(flow, few)
    if log_density is not None:
        progress("the energy, at draws and where none is")
    energy = None if log_density is None else energy_of(flow, log_density, x)
    progress("contexts, float types, points far out")
    return Measured(
        flow=flow,
        profile=shape,
        norm_data=points.flatten(1).double().norm(dim=1),
        norm_latent=latents.flatten(1).double().norm(dim=1),
        dimensions=points[0].numel(),
        log_spread=math.nan if x is None else _log_spread(flow, x),
        log_prob=log_prob,
        paths=paths,
        log_dets=log_dets,
        tails=tails,
        integral=integral,
        state=state,
        gradient=gradient,
        draws=draws,
        contexts=contexts_of(flow, at if x is None else x, context),
        precision=precision_of(flow, at, few),
        outliers=None if x is None else outliers_of(flow, x, context, shape),
        energy=energy,
        drawn=drawn,
        drawn_log_prob=drawn_log_prob,
        given=x is not None,
        fault_from_data=first_not_finite(layers, points),
        fault_from_latent=first_not_finite(layers, latents, from_latent=True),
    )


def _points_of(flow: Flow) -> int:
    """Returns at how many points a flow is measured."""
    n = math.prod(flow.joint_shape)
    return POINTS if n <= DENSE_UP_TO else LARGE_POINTS if n <= HUGE else HUGE_POINTS


def _over_depth(progress: Progress, layer: str) -> None:
    progress(f"conditioning over depth, {layer}")


def _log_spread(flow: Flow, x: Tensor) -> float:
    """Returns the mean logarithm of the columns' deviations, nan for too few points."""
    points = flow.units(x)[0].flatten(1).double()
    if len(points) < SPREAD_OF:
        return math.nan
    return points.std(dim=0).clamp_min(torch.finfo(torch.float64).tiny).log().mean().item()


def _figures(m: Measured) -> dict[str, float | int | str | None]:
    condition = m.profile.condition_number[-1]
    dtype = str(m.flow.dtype).removeprefix("torch.")
    return {
        "points": m.profile.sigma_max.shape[1],
        "layers": len(m.profile.layers),
        "dtype": dtype,
        "precision": usable_in(m.profile, dtype),
        "condition_number_median": condition.quantile(0.5).item(),
        "condition_number_p95": condition.quantile(0.95).item(),
        "condition_number_max": condition.max().item(),
        "round_trip_data_max": m.profile.round_trip_data[0].max().item(),
        "round_trip_latent_max": m.profile.round_trip_latent[-1].max().item(),
        "predicted_round_trip_max": m.profile.predicted_round_trip.max().item(),
        "worst_layer": m.profile.layers[m.profile.worst_layer],
        "status": m.profile.status,
    }


def _verdict(figures: dict[str, float | int | str | None], findings: list[Finding]) -> str:
    """Returns whether to believe the flow, and the figures behind that, in two sentences."""
    severe = [finding for finding in findings if finding.severity != "note"]
    if any(finding.severity == "error" for finding in severe):
        opening = f"Do not believe this flow yet: {_messages(severe)}"
    elif severe:
        opening = f"Believe this flow with care: {_messages(severe)}"
    else:
        opening = _nothing_found(figures)
    numbers = [value for value in figures.values() if isinstance(value, float)]
    if not all(map(math.isfinite, numbers)):
        return opening
    return (
        f"{opening} Its condition number is {figures['condition_number_median']:.3g} in the "
        f"median and {figures['condition_number_max']:.3g} at worst; round trips miss by at most "
        f"{figures['round_trip_data_max']:.1e} on the data and "
        f"{figures['round_trip_latent_max']:.1e} on draws of the base, in standardised units."
    )


def _messages(severe: list[Finding]) -> str:
    """Returns the first message, and those on data, likelihood and training that follow."""
    others = [one.message for one in severe[1:] if one.code.startswith(IN_THE_VERDICT)]
    more = len(others) - MOST_IN_THE_VERDICT
    shown = [_continued(severe[0].message), *others[:MOST_IN_THE_VERDICT]]
    return " ".join([*shown, f"And {more} more of the kind."] if more > 0 else shown)


def _nothing_found(figures: dict[str, float | int | str | None]) -> str:
    """Returns what was checked and on how many rows, where nothing was found."""
    points, rows = figures["points"], figures["rows"]
    where = f"{points} of {rows:,} rows" if rows else f"{points} samples of the flow"
    if rows == points:
        where = f"{rows} rows"
    return (
        f"Nothing found that speaks against this flow, at {where} in {figures['dtype']}. Checked: "
        f"{figures['checked']}."
    )


def _continued(message: str) -> str:
    """Returns a message as the second half of a sentence."""
    return message[:1].lower() + message[1:]
