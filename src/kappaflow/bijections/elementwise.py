"""Elementwise maps: standardization, affine maps, the logit and the leaky ReLU."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from kappaflow._checks import (
    batch,
    feature_batch,
    finite_float,
    natural_int,
    positive_float,
    positive_int,
    real_numbers,
)
from kappaflow.bijection import Bijection, at_each_place, log_det_dtype
from kappaflow.errors import ArgumentError
from kappaflow.linearization import ElementwiseLinearization, Linearization, beside_features
from kappaflow.nets.inputs import flag_text, moments
from kappaflow.partition import index_on
from kappaflow.registry import register


@register("Standardize")
class Standardize(Bijection):
    """z = (x - mean) / deviation, fitted to training rows once and not learned.

    It is the identity until `kappaflow.fit` fits it. Its log_det is part of the flow's, so
    log_prob is in the units of x.

    Args:
        features: Number of features (dimension 1 of the points); channels for images.
        padding: Number of padding features, which come last and stay unchanged, see
            `kappaflow.flows.Pad`.
        left: Indices of features that stay unchanged, such as angles.

    Raises:
        ArgumentError: All features are padding, or `left` names a feature that does not exist.

    Example:
        >>> units = Standardize(1)
        >>> units.fit(torch.tensor([[0.0], [10.0]]))
        >>> units(torch.tensor([[20.0]]))[0]
        tensor([[3.]])
    """

    is_linear = True
    is_standardization = True

    def __init__(self, features: int, *, padding: int = 0, left: Sequence[int] = ()) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.padding = natural_int("padding", padding)
        self.left = list(left)
        if not set(self.left) <= set(range(features)):
            raise ArgumentError(
                f"'left' should name features from 0 to {features - 1}, got {self.left}."
            )
        if self.padding >= features:
            raise ArgumentError(
                f"'padding' should be less than the {features} features, got {padding}."
            )
        self.mean: Tensor
        self.deviation: Tensor
        self.fitted: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Fits mean and deviation to x, (N, features, ...); a constant feature is only shifted.

        `weights`, (N,), weight the rows; all rows have the same weight by default.
        """
        own = self.features - self.padding
        mean, deviation = moments(feature_batch("x", x, self.features)[:, :own], weights)
        self.mean[:own] = mean
        self.deviation[:own] = deviation
        left = index_on(self.mean.device, self.left)
        self.mean.index_fill_(0, left, 0.0)
        self.deviation.index_fill_(0, left, 1.0)
        self.fitted.fill_(True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, deviation = self._numbers("x", x)
        return ((x - mean) / deviation).to(x.dtype), self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, deviation = self._numbers("z", z)
        return (z * deviation + mean).to(z.dtype), -self._log_det(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)
        deviation = beside_features(self.deviation, x)
        return ElementwiseLinearization(value, log_det, 1 / deviation, deviation)

    def _numbers(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        feature_batch(name, x, self.features)
        return beside_features(self.mean, x), beside_features(self.deviation, x)

    def _log_det(self, x: Tensor) -> Tensor:
        return -at_each_place(self.deviation.to(log_det_dtype(x.dtype)).log().sum(), x)

    def extra_repr(self) -> str:
        padding = f", padding={self.padding}" if self.padding else ""
        left = f", left={self.left}" if self.left else ""
        return f"features={self.features}{padding}{left}, fitted={flag_text(self.fitted)}"


@register("ElementwiseAffine")
class ElementwiseAffine(Bijection):
    """z = x * exp(log_scale) + shift with a learned pair for each feature.

    Args:
        features: Number of features (dimension 1 of the points); channels for images.
        log_scale: Initial log-scales, one per feature; zeros by default.
        shift: Initial shifts, one per feature; zeros by default.
    """

    is_linear = True

    def __init__(
        self,
        features: int,
        *,
        log_scale: Sequence[float] | None = None,
        shift: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.log_scale = nn.Parameter(self._start("log_scale", log_scale))
        self.shift = nn.Parameter(self._start("shift", shift))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._numbers("x", x)
        return (x * log_scale.exp() + shift).to(x.dtype), self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._numbers("z", z)
        return ((z - shift) * (-log_scale).exp()).to(z.dtype), -self._log_det(z)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)
        log_scale, _ = self._numbers("x", x)
        return ElementwiseLinearization(value, log_det, log_scale.exp(), (-log_scale).exp())

    def _numbers(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        feature_batch(name, x, self.features)
        return beside_features(self.log_scale, x), beside_features(self.shift, x)

    def _log_det(self, x: Tensor) -> Tensor:
        return at_each_place(self.log_scale.to(log_det_dtype(x.dtype)).sum(), x)

    def _start(self, name: str, values: Sequence[float] | None) -> Tensor:
        start = torch.zeros(self.features) if values is None else real_numbers(name, values)
        if start.shape != (self.features,):
            raise ArgumentError(
                f"'{name}' should hold {self.features} numbers, got shape {tuple(start.shape)}."
            )
        return start.float()

    def extra_repr(self) -> str:
        return f"features={self.features}"


@register("Logit")
class Logit(Bijection):
    r"""Maps an interval to the real line: z = logit(a + (1 - 2a) u), u = (x - low) / (high - low).

    Args:
        low: Lower end of the interval.
        high: Upper end of the interval, above `low`.
        margin: The margin a, at least 0 and below 1/2. Above 0, the ends have finite images.
        padding: Number of padding features, which come last (dimension 1) and stay unchanged, see
            `kappaflow.flows.Pad`.

    Raises:
        ArgumentError: `high` is not above `low`, or `margin` is outside [0, 1/2).

    Note:
        A point that is too far outside the interval has no image, and its value is nan.

    Example:
        >>> z, log_det = Logit(0.0, 1.0)(torch.tensor([[0.5]]))
        >>> z.item(), round(log_det.item(), 4)
        (0.0, 1.3863)
    """

    def __init__(
        self, low: float = 0.0, high: float = 1.0, *, margin: float = 0.0, padding: int = 0
    ) -> None:
        super().__init__()
        self.low, self.high = finite_float("low", low), finite_float("high", high)
        self.margin = finite_float("margin", margin)
        positive_float("high - low", self.high - self.low)
        if not 0 <= self.margin < 0.5:
            raise ArgumentError(f"'margin' should be at least 0 and below 1/2, got {margin}.")
        self.padding = natural_int("padding", padding)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        own, rest = self._parted(batch("x", x))
        unit = (own - self.low) / (self.high - self.low)
        z = torch.logit(self.margin + (1 - 2 * self.margin) * unit)
        return torch.cat((z, rest), 1), self._log_det(z)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        own, rest = self._parted(batch("z", z))
        unit = (torch.sigmoid(own) - self.margin) / (1 - 2 * self.margin)
        x = unit * (self.high - self.low) + self.low
        return torch.cat((x, rest), 1), -self._log_det(own)

    def _parted(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the features to change and the padding."""
        own = x.shape[1] - self.padding
        if own < 1:
            raise ArgumentError(
                f"points should have more features than the {self.padding} padding features, got "
                f"{x.shape[1]}."
            )
        return x[:, :own], x[:, own:]

    def _log_det(self, z: Tensor) -> Tensor:
        """Returns log|dz/dx| from z, which is accurate even if x was rounded to an end."""
        z_wider = z.to(log_det_dtype(z.dtype))
        slope = math.log((1 - 2 * self.margin) / (self.high - self.low))
        return (softplus(z_wider) + softplus(-z_wider) + slope).flatten(1).sum(1)

    def extra_repr(self) -> str:
        padding = f", padding={self.padding}" if self.padding else ""
        return f"low={self.low:g}, high={self.high:g}, margin={self.margin:g}{padding}"


@register("LeakyReLU")
class LeakyReLU(Bijection):
    r"""z = x for x >= 0 and z = negative_slope * x for x < 0, with an optional rounded corner.

    With a smoothing t above 0 the map is a branch of a hyperbola,
    :math:`z = \frac{1 + s}{2} x + \frac{1 - s}{2} \sqrt{x^2 + t^2}` with the negative slope s.
    Its slopes are between s and 1, and its inverse has a closed form.

    Args:
        negative_slope: The slope s for negative x, above 0.
        smoothing: The smoothing t in units of x, 0 or more; 0 gives the leaky ReLU.

    Note:
        Maximum likelihood trains badly with a sharp corner. The log_det then depends only on the
        number of negative entries. Its derivative is zero except for jumps at the corner, and
        gradients do not see the jumps.

    Source:
        The rounded form: Barron 2021, Squareplus, for s = 0.

    Example:
        >>> LeakyReLU(0.5)(torch.tensor([[-2.0, 3.0]]))
        (tensor([[-1.,  3.]]), tensor([-0.6931]))
    """

    def __init__(self, negative_slope: float = 0.2, *, smoothing: float = 0.0) -> None:
        super().__init__()
        self.negative_slope = positive_float("negative_slope", negative_slope)
        self.smoothing = finite_float("smoothing", smoothing)
        if self.smoothing < 0:
            raise ArgumentError(f"'smoothing' should be at least 0, got {smoothing}.")
        self._mean = (1 + self.negative_slope) / 2  # mean of the two slopes
        self._half = (1 - self.negative_slope) / 2  # half their difference

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch("x", x)
        if self.smoothing:
            z = (self._mean * x + self._half * self._rounded(x)).to(x.dtype)
        else:
            z = torch.where(x < 0, x * self.negative_slope, x)
        return z, self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_wider = batch("z", z).to(log_det_dtype(z.dtype))
        if self.smoothing:
            slope = self.negative_slope
            root = (z_wider.square() + slope * self.smoothing**2).sqrt()
            x = (self._mean * z_wider - self._half * root) / slope
        else:
            x = torch.where(z_wider < 0, z_wider / self.negative_slope, z_wider)
        return x.to(z.dtype), -self._log_det(x)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        value, log_det = self(x)
        slopes = self._slopes(x)
        return ElementwiseLinearization(value, log_det, slopes, 1 / slopes)

    def _rounded(self, x: Tensor) -> Tensor:
        """Returns |x| with a rounded corner."""
        return (x.to(log_det_dtype(x.dtype)).square() + self.smoothing**2).sqrt()

    def _slopes(self, x: Tensor) -> Tensor:
        if self.smoothing:
            return self._mean + self._half * x / self._rounded(x)
        slopes = torch.ones_like(x, dtype=log_det_dtype(x.dtype))
        return slopes.masked_fill(x < 0, self.negative_slope)

    def _log_det(self, x: Tensor) -> Tensor:
        if self.smoothing:
            return self._slopes(x).log().flatten(1).sum(1)
        count = (x < 0).flatten(1).sum(1).to(log_det_dtype(x.dtype))
        return count * math.log(self.negative_slope)

    def extra_repr(self) -> str:
        rounded = f", smoothing={self.smoothing:g}" if self.smoothing else ""
        return f"negative_slope={self.negative_slope:g}{rounded}"
