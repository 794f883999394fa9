"""Bijections from bounded or circular columns to the real line."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kappaflow._checks import feature_batch, positive_float, positive_int
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.bijections import edges
from kappaflow.bijections.edges import LOGARITHM, QUANTILE, Curve
from kappaflow.domains import Bound, Interval, intervals
from kappaflow.errors import ArgumentError
from kappaflow.linearization import ElementwiseLinearization, Linearization
from kappaflow.nets.inputs import flag_text, moments
from kappaflow.partition import index_on
from kappaflow.registry import register

LineFunction = Callable[[Tensor, Tensor, Tensor, Curve], Tensor]  # also of the ends


class LineMap(NamedTuple):
    """The map of a kind of column to the line."""

    encode: LineFunction
    decode: LineFunction
    log_slope: LineFunction  # log dz/dx, from z


LINE_MAPS = {
    "real": LineMap(
        lambda x, low, high, curve: x,
        lambda z, low, high, curve: z,
        lambda z, low, high, curve: torch.zeros_like(z),
    ),
    "half-line": LineMap(
        edges.encode_half_line, edges.decode_half_line, edges.half_line_log_slope
    ),
    "interval": LineMap(edges.encode_interval, edges.decode_interval, edges.interval_log_slope),
}


def _rescaled_circle(half_length: float) -> LineMap:
    """Returns the map of a circle to the one from -half_length to half_length."""

    def decode(z: Tensor, low: Tensor, high: Tensor, curve: Curve) -> Tensor:
        half = (high - low) / 2
        x = (low + high) / 2 + wrapped(z * (half / half_length), half)
        return torch.where(x >= high, low, x)  # the ends are the same point

    return LineMap(
        lambda x, low, high, curve: (x - (low + high) / 2) * (2 * half_length / (high - low)),
        decode,
        lambda z, low, high, curve: torch.zeros_like(z) + (2 * half_length / (high - low)).log(),
    )


@register("Domain")
class Domain(Bijection):
    r"""Maps each bounded feature to the real line; circles stay circles, others are unchanged.

    With two ends, z is the normal score of a distribution fitted to the rows,
    :math:`z = \Phi^{-1}(F((x - a) / (b - a)))`. With one end it is about that, or the logarithm of
    the distance to the end, whichever is likelier. The repr lists the fitted curves. Before a fit
    F is uniform, z = log(x - a) above a lower end and z = -log(b - x) below an upper one. All maps
    are increasing. A circle is rescaled to length 2 `circle` and centered at 0; a flow then ends
    with a `CircleToLine`.

    Args:
        bounds: The domain of each feature: "positive", "circular" (from -pi to pi),
            "circular:0,360", "0,1" or (0, 1), "2," or (2, None) for above 2, ",5" for below 5, or
            None for no domain.
        circle: Half the length to which circles are rescaled; required if there are any.

    Raises:
        ArgumentError: No feature has a domain, or a bound is not a valid domain.

    Note:
        Values near an end are exact up to rounding, and log_det is computed from z. Outside a
        domain the value is nan, and exactly at an end it is infinite. `inverse` always returns
        values inside the domain: a result that rounds to an end or to infinity is replaced by the
        nearest number of the dtype inside. (A circle includes its lower end.) `forward` does not
        map such a replaced value back to the same z.

    Source:
        Logarithms: Box, Cox 1964. Between two ends F is that of Kumaraswamy 1980; beyond one end
        it generalizes the distributions of Weibull 1951 and Burr 1942. The scores are ours: the
        tails of a logit would be heavier than those of the base.

    Example:
        >>> domain = Domain(["positive", (0, 1), None])
        >>> z, log_det = domain(torch.tensor([[1.0, 0.5, 7.0]]))
        >>> z, round(log_det.item(), 4)
        (tensor([[0., 0., 7.]]), 0.9189)
    """

    is_standardization = True

    def __init__(self, bounds: Sequence[Bound], *, circle: float | None = None) -> None:
        super().__init__()
        self.features = len(bounds)
        self.domains = intervals(bounds, self.features)
        if not any(self.domains):
            raise ArgumentError(f"'bounds' should hold a domain, got {bounds!r}.")
        self._kinds: dict[str, list[int]] = {}
        for index, domain in enumerate(self.domains):
            self._kinds.setdefault(_kind(domain), []).append(index)
        self.circle = positive_float("circle", circle) if "circle" in self._kinds else None
        listed = [index for indices in self._kinds.values() for index in indices]
        self._order = sorted(range(self.features), key=listed.__getitem__)
        self._low = [-math.inf if d is None or d.low is None else d.low for d in self.domains]
        self._high = [math.inf if d is None or d.high is None else d.high for d in self.domains]
        self.deviation: Tensor
        self.fitted: Tensor
        self.register_buffer("deviation", torch.ones(self.features))
        self.register_buffer("fitted", torch.tensor(False))
        self.curves: Tensor
        self.register_buffer("curves", self._unfitted_curves())

    @torch.no_grad()
    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Fits curves, and deviations for reports, to rows x (N, features), with weights (N,)."""
        self.deviation.copy_(moments(feature_batch("x", x, self.features), weights)[1])
        columns = zip(x.double().T, self._low, self._high, self.domains, strict=True)
        for i, (column, low, high, domain) in enumerate(columns):
            if _kind(domain) == "interval":
                curve = edges.fit_interval(column - low, high - column, weights)
            elif _kind(domain) == "half-line":
                distances = column - low if math.isfinite(low) else high - column
                curve = edges.fit_half_line(distances, weights)
            else:
                continue
            self.curves[i] = torch.tensor(curve)
        self.fitted.fill_(True)

    def _unfitted_curves(self) -> Tensor:
        kinds = map(_kind, self.domains)
        return torch.tensor([QUANTILE if kind == "interval" else LOGARITHM for kind in kinds])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore
        """Loads states from before curves were fitted with the maps of that time."""
        state_dict.setdefault(f"{prefix}curves", self._unfitted_curves())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def outside(self, x: Tensor) -> Tensor:
        """Returns a mask (B,) of the rows of x (B, features) that are outside the domain.

        The ends of an interval are outside, and the ends of a circle are inside. NaN counts as
        inside.
        """
        closed = [domain is not None and domain.circular for domain in self.domains]
        x_double = x.detach().double()
        low, high = (_numbers(ends, x_double) for ends in (self._low, self._high))
        on_circle = torch.tensor(closed).to(x.device, non_blocking=True)
        # The ends of a circle may round outwards in the dtype of x.
        beyond_circle = (x_double < low.to(x.dtype)) | (x_double > high.to(x.dtype))
        beyond_interval = (x_double <= low) | (x_double >= high)
        return (on_circle & beyond_circle | ~on_circle & beyond_interval).any(1)

    @property
    def inside(self) -> tuple[float, ...]:
        """An arbitrary point inside the domain."""
        return tuple(_point_inside(domain) for domain in self.domains)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = self._encoded(x)
        return z.to(x.dtype), _log_det(self._log_slope(z), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._decoded(z), -_log_det(self._log_slope(z.double()), z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        z = self._encoded(x)
        slope = self._log_slope(z)
        log_det = _log_det(slope, x)
        return ElementwiseLinearization(z.to(x.dtype), log_det, slope.exp(), (-slope).exp())

    def _encoded(self, x: Tensor) -> Tensor:
        """Returns z in float64, so that no x is rounded to an end."""
        x_double = feature_batch("x", x, self.features).double()
        parts = [line_map.encode(*args) for line_map, args in self._by_kind(x_double)]
        return _columns(torch.cat(parts, 1), self._order)

    def _decoded(self, z: Tensor) -> Tensor:
        """Returns x inside the domain, in the dtype of z."""
        z_double = feature_batch("z", z, self.features).double()
        parts = [line_map.decode(*args) for line_map, args in self._by_kind(z_double)]
        x = _columns(torch.cat(parts, 1), self._order).to(z.dtype)
        ends = [_innermost(domain, z.dtype) for domain in self.domains]
        lowest, highest = (_numbers(side, z) for side in zip(*ends, strict=True))
        return x.clamp(lowest, highest)

    def _log_slope(self, z: Tensor) -> Tensor:
        """Returns log dz/dx of each entry, from z."""
        parts = [line_map.log_slope(*args) for line_map, args in self._by_kind(z)]
        return _columns(torch.cat(parts, 1), self._order)

    def _by_kind(
        self, values: Tensor
    ) -> Iterator[tuple[LineMap, tuple[Tensor, Tensor, Tensor, Curve]]]:
        """Yields the map of each kind, with its columns of `values`, their ends and curves."""
        for kind, indices in self._kinds.items():
            line_map = (
                _rescaled_circle(self.circle or 1.0) if kind == "circle" else LINE_MAPS[kind]
            )
            low, high = (
                _numbers([ends[i] for i in indices], values) for ends in (self._low, self._high)
            )
            curve = Curve(*_columns(self.curves.to(values.dtype).T, indices))
            yield line_map, (_columns(values, indices), low, high, curve)

    def extra_repr(self) -> str:
        text = ", ".join("None" if d is None else repr(d.text) for d in self.domains)
        circle = "" if self.circle is None else f", circle={self.circle:g}"
        text = f"bounds=[{text}]{circle}, fitted={flag_text(self.fitted)}"
        if self.curves.is_meta or not self.fitted:
            return text
        rows = zip(map(_kind, self.domains), self.curves.tolist(), strict=True)
        return f"{text}, curves=[{', '.join(edges.curve_text(*row) for row in rows)}]"


@register("CircleToLine")
class CircleToLine(Bijection):
    r"""Maps features on a circle of length 2B around 0 to the line by a normal quantile.

    The map is :math:`\Phi^{-1}(1/2 + x / 2B)`. It turns the uniform distribution on the circle
    into the standard normal. If a flow consists of maps on the circle and ends with this layer,
    its density has no seam.

    Args:
        features: Number of features.
        angles: Indices of the features on the circle.
        half_period: Half the length of the circle, B.

    Note:
        The seam itself is mapped like its nearest neighbor, to about 5 deviations in float32.

    Example:
        >>> z, log_det = CircleToLine(1, [0], half_period=5.0)(torch.tensor([[0.0]]))
        >>> z.item(), round(log_det.item(), 4)
        (0.0, -1.3836)
    """

    def __init__(self, features: int, angles: Sequence[int], *, half_period: float) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.angles = angle_places(angles, self.features)
        self.half_period = positive_float("half_period", half_period)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        half = self.half_period
        own = wrapped(_columns(feature_batch("x", x, self.features), self.angles).double(), half)
        margin = half * torch.finfo(x.dtype).eps / 2
        z = edges.encode_interval(own.clamp(margin - half, half - margin), *self._interval(own))
        return self._with_angles(x, z), _log_det(self._log_slope(z), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        own = _columns(feature_batch("z", z, self.features), self.angles).double()
        angle = edges.decode_interval(own, *self._interval(own))
        return self._with_angles(z, angle), -_log_det(self._log_slope(own), z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)
        rate = self._log_slope(_columns(value, self.angles).double())
        slopes = torch.ones_like(x, dtype=torch.float64).index_copy(1, self._index(x), rate.exp())
        return ElementwiseLinearization(value, log_det, slopes, 1 / slopes)

    def nearest_turn(self, x: Tensor, near: Tensor) -> Tensor:
        """Returns x with each angle moved by full turns to the one nearest to that of `near`."""
        away = _columns(x - near, self.angles)
        return self._with_angles(x, _columns(near, self.angles) + wrapped(away, self.half_period))

    def _with_angles(self, x: Tensor, changed: Tensor) -> Tensor:
        return x.index_copy(1, self._index(x), changed.to(x.dtype))

    def _index(self, like: Tensor) -> Tensor:
        return index_on(like.device, self.angles)

    def _log_slope(self, z: Tensor) -> Tensor:
        return edges.interval_log_slope(z, *self._interval(z))

    def _interval(self, like: Tensor) -> tuple[Tensor, Tensor, Curve]:
        """Returns both ends of the circle, and the curve of the normal quantile."""
        half = _numbers(self.half_period, like)
        return -half, half, Curve(*_numbers(QUANTILE, like))

    def extra_repr(self) -> str:
        return f"features={self.features}, angles={self.angles}, half_period={self.half_period:g}"


def _columns(x: Tensor, indices: Sequence[int]) -> Tensor:
    return x[:, index_on(x.device, indices)]


def _numbers(values: Sequence[float] | float, like: Tensor) -> Tensor:
    """Returns numbers in the dtype and on the device of a tensor, without waiting for the copy."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


def wrapped(x: Tensor, half: Tensor | float) -> Tensor:
    """Returns x wrapped to the circle from -half to half; values inside stay bit-identical."""
    return x - 2 * half * torch.round(x.detach() / (2 * half))


def angle_places(angles: Sequence[int], features: int) -> list[int]:
    """Returns the sorted indices of the angles, or raises ArgumentError."""
    indices = sorted(set(angles))
    if not indices or len(indices) != len(angles) or not 0 <= indices[0] <= indices[-1] < features:
        raise ArgumentError(
            f"'angles' should list features from 0 to {features - 1}, each at most once, got "
            f"{angles!r}."
        )
    return indices


def _kind(domain: Interval | None) -> str:
    """Returns which map a column has."""
    if domain is None:
        return "real"
    if domain.circular:
        return "circle"
    return "half-line" if domain.low is None or domain.high is None else "interval"


def _point_inside(domain: Interval | None) -> float:
    """Returns an arbitrary point inside a domain."""
    if domain is None:
        return 0.0
    if domain.low is not None and domain.high is not None:
        return (domain.low + domain.high) / 2
    return domain.low + 1.0 if domain.low is not None else (domain.high or 0.0) - 1.0


def _innermost(domain: Interval | None, dtype: torch.dtype) -> tuple[float, float]:
    """Returns the lowest and the highest number of a dtype inside a domain."""
    if domain is None:
        return -math.inf, math.inf
    low = _smallest_above(domain.low, dtype, closed=domain.circular)
    return low, -_smallest_above(None if domain.high is None else -domain.high, dtype)


def _smallest_above(end: float | None, dtype: torch.dtype, *, closed: bool = False) -> float:
    """Returns the smallest number of a dtype above an end, which a closed domain contains."""
    info = torch.finfo(dtype)
    if end is None:
        return info.min
    nearest = torch.tensor(end, dtype=dtype).item()
    if nearest > end or (closed and nearest == end):
        return nearest
    step = torch.tensor(nearest + max(abs(nearest) * info.eps, info.tiny), dtype=dtype)
    return step.item()


def _log_det(log_slope: Tensor, like: Tensor) -> Tensor:
    """Returns the log_det, (B,), in the dtype that accumulates log_dets for `like`."""
    return log_slope.sum(1).to(log_det_dtype(like.dtype))
