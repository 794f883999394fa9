"""Base distributions of the latent: the standard normal and a mixture of normals."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self, SupportsIndex

import numpy as np
import torch
from torch import Tensor, nn

from kappaflow._checks import feature_batch, positive_int
from kappaflow.autograd.replay import without_autocast
from kappaflow.bijection import log_det_dtype
from kappaflow.errors import ArgumentError, DataError
from kappaflow.flows.mixture_fit import normal_mixture, sample_of
from kappaflow.registry import register


class Base(nn.Module, ABC):
    """A distribution of latents, optionally conditional on a context.

    `kappaflow.testing.check_base` verifies the contract:

    1. `log_prob` is the logarithm of a density: its exponential integrates to 1.
    2. `sample` draws from this density, in the dtype and on the device that it is given.
    3. Rows do not depend on each other, and a call changes no state.
    4. The generator alone determines the samples; without one, torch's global generator does.
    5. `context_features` is the width of the context, 0 for none.

    Attributes:
        event_shape: Shape of one event; `__init__` sets it.
        context_features: Width of the context that the base reads; 0 for none.
        has_rsample: Whether samples carry gradients to all parameters of the base.

    Raises:
        ArgumentError: The class lacks `log_prob` or `sample`.
    """

    event_shape: tuple[int, ...]
    context_features: int = 0
    has_rsample: bool = True

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        lacking = sorted(cls.__abstractmethods__)
        if lacking:
            raise ArgumentError(
                f"'{cls.__name__}' should define {lacking[0]}, as every Base does."
            )
        return super().__new__(cls)

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p(z | context) in nats, (B,), for z (B, *event); in float32 or wider."""

    @abstractmethod
    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Returns n samples, (n, *event), for context rows (n, C) if the base reads a context.

        The default device is the generator's. The generator may be on any device; torch's global
        generator of `device` is the default.
        """

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns P(Z <= z | context) of each coordinate, (B, *event), in float32 or wider.

        `kappaflow.cdf` and `kappaflow.quantile` need it; nothing else does.
        """
        raise ArgumentError(
            "'flow' should have a base with a method cdf(z, context), got "
            f"{type(self).__name__} without one."
        )

    def tempered(self, z: Tensor, temperature: float, context: Tensor | None = None) -> Tensor:
        """Returns samples z, (n, *event), with their spread multiplied by a temperature >= 0."""
        return z * temperature


# What a flow passes to the methods of a base: positional arguments, and names of others.
_CALLS = {
    "log_prob": (2, (), "log_prob(z, context)"),
    "sample": (
        1,
        ("context", "dtype", "device", "generator"),
        "sample(n, *, context, dtype, device, generator)",
    ),
    "tempered": (3, (), "tempered(z, temperature, context)"),
}


def checked_base(base: object, context_features: int) -> Base:
    """Returns a base that keeps the form of the contract, or raises an error."""
    name = type(base).__name__
    if not isinstance(base, Base):
        raise ArgumentError(
            f"'base' should be a Base, got {name}: derive its class from kappaflow.flows.Base."
        )
    shape = getattr(base, "event_shape", None)
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ArgumentError(
            f"'base' should have an event_shape such as (2,), got {shape!r} from {name}: set it "
            "in __init__."
        )
    for method, (count, names, form) in _CALLS.items():
        signature = inspect.signature(getattr(base, method))
        try:
            signature.bind(*range(count), **dict.fromkeys(names))
        except TypeError:
            raise ArgumentError(
                f"'base' should have a method {form}, got {name}.{method}{signature}."
            ) from None
    if context_features and base.context_features not in (0, context_features):
        raise ArgumentError(
            f"'base' should read a context of {context_features} columns, as the bijection does, "
            f"got {name} with {base.context_features}."
        )
    return base


def log_prob_of_base(base: Base, z: Tensor, context: Tensor | None = None) -> Tensor:
    """Returns the log_prob of latents z, (B, *event), after checking that its shape is (B,)."""
    value = base.log_prob(z, context)
    if not isinstance(value, Tensor) or value.shape != z.shape[:1]:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ArgumentError(
            f"log_prob of {type(base).__name__} should have shape {tuple(z.shape[:1])}, one "
            f"number for each row, got {got}: add up the features."
        )
    return value


def sample_of_base(
    base: Base,
    n: int,
    *,
    context: Tensor | None = None,
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Returns n samples, (n, *event), after checking their shape, dtype and device."""
    z = base.sample(n, context=context, dtype=dtype, device=device, generator=generator)
    expected = ((n, *base.event_shape), dtype, device.type)
    actual = (tuple(z.shape), z.dtype, z.device.type) if isinstance(z, Tensor) else type(z)
    if actual != expected:
        raise ArgumentError(
            f"sample of {type(base).__name__} should return shape, dtype and device "
            f"{expected}, got {actual}."
        )
    return z


class EventBase(Base):
    """A base of this library: it draws samples on the device of the generator."""

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        shape = (event_shape,) if isinstance(event_shape, SupportsIndex) else tuple(event_shape)
        self.event_shape = tuple(positive_int("event_shape", size) for size in shape)

    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        source: dict[str, Any] = {
            "device": device if generator is None else generator.device,
            "generator": generator,
        }
        z = self.draw(n, context, dtype, source).to(dtype)
        return z if device is None else z.to(device)

    @abstractmethod
    def draw(
        self, n: int, context: Tensor | None, dtype: torch.dtype, source: dict[str, Any]
    ) -> Tensor:
        """Returns n samples on any device, from the device and the generator of a source."""

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"


@register("StandardNormal")
class StandardNormal(EventBase):
    """Independent N(0, 1) in each coordinate of an event.

    Args:
        event_shape: Shape of one event; a number n is (n,).

    Example:
        >>> round(StandardNormal(2).log_prob(torch.zeros(1, 2)).item(), 4)
        -1.8379
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__(event_shape)
        # Gives a flow without parameters its dtype and device.
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log N(z; 0, I) in nats, (B,), for z (B, *event); in float32 or wider."""
        rows = z.to(log_det_dtype(z.dtype)).flatten(1)
        return -0.5 * (rows * rows).sum(1) - 0.5 * rows.shape[1] * math.log(2 * math.pi)

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return normal_cdf(z.to(log_det_dtype(z.dtype)))

    def draw(
        self, n: int, context: Tensor | None, dtype: torch.dtype, source: dict[str, Any]
    ) -> Tensor:
        return torch.randn((n, *self.event_shape), dtype=dtype, **source)


@register("NormalMixture")
class NormalMixture(EventBase):
    """A trainable mixture of normal distributions with full covariances.

    `kappaflow.fit` fits it to the latents of the training rows with the EM algorithm before the
    first step, and then trains it with the flow. The couplings need not separate clusters or
    stretch thin ones, so the flow stays well conditioned.

    Args:
        features: Number of features D.
        components: Number of components K.

    Attributes:
        logits: Logarithms of the weights, up to a constant, (K,).
        means: Means of the components, (K, D).
        factors: The lower triangular factor L of each precision matrix L'L, (K, D, D). The
            diagonal holds the logarithms of the diagonal of L.

    Example:
        >>> base = NormalMixture(2, components=2)
        >>> base.fit(torch.tensor([[5.0, 0.0], [-5.0, 0.0]]).repeat(200, 1) + torch.randn(400, 2))
        >>> base.means[:, 0].abs().round().tolist()
        [5.0, 5.0]
    """

    has_rsample = False  # samples carry no gradients to the weights of the components

    def __init__(self, features: int, *, components: int) -> None:
        super().__init__(positive_int("features", features))
        self.components = positive_int("components", components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, features))
        self.factors = nn.Parameter(torch.zeros(components, features, features))
        self.fitted: Tensor
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, z: Tensor) -> None:
        """Fits the components to latents z (N, features) by EM, using at most `EM_ROWS` of them.

        Raises:
            ArgumentError: z has a wrong shape.
            DataError: There are fewer rows than components, some are not finite, or a component
                cannot be fitted.
        """
        z = feature_batch("z", z, self.event_shape[0])
        if len(z) < self.components or not z.isfinite().all():
            raise DataError(
                f"a mixture of {self.components} components needs at least as many finite rows, "
                f"got {int(z.isfinite().all(1).sum())}: choose fewer 'components'."
            )
        rows = z[sample_of(len(z)).to(z.device)].detach().double().cpu().numpy()
        try:
            result = normal_mixture(rows, self.components)
        except ValueError as error:
            raise DataError(
                f"a mixture of {self.components} components cannot be fitted to these rows "
                f"({error}): choose fewer 'components'."
            ) from None
        lower = np.linalg.inv(np.linalg.cholesky(result.covariances_))
        factors = np.tril(lower, -1)
        diagonal = np.arange(len(z[0]))
        factors[:, diagonal, diagonal] = np.log(lower[:, diagonal, diagonal])
        with torch.no_grad():
            for own, values in (
                (self.logits, np.log(result.weights_)),
                (self.means, result.means_),
                (self.factors, factors),
            ):
                own.copy_(torch.from_numpy(values))
            self.fitted.fill_(True)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p(z) in nats, (B,), for z (B, D); in float32 or wider."""
        return self._log_joint(z).logsumexp(0)

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        lower = self.lower(log_det_dtype(z.dtype))[0]
        deviations = torch.linalg.inv(lower).norm(dim=2)[:, None]
        offsets = z.to(lower.dtype) - self.means.to(lower.dtype)[:, None]
        weights = self.logits.to(lower.dtype).softmax(0)
        return (weights[:, None, None] * normal_cdf(offsets / deviations)).sum(0)

    def draw(
        self, n: int, context: Tensor | None, dtype: torch.dtype, source: dict[str, Any]
    ) -> Tensor:
        device, float_type = self.logits.device, log_det_dtype(dtype)
        noise = torch.randn((n, *self.event_shape), dtype=float_type, **source)
        weights = self.logits.detach().to(noise.device).softmax(0)
        chosen = torch.multinomial(
            weights, max(n, 1), replacement=True, generator=source["generator"]
        )
        components = chosen[:n].to(device)
        lower = self.lower(float_type)[0][components]
        offsets = torch.linalg.solve_triangular(lower, noise.to(device)[..., None], upper=False)
        return self.means[components] + offsets[..., 0]

    def tempered(self, z: Tensor, temperature: float, context: Tensor | None = None) -> Tensor:
        """Returns samples moved towards or away from the mean of their likeliest component."""
        which = self._log_joint(z).argmax(0)
        means = self.means.to(z)[which]
        return means + temperature * (z - means)

    def _log_joint(self, z: Tensor) -> Tensor:
        """Returns the log of the joint density of z, (B, D), and each component, (K, B)."""
        float_type = log_det_dtype(z.dtype)
        lower, log_diagonal = self.lower(float_type)
        offsets = z.to(float_type) - self.means.to(float_type)[:, None]
        with without_autocast(z.device.type):  # narrow components need the precision
            squares = (offsets @ lower.mT).square().sum(2)
        constants = log_diagonal + self.logits.to(float_type).log_softmax(0)
        constants = constants - 0.5 * z.shape[1] * math.log(2 * math.pi)
        return constants[:, None] - 0.5 * squares

    def lower(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns the factors, (K, D, D), and the logs of their determinants, (K,)."""
        factors = self.factors.to(dtype)
        log_diagonal = factors.diagonal(dim1=1, dim2=2)
        return factors.tril(-1) + torch.diag_embed(log_diagonal.exp()), log_diagonal.sum(1)

    def extra_repr(self) -> str:
        return f"features={self.event_shape[0]}, components={self.components}"


def normal_cdf(z: Tensor) -> Tensor:
    """Returns P(Z <= z) of a standard normal; `torch.special.ndtr` is less accurate in a tail."""
    return 0.5 * torch.erfc(-math.sqrt(0.5) * z)


def check_has_rsample(base: Base) -> None:
    """Raises an error if samples of the base carry no gradients to some of its parameters."""
    if not base.has_rsample:
        out = ": leave 'components' out." if isinstance(base, NormalMixture) else "."
        raise ArgumentError(
            f"'flow' should have a base whose samples carry gradients, got {type(base).__name__}"
            f"{out}"
        )
