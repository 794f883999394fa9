"""KF203: the log_det of each direction, compared with the Jacobian."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.conditioning import TRUSTED, Profile
from kappaflow.conditioning.spectrum import DENSE_UP_TO, all_of_both
from kappaflow.diagnosis.advice import loses_digits
from kappaflow.diagnosis.check import Symptom, check, measurement, table
from kappaflow.diagnosis.checks.layer_log_dets import TOLERATED, layer_log_dets
from kappaflow.diagnosis.checks.state import state
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.diagnosis.result import Columns
from kappaflow.diagnosis.tensors import ROUNDED, columns, quantiles
from kappaflow.finding import Evidence
from kappaflow.flows import Flow

SAFETY = 10.0  # tolerance in units of rounding, as in kappaflow.testing; correct flows need 5
SMALLEST = 1e-12  # nats: the last digits of float64, which differ between processors
SUMMED = 1e2  # roundings of a sum over features that nobody notices
SOLVED = 1e2  # error of a log_det in units of the tolerance of a solver
SPECTRA = 16  # number of points with all singular values
NUDGES = 2  # number of random roundings of the argument, to measure their effect on a log_det
VISIBLE = 1e-5  # error in nats from which the log_dets are computed in float64 too
TABLE_VALUES = 64  # largest number of singular values in a table
DIRECTIONS = {"forward": "the forward direction", "inverse": "the inverse"}


class LogDets(NamedTuple):
    """The log-determinants of a flow at the points, in nats and as float64 tensors, (n,)."""

    forward: Tensor  # log_det that `forward` returns
    inverse: Tensor  # log_det that `inverse` returns at the latent of the point
    true: Tensor | None  # log|det| of the dense Jacobian; None if there are too many dimensions
    size: Tensor  # the square root of the number of layers, plus a bound on the sum of |log s|
    units: Tensor  # the share of `forward` that belongs to the standardization
    forward_moves: Tensor  # change of `forward` when the points are rounded
    inverse_moves: Tensor  # change of `inverse` when the latents are rounded
    singular_values: Tensor | None  # of the core at some points, descending, (b, n)
    errors_in_float64: dict[str, float] | None = None  # of both directions, if one is visible

    @property
    def errors(self) -> dict[str, Tensor]:
        """Differences from the Jacobian by direction; empty if it is not known."""
        if self.true is None:
            return {}
        return {"forward": self.forward - self.true, "inverse": self.inverse + self.true}


@measurement("log_dets and the Jacobian")
def log_dets(m: Measurements) -> LogDets:
    """Measures the log_dets of both directions, and that of the dense Jacobian if possible."""
    measure = functools.partial(_measure, profile=m.profile)
    result = measure(m.flow, m.points, m.context)
    if not any((error.abs() > VISIBLE).any() for error in result.errors.values()):
        return result
    in_copy = m.in_float64(measure, m.points, m.context)
    if in_copy is None or in_copy.true is None:
        return result
    errors = {name: error.abs().nan_to_num(torch.inf) for name, error in in_copy.errors.items()}
    worst = {name: error.max().item() for name, error in errors.items()}
    return result._replace(errors_in_float64=worst)


@table("log_dets")
def log_det_table(m: Measurements) -> Columns:
    """Returns the log_dets at the points; the inverse's has its sign changed."""
    result = log_dets(m)
    true = {} if result.true is None else {"jacobian": result.true}
    return columns(**true, forward=result.forward, inverse=-result.inverse)


@table("singular_values")
def singular_value_table(m: Measurements) -> Columns:
    """Returns quantiles over the points of singular values, largest first; few of many."""
    values = log_dets(m).singular_values
    if values is None:
        return {}
    count = values.shape[1]
    kept = torch.linspace(0, count - 1, min(TABLE_VALUES, count)).round().long()
    return {"number": (kept + 1).tolist(), **quantiles(values[:, kept.to(values.device)].T)}


@check(
    "KF203",
    "a log_det does not match the Jacobian",
    cause="The log_det has the wrong sign, lacks a term, or averages where it should sum.",
    fix="Compare the log_det of each layer with its Jacobian (kappaflow.testing.check_bijection).",
)
def log_det_wrong(m: Measurements) -> Iterator[Symptom]:
    """Up to 500 dimensions, the doctor compares each log_det with the Jacobian; above, it
    compares the two directions, and the log_det of each layer with an estimate of log|det| of its
    Jacobian (Hutchinson 1990). Layers are also compared after a small change of the parameters,
    since a wrong log_det of a layer that starts as the identity shows only then: a warning. If a
    float64 copy removes 99.9 % of the error, the formula is right but loses digits: a warning.

    Example:
        flow = (
            lambda x: (2 * x, torch.full((len(x),), 0.6931)),  # of one feature; there are two
            lambda z: (z / 2, torch.full((len(z),), -1.3863)),
        )
        x = torch.randn(64, 2)
    """
    off = {which: error for which, error in _errors(m).items() if error is not None}
    if not off:
        yield from _wrong_in_a_layer(m)
        return
    worst, tolerance = max(off.values())
    layer = next((error.layer for error in layer_log_dets(m) if not error.moved), None)
    if "sum" in off:
        message = f"The log_dets of the two directions add up to {worst:.2g} nats instead of 0."
    else:
        blamed = DIRECTIONS[next(iter(off))] if len(off) == 1 else "both directions"
        message = (
            f"The log_det of {blamed} differs from log|det| of the Jacobian by up to "
            f"{worst:.2g} nats."
        )
    in_copy = log_dets(m).errors_in_float64
    rest = math.inf if in_copy is None else max(in_copy[which] for which in off)
    evidence: Evidence = {"worst_nats": worst, "tolerance_nats": tolerance}
    if rest >= ROUNDED * worst:
        yield Symptom(message, evidence, layer)
        return
    evidence["worst_nats_in_float64"] = rest
    message = f"{message[:-1]}, and in float64 by {rest:.1g}."
    yield loses_digits(m.flow, Symptom(message, evidence, layer))


def _wrong_in_a_layer(m: Measurements) -> Iterator[Symptom]:
    """Yields a symptom for a layer with a wrong log_det that the whole flow does not show."""
    measured = (m.log_prob, m.latent_errors, m.data_errors)
    if not all(torch.isfinite(values).all() for values in measured):
        return
    for error in [] if state(m).stale else layer_log_dets(m):
        direction = DIRECTIONS["inverse" if error.inverse else "forward"]
        known = f" ± {error.standard_error:.1g}" if error.standard_error else ""
        when = "After a small change of the parameters, the" if error.moved else "The"
        yield Symptom(
            f"{when} log_det of {direction} differs from log|det| of the layer's Jacobian by "
            f"{abs(error.error):.2g}{known} nats.",
            {"worst_nats": abs(error.error), "standard_error": error.standard_error},
            layer=error.layer,
            severity="warning" if error.moved else "error",
        )


def solver_tolerance(flow: Flow) -> float:
    """Returns the largest tolerance of a solver of differential equations; 0 without one."""
    names = ("atol", "rtol")
    values = [getattr(module, name, None) for module in flow.modules() for name in names]
    return max((value for value in values if isinstance(value, float)), default=0.0)


def _errors(m: Measurements) -> dict[str, tuple[float, float] | None]:
    """Returns the worst error above its tolerance and that tolerance, for each comparison.

    The tolerance is the one of `kappaflow.testing`, 10 eps kappa (1 + sum |log s|), with two
    changes: the square root of the number of layers replaces 1, since each layer rounds, and kappa
    is the worst condition number over the depth. The inverse is called at a latent, so its log_det
    may also differ by the reconstruction error. A log_det that changes quickly (splines near a
    knot) may differ by the effect of rounding its argument. The log_det of a continuous flow is as
    exact as the tolerance of its solver. Nothing below `SMALLEST` or a hundred roundings is an
    error.
    """
    result, missed = log_dets(m), m.data_errors
    lost = m.profile.eps * m.profile.condition_number.amax(dim=0)
    least = SUMMED * m.profile.eps * (1 + math.prod(m.flow.joint_shape) ** 0.5)
    least += SOLVED * solver_tolerance(m.flow)
    forward_limit = SAFETY * (lost * result.size + result.forward_moves) + least
    inverse_limit = (
        SAFETY * (torch.maximum(lost, missed) * result.size + result.inverse_moves) + least
    )
    usable = lost < TRUSTED
    returned = usable & (missed <= TOLERATED)
    if result.true is None:
        return {"sum": _worst_above(result.forward + result.inverse, inverse_limit, returned)}
    known = torch.isfinite(result.true)
    return {
        "forward": _worst_above(result.errors["forward"], forward_limit, usable & known),
        "inverse": _worst_above(result.errors["inverse"], inverse_limit, returned & known),
    }


def _worst_above(error: Tensor, tolerance: Tensor, usable: Tensor) -> tuple[float, float] | None:
    """Returns the largest error above its tolerance among the usable points, and the tolerance."""
    error = error.abs().nan_to_num(torch.inf)
    above = usable & (error > tolerance.clamp_min(SMALLEST))
    if not above.any():
        return None
    row = int((error * above).nan_to_num(0).argmax())
    return error[row].item(), tolerance[row].item()


def _measure(flow: Flow, x: Tensor, context: Tensor | None, profile: Profile) -> LogDets:
    """Returns the log_dets in the dtype of the flow.

    A standardization treats each feature separately, so one product with ones gives its whole
    Jacobian. Very different scales then cost each other no digits.
    """
    points, units = flow.standardization(x)
    z, core_forward = flow.core(points, context)
    core_inverse = flow.core.inverse(z, context)[1]
    forward, inverse = core_forward + units, core_inverse + flow.standardization.inverse(points)[1]
    scales = flow.standardization.linearize(x).jv(torch.ones_like(x)[None])[0].flatten(1)
    log_scales = scales.double().abs().log()
    true = values = None
    if points[0].numel() <= DENSE_UP_TO:
        matrices = flow.core.linearize(points, context).matrix(points)
        few = flow.core.linearize(points[:SPECTRA], None if context is None else context[:SPECTRA])
        values = all_of_both(*few.matrices(points[:SPECTRA]))
        finite = torch.isfinite(matrices).all(dim=(1, 2))
        true = torch.full_like(forward, torch.nan, dtype=torch.float64)
        true[finite] = torch.linalg.slogdet(matrices[finite])[1] + log_scales.sum(1)[finite]
    # Horn: sum |log s| of a product is at most the total of sum |log s| over its factors. The
    # rounding errors of the layers add up like a random walk.
    stretch = torch.maximum(
        profile.layer_sigma_max.log().abs(), profile.layer_sigma_min.log().abs()
    )
    layers = math.sqrt(len(stretch)) + points[0].numel() * stretch.sum(0)
    return LogDets(
        forward=forward.double(),
        inverse=inverse.double(),
        true=true,
        size=layers + log_scales.abs().sum(1),
        units=units.double(),
        forward_moves=_moves(lambda at: flow.core(at, context)[1], points, core_forward),
        inverse_moves=_moves(lambda at: flow.core.inverse(at, context)[1], z, core_inverse),
        singular_values=values,
    )


def _moves(log_det: Callable[[Tensor], Tensor], at: Tensor, value: Tensor) -> Tensor:
    """Returns how much a log_det changes when its argument is rounded, (n,) in float64."""
    generator = torch.Generator().manual_seed(0)
    eps, most = torch.finfo(at.dtype).eps, torch.zeros_like(value, dtype=torch.float64)
    for _ in range(NUDGES):
        signs = torch.randint(0, 2, at.shape, generator=generator).to(at) * 2 - 1
        moved = (log_det(at * (1 + eps * signs)) - value).double().abs()
        most = torch.maximum(most, moved.nan_to_num(0, posinf=0))
    return most
