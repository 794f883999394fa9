"""Flows as distributions and transforms of `torch.distributions`, which Pyro also uses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform, constraints

from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError

# A `Flow`, whose file imports this one.
FlowType = Any


def support_of(flow: FlowType) -> constraints.Constraint:
    """Returns the support of a flow's density as a constraint on its points."""
    if flow.domain is None:
        return constraints.independent(constraints.real, len(flow.event_shape))
    own = [_constraint(domain) for domain in flow.domain.domains[: flow.event_shape[0]]]
    return constraints.stack(own, dim=-1)  # pyright: ignore[reportCallIssue]


def _constraint(domain: Interval | None) -> constraints.Constraint:
    """Returns a domain as a constraint; it includes the ends, as torch has no open interval."""
    if domain is None:
        return constraints.real
    if domain.high is None:
        is_positive = domain.low == 0
        return constraints.positive if is_positive else constraints.greater_than(domain.low)
    if domain.low is None:
        return constraints.less_than(domain.high)
    return constraints.interval(domain.low, domain.high)


class FlowTransform(Transform, nn.Module):
    """The map of a flow from latent to data as a transform; see `Flow.as_transform`.

    The transform shares the parameters of the flow. `log_abs_det_jacobian` never uses the cache:
    it runs the flow again, so it always belongs to the present weights.
    """

    bijective = True

    def __init__(self, flow: FlowType, context: Tensor | None = None, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        if flow.augment is not None:
            raise ArgumentError(
                "'flow' should have no padding and no dequantization to be a transform, because "
                "its bijection must map x alone."
            )
        self.flow, self.context = flow, context
        latent = flow.base.event_shape
        self.domain = constraints.independent(constraints.real, len(latent))
        self.codomain = support_of(flow)

    @property
    def flow_to_examine(self) -> FlowType:
        """The flow that `kappaflow.wrap` and `doctor` examine."""
        return self.flow

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def _call(self, x: Tensor) -> Tensor:
        return self._through(self.flow.bijection.inverse, x, self.flow.base.event_shape)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self._through(self.flow.bijection, y, self.flow.event_shape)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns log|det| of the derivative of y at the latent x, in nats, (*batch,)."""
        return self._through(self.flow.bijection.inverse, x, self.flow.base.event_shape)[1]

    def with_cache(self, cache_size: int = 1) -> "FlowTransform":
        """Returns the transform with a cache of a size, 0 or 1, as for torch's transforms."""
        return FlowTransform(self.flow, self.context, cache_size)

    def forward_shape(self, shape: tuple[int, ...]) -> torch.Size:
        """Returns the shape of data for latents of a shape."""
        return self._other(shape, self.flow.base.event_shape, self.flow.event_shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> torch.Size:
        """Returns the shape of latents for data of a shape."""
        return self._other(shape, self.flow.event_shape, self.flow.base.event_shape)

    def _other(
        self, shape: tuple[int, ...], event: tuple[int, ...], other_event: tuple[int, ...]
    ) -> torch.Size:
        lead = len(shape) - len(event)
        if lead < 0 or tuple(shape[lead:]) != event:
            raise ArgumentError(f"'shape' should end with {event}, got {tuple(shape)}.")
        return torch.Size((*shape[:lead], *other_event))

    def _through(self, call: Any, value: Tensor, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Returns the result and log_det of one direction of the flow at (*batch, *event)."""
        batch = self._other(tuple(value.shape), event, ())
        context = self.context
        if context is not None:
            batch = torch.broadcast_shapes(batch, context.shape[:-1])
            context = context.expand(*batch, -1).reshape(-1, context.shape[-1])
            value = value.expand(*batch, *event)
        result, log_det = call(value.reshape(-1, *event), context)
        return result.reshape(*batch, *result.shape[1:]), log_det.reshape(batch)


class FlowDistribution(Distribution):
    """The density of a flow as a distribution; see `Flow.as_distribution`.

    Samples use torch's global generator, and `rsample` carries gradients to the parameters and the
    context.
    """

    arg_constraints = {}  # pyright: ignore

    def __init__(self, flow: FlowType, context: Tensor | None = None) -> None:
        if flow.likelihood != "exact":
            raise ArgumentError(
                "'flow' should have an exact log_prob to be a distribution, the log_prob of this "
                f"one is {'a bound' if flow.likelihood == 'bound' else 'a joint density'}."
            )
        self.flow, self.context = flow, context
        batch = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch, torch.Size(flow.event_shape), validate_args=False)

    @property
    def flow_to_examine(self) -> FlowType:
        """The flow that `kappaflow.wrap` and `doctor` examine."""
        return self.flow

    @property
    def support(self) -> constraints.Constraint:
        """The domain of the flow; all real points without one."""
        return support_of(self.flow)

    def expand(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, batch_shape: tuple[int, ...], _instance: "FlowDistribution | None" = None
    ) -> "FlowDistribution":
        """Returns the distribution expanded to a larger batch shape."""
        if torch.broadcast_shapes(self.batch_shape, batch_shape) != torch.Size(batch_shape):
            raise ArgumentError(
                f"'batch_shape' should extend {tuple(self.batch_shape)}, got {tuple(batch_shape)}."
            )
        expanded = FlowDistribution(self.flow, self.context)  # a context broadcasts
        expanded._batch_shape = torch.Size(batch_shape)
        return expanded

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p in nats, (*sample, *batch), for values (*sample, *batch, *event)."""
        log_prob = self.flow.log_prob(value, self.context)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether `rsample` is available: it is not with a `NormalMixture` as the base."""
        return self.flow.base.has_rsample

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Returns samples (*sample, *batch, *event), with gradients."""
        return self._sampled(sample_shape, self.flow.rsample)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Returns samples (*sample, *batch, *event)."""
        return self._sampled(sample_shape, self.flow.sample)

    def _sampled(self, sample_shape: Any, sample: Callable[..., Tensor]) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        n = shape.numel()
        context = self.context
        if context is not None:
            context = context.expand(*shape, context.shape[-1]).reshape(n, context.shape[-1])
        drawn = sample(1 if context is not None else n, context)
        return drawn.reshape(*shape, *self.event_shape)
