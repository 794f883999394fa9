"""Measures the conditioning of a flow over depth, for each layer and cumulatively."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kappaflow.bijection import linearize_parts
from kappaflow.conditioning.points import (
    Layer,
    checked_flow,
    checked_points,
    in_float64,
    layers_of,
    measuring,
)
from kappaflow.conditioning.quantiles import ProfileQuantiles, Quantiles, quantiles_by_layer
from kappaflow.conditioning.round_trip import (
    distance,
    latent_points,
    median_and_most,
    predicted_round_trip,
    reconstruction_errors,
    states_of,
)
from kappaflow.conditioning.spectrum import MATRIX_FREE_ABOVE, Status, extremes_by_lanczos, largest
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.flows.rows import Data
from kappaflow.linearization import ChainLinearization, Linearization
from kappaflow.summary import Facts, PlottedSummary, sparkline

# Above 128 dimensions, matrices are formed if points times dimensions^3, for each layer, is at
# most this; otherwise Lanczos iterations are faster. `python -m benchmarks image-spectra` times
# both.
DENSE_WORK = 7e6
# Relative residuals at which Lanczos iterations stop: for single layers and the whole flow, and
# for the cumulative values in between. Errors are about the squares of these.
TOLERANCE, TOLERANCE_BETWEEN = 1e-3, 1e-2
Progress = Callable[[str], None]
Pair = tuple[Tensor, Tensor]  # (L, B) each
Extremes = tuple[Pair, Pair, Status]


@dataclass(frozen=True, repr=False)
class Profile(PlottedSummary):
    """Singular values, log_det and reconstruction errors over the L layers of a flow, at B points.

    All tensors are float64. Quantities named `layer_...` belong to one layer alone, at the input
    that the layer receives. The others are cumulative, from the standardized data to the output of
    layer l. Singular values are measured on a float64 copy of the flow if it can be copied.
    Lanczos iterations use the copy only if eps times a condition number is above a thousandth.
    Log-dets and reconstruction errors are measured in the flow's own dtype.

    Attributes:
        layers: Names of the layers, data side first.
        layer_sigma_max: Largest singular value of each layer, (L, B).
        layer_sigma_min: Smallest singular value of each layer, (L, B).
        layer_log_det: log|det| of each layer in nats, (L, B).
        layer_round_trip: |f_l^-1(f_l(h)) - h| of each layer alone, (L, B).
        sigma_max: Largest singular value, cumulative, (L, B).
        sigma_min: Smallest singular value, cumulative, from the inverse maps, (L, B).
        round_trip_data: Reconstruction error of the input of each layer, data to latent to data,
            (L, B). Row 0 is the error of the whole flow.
        round_trip_latent: Reconstruction error of the output of each layer, latent to data to
            latent, for samples of the base, (L, B). Row L - 1 is the error of the whole flow.
        predicted_round_trip: eps * condition number * |x| of the whole flow, (B,).
        eps: Spacing of the flow's floating-point type.
        status: How the singular values were computed, as in `Spectrum`.
    """

    layers: tuple[str, ...]
    layer_sigma_max: Tensor
    layer_sigma_min: Tensor
    layer_log_det: Tensor
    layer_round_trip: Tensor
    sigma_max: Tensor
    sigma_min: Tensor
    round_trip_data: Tensor
    round_trip_latent: Tensor
    predicted_round_trip: Tensor
    eps: float
    status: Status

    @property
    def layer_condition_number(self) -> Tensor:
        """Condition number of each layer alone, (L, B)."""
        return self.layer_sigma_max / self.layer_sigma_min

    @property
    def condition_number(self) -> Tensor:
        """Cumulative condition number, (L, B); the last row belongs to the whole flow."""
        return self.sigma_max / self.sigma_min

    @property
    def log_det(self) -> Tensor:
        """Cumulative log|det| in nats, (L, B)."""
        return self.layer_log_det.cumsum(0)

    @property
    def worst_layer(self) -> int:
        """Index of the worst-conditioned single layer, by the median over the points."""
        return int(self.layer_condition_number.nan_to_num(torch.inf).median(dim=1).values.argmax())

    def _facts(self) -> Facts:
        median = self.condition_number.quantile(0.5, dim=1).tolist()
        worst, layers = self.worst_layer, len(self.layers)
        condition = self.layer_condition_number[worst].quantile(0.5).item()
        return [
            ("measured", f"{layers} layers at {self.sigma_max.shape[1]} rows, {self.status}"),
            ("condition number", median_and_most(self.condition_number[-1])),
            ("over depth", f"{median[0]:.3g} {sparkline(median, 40, log=True)} {median[-1]:.3g}"),
            ("worst layer", f"{self.layers[worst]}, {condition:.3g} alone"),
            ("round trip from data", median_and_most(self.round_trip_data[0])),
            ("round trip from latent", median_and_most(self.round_trip_latent[-1])),
        ]

    def quantiles(self) -> ProfileQuantiles:
        """Returns the quantiles over the points, for each layer."""
        quantities = {
            name: quantiles_by_layer(getattr(self, name))
            for name, entry in ProfileQuantiles.model_fields.items()
            if entry.annotation is Quantiles
        }
        predicted = quantiles_by_layer(self.predicted_round_trip[None])
        return ProfileQuantiles.model_validate({
            "layers": list(self.layers),
            "points": self.sigma_max.shape[1],
            "eps": self.eps,
            "status": self.status,
            "worst_layer": self.worst_layer,
            "predicted_round_trip": {name: values[0] for name, values in predicted.items()},
            **quantities,
        })

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers for JSON: quantiles over the points, for each layer."""
        return self.quantiles().model_dump()


def profile(
    flow: Flow,
    x: Data,
    *,
    context: Data = None,
    generator: torch.Generator | None = None,
) -> Profile:
    """Measures the conditioning of a flow over its depth, at points x.

    Standardization is left out, so that the scale of the data does not count as ill-conditioning.

    Args:
        flow: The flow to measure; its state and mode do not change.
        x: Points, (B, *event), in any form that `Flow.log_prob` accepts; a few dozen are enough.
        context: Context of each point, (B, C), for a conditional flow.
        generator: Random generator for the latent samples; seed 0 by default.

    Returns:
        The profile. Above 128 dimensions (a few hundred for deep flows at few points), singular
        values come from Lanczos iterations, whose time grows with the square of the depth. Their
        relative residuals are at most a thousandth for single layers and for the whole flow, and a
        hundredth for the cumulative values in between.

    Raises:
        ArgumentError: x or context does not fit the flow, or the flow has no layer to measure.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(4, depth=2, hidden=(8,))
        >>> kf.profile(flow, torch.zeros(3, 4)).condition_number[-1]
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    x, context = checked_points(checked_flow(flow), x, context)
    return profile_at(flow, x, context, generator)


def profile_at(
    flow: Flow,
    x: Tensor,
    context: Tensor | None,
    generator: torch.Generator | None = None,
    *,
    flow64: Flow | None = None,
    progress: Progress = lambda text: None,
    max_depths: int | None = None,
    tolerance: float = TOLERANCE,
) -> Profile:
    """Returns the same as `profile`, for points that are already validated."""
    # `flow64` is a float64 copy of the flow. Lanczos iterations with a relative residual
    # `tolerance` search the cumulative values at `max_depths` depths; None for all. Values in
    # between are interpolated.

    def measure(flow: Flow, x: Tensor, context: Tensor | None) -> Extremes:
        x = flow.standardization(x)[0]
        layers = layers_of(flow.core, context)
        parts = linearize_parts(((layer.bijection, layer.context) for layer in layers), x)
        if _forms_matrices(x, len(parts)):
            return _dense_extremes(parts, x, progress)
        return _lanczos_extremes(parts, x, progress, max_depths, tolerance)

    with measuring(flow):
        layers = layers_of(flow.core, context)
        if not layers:
            raise ArgumentError("'flow' should have a layer after its standardization to measure.")
        raw_x, x = x, flow.standardization(x)[0]
        extremes = None if _forms_matrices(x, len(layers)) else measure(flow, raw_x, context)
        if extremes is None or _is_lost(extremes, x.dtype):
            extremes = in_float64(measure, flow, raw_x, context, module64=flow64)
        per_layer, cumulative, status = extremes
        states, log_dets = states_of(layers, x)
        start = latent_points(flow, len(x), context, generator)
        latents = states_of(layers, start, decode=True)[0]
        return Profile(
            layers=tuple(layer.name for layer in layers),
            layer_sigma_max=per_layer[0],
            layer_sigma_min=per_layer[1],
            layer_log_det=torch.stack([log_det.double() for log_det in log_dets]),
            layer_round_trip=_round_trips(layers, states),
            sigma_max=cumulative[0],
            sigma_min=cumulative[1],
            round_trip_data=reconstruction_errors(layers, states)[:-1],
            round_trip_latent=reconstruction_errors(layers, latents, from_latent=True)[:-1].flip(
                0
            ),
            predicted_round_trip=predicted_round_trip(cumulative[0][-1] / cumulative[1][-1], x),
            eps=torch.finfo(flow.dtype).eps,
            status=status,
        )


def _with_progress(
    parts: list[Linearization], progress: Progress
) -> Iterator[tuple[int, Linearization]]:
    """Yields the layers with their numbers, from 1, and reports each to `progress`."""
    for number, part in enumerate(parts, start=1):
        progress(f"layer {number} of {len(parts)}")
        yield number, part


def _forms_matrices(x: Tensor, layers: int) -> bool:
    """Returns whether dense (n, n) Jacobians are faster than Lanczos iterations."""
    n = x.shape[1:].numel()
    return n <= MATRIX_FREE_ABOVE or len(x) * n**3 <= DENSE_WORK * layers


def _is_lost(extremes: Extremes, dtype: torch.dtype) -> bool:
    # Whether rounding may change singular values by a thousandth.
    worst = max((top / bottom).nan_to_num(torch.inf).max().item() for top, bottom in extremes[:2])
    return dtype != torch.float64 and not torch.finfo(dtype).eps * worst < TOLERANCE


def _round_trips(layers: Sequence[Layer], states: Sequence[Tensor]) -> Tensor:
    """Returns the reconstruction error of each layer alone, (L, B)."""
    return torch.stack([
        distance(layer.decode(z)[0], x)
        for layer, (x, z) in zip(layers, itertools.pairwise(states), strict=True)
    ])


def _dense_extremes(parts: list[Linearization], x: Tensor, progress: Progress) -> Extremes:
    """Returns (sigma_max, sigma_min) per layer and cumulatively, from dense Jacobians."""
    # The cumulative inverse is the product of the layers' inverses: sigma_min never comes from the
    # forward Jacobian.
    per_layer, cumulative = [], []
    forward = backward = None
    for _, part in _with_progress(parts, progress):
        jacobian, inverse = part.matrices(x)
        forward = jacobian if forward is None else jacobian @ forward
        backward = inverse if backward is None else backward @ inverse
        x = part.value
        extremes = largest(torch.cat((jacobian, inverse, forward, backward)))[:, 0].chunk(4)
        per_layer.append((extremes[0], 1 / extremes[1]))
        cumulative.append((extremes[2], 1 / extremes[3]))
    status: Status = (
        "exact"
        if all(torch.isfinite(s).all() for pair in cumulative for s in pair)
        else "not finite"
    )
    return _stacked(per_layer), _stacked(cumulative), status


def _lanczos_extremes(
    parts: list[Linearization],
    x: Tensor,
    progress: Progress,
    max_depths: int | None,
    tolerance: float,
) -> Extremes:
    """Returns (sigma_max, sigma_min) per layer and cumulatively, by Lanczos iterations."""
    # One more layer hardly changes the extreme directions, so each cumulative search starts from
    # the result of the previous one. Only the search for the whole flow is independent.
    per_layer, cumulative, statuses, state = [], [], set(), x
    start, layers = None, len(parts)
    count = layers if max_depths is None else min(max_depths, layers)
    depths = [round((i + 1) * layers / count) for i in range(count)]
    for number, part in _with_progress(parts, progress):
        is_whole = number == layers
        layer_result = extremes_by_lanczos(part, state, tolerance=tolerance)
        results, state = [(per_layer, layer_result)], part.value
        if number in depths:
            cumulative_result = extremes_by_lanczos(
                ChainLinearization(parts[:number], part.value, part.log_det),
                x,
                tolerance=tolerance if is_whole else max(tolerance, TOLERANCE_BETWEEN),
                near=None if is_whole else start,
            )
            results.append((cumulative, cumulative_result))
            start = cumulative_result.directions
        for extremes, result in results:
            extremes.append((result.top[:, 0], result.bottom[:, 0]))
            statuses.add(result.status)
    order: tuple[Status, ...] = ("not finite", "not converged", "converged")
    layer_extremes = _stacked(per_layer)
    interpolated = _interpolated(_stacked(cumulative), depths, layer_extremes)
    return layer_extremes, interpolated, next(status for status in order if status in statuses)


def _interpolated(measured: Pair, depths: list[int], per_layer: Pair) -> Pair:
    """Returns cumulative singular values at all depths, (L, B), from those at some, (K, B)."""
    if len(depths) == len(per_layer[0]):
        return measured
    weights = (per_layer[0] / per_layer[1]).log() + torch.finfo(torch.float64).eps
    top, bottom = (
        torch.cat([
            _between(logs[i - 1] if i else torch.zeros_like(logs[0]), logs[i], part)
            for i, part in enumerate(weights.split(_steps(depths)))
        ]).exp()
        for logs in (extremes.log() for extremes in measured)
    )
    return top, bottom


def _steps(depths: list[int]) -> list[int]:
    return [depth - before for depth, before in zip(depths, [0, *depths], strict=False)]


def _between(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    return start + (end - start) * weights.cumsum(0) / weights.sum(0)


def _stacked(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([top for top, _ in pairs]), torch.stack([bottom for _, bottom in pairs])
