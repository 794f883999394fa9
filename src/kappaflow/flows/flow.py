"""A flow: a base distribution and a bijection from data to latents."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kappaflow._checks import finite_float, natural_int, positive_int
from kappaflow.autograd.checkpoint import is_transformed
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import MultiScale
from kappaflow.errors import ArgumentError, DataWarning
from kappaflow.flows.augmentation import Augmentation, log_weights
from kappaflow.flows.base import (
    Base,
    check_has_rsample,
    checked_base,
    log_prob_of_base,
    sample_of_base,
)
from kappaflow.flows.parts import FlowParts
from kappaflow.flows.rows import (
    AsFrame,
    Data,
    check_device,
    checked_context,
    describe_gaps,
    flatten_batch,
    frame_of,
)
from kappaflow.flows.standardization import Standardization
from kappaflow.flows.torch_distribution import FlowDistribution, FlowTransform
from kappaflow.registry import register

Note = Callable[[Tensor, Tensor | None], str | None]


@register("Flow")
class Flow(FlowParts):
    """The density p(x) = p_Z(f(x)) |det df/dx| of a bijection f and a base p_Z.

    Without an augmentation all densities are exact. With one, the bijection takes y = (x, e),
    where e is drawn given x: noise added to pixels, or extra features. `log_prob` is then a bound
    on log p(x), and `joint_log_prob` is exact. With padding that has no density, such as
    `ZeroPad`, there is no likelihood of x, and `log_prob` is the joint density.

    Args:
        base: The distribution of the latent.
        bijection: The map f from data to latent.
        augment: The augmentation that is joined to x before the bijection; None for none.

    Raises:
        ArgumentError: An argument has a wrong type, or the shapes do not fit.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.Flow(kf.StandardNormal(2), kf.bijections.Permutation((1, 0)))
        >>> round(flow.log_prob(torch.zeros(1, 2)).item(), 4)
        -1.8379
    """

    #: Whether no training batch was compared with the standardization yet.
    unchecked: bool = True

    def __init__(
        self, base: Base, bijection: Bijection, augment: Augmentation | None = None
    ) -> None:
        super().__init__()
        self.base = checked_base(base, getattr(bijection, "context_features", 0))
        if not isinstance(bijection, Bijection):
            raise ArgumentError(
                f"'bijection' should be a Bijection, got {type(bijection).__name__}."
            )
        if not isinstance(augment, Augmentation | None):
            raise ArgumentError(
                f"'augment' should be an Augmentation, got {type(augment).__name__}."
            )
        self.bijection = bijection
        self.augment = augment
        _ = self.event_shape  # raises if shapes do not fit

    @property
    def standardization(self) -> Standardization:
        """The first layers, which scale data to mean 0 and deviation 1.

        Call `flow.standardization.fit(x)` before your own training loop.
        """
        return Standardization(self)

    @property
    def core(self) -> Chain:
        """The bijection after its `standardization`, which acts on standardized columns."""
        return self.chain()[len(self.standardization) :]

    def forward(self, x: Data, context: Data = None) -> Tensor:
        """Returns `log_prob(x, context)`, for wrappers that call a module itself.

        Examples are `torch.func.functional_call`, `DistributedDataParallel` and `fully_shard`.
        """
        return self.log_prob(x, context).clone()  # hooks on a view are lost if it is changed

    def log_prob(
        self,
        x: Data,
        context: Data = None,
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Returns log p(x | context) in nats, in the units of x; exact without an augmentation.

        The value is -inf outside the domain of the columns and at its ends. If the first batch in
        training mode is far from standardized, a `DataWarning` names the fix. Elsewhere a
        `DataWarning` counts the rows that hold NaN, whose value is NaN, or a number that is
        infinite in the flow's dtype.

        With an augmentation the value is random: it is log p(x, e) - log q(e | x) for a sample e,
        and its mean is a lower bound on log p(x). Several samples give the importance-weighted
        mean, which is a tighter bound.

        If e has no density (`ZeroPad`, copies without noise), the value is the joint log-density
        log p(x, e), which is not a likelihood of x.

        Args:
            x: Points, (*batch, *event): a tensor or an array of any number type but bool, which
                is converted to the flow's dtype, or a data frame or `Table`. Columns are selected
                by name if the flow was fitted to named ones.
            context: Context, (*batch, C), for a conditional flow, of the same kinds. The leading
                shapes of x and context broadcast. A frame x with the columns of the context needs
                no other.
            samples: Number of samples of e for each x. It must be 1 without an augmentation, and
                for an augmentation without a density.
            generator: Source of randomness; torch's global generator by default.

        Returns:
            The log-density in nats, (*batch,), in float32 or wider.

        Raises:
            ArgumentError: A shape, device or column does not fit, x or the context holds bools,
                the context is missing or unexpected, or `samples` must be 1 for this flow.

        Source:
            Importance weighting: Burda, Grosse, Salakhutdinov 2016.
        """
        self._check_samples(samples)
        batch_shape, x, context = flatten_batch(self, x, context)
        if self.augment is None:
            log_prob = self.augmented_log_prob(x, context)
        else:
            weights = log_weights(
                self.augment, self.augmented_log_prob, x, context, samples, generator
            )
            log_prob = torch.cat([*weights]).logsumexp(0) - math.log(samples)
        if not (self.training and log_prob.requires_grad):
            self._warn(describe_gaps, x, context)
        elif self.unchecked:
            self._warn(self._forgotten, x, context)
        return log_prob.reshape(batch_shape)

    def joint_log_prob(self, x: Tensor, e: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p(x, e | context) of points and their augmentations, in nats; exact.

        Args:
            x: Points, (B, *event).
            e: Their augmentations, with the shape that `augment.draw` returns.
            context: Context, (B, C), for a conditional flow.

        Returns:
            The joint log-density in nats, (B,), in float32 or wider.

        Raises:
            ArgumentError: There is no augmentation, or a shape does not fit.
        """
        if self.augment is None:
            raise ArgumentError("'e' should be left out: this flow has no augmentation.")
        _, x, context = flatten_batch(self, x, context)
        expected = self.augment.drop(x.new_zeros(len(x), *self.joint_shape))[1].shape
        if not isinstance(e, Tensor) or e.shape != expected:
            got = tuple(e.shape) if isinstance(e, Tensor) else type(e).__name__
            raise ArgumentError(f"'e' should have shape {tuple(expected)}, got {got}.")
        check_device("e", e, self)
        return self.augmented_log_prob(self.augment.join(x, e.to(x.dtype)), context)

    @torch.no_grad()
    def sample(
        self,
        n: int | Sequence[int],
        context: Data = None,
        *,
        temperature: float = 1.0,
        as_frame: AsFrame = False,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Returns n samples: (n, *event), or (n, M, *event) for contexts (M, C).

        Args:
            n: Number of samples, for each context; or a shape (a, b), for (a, b, *event).
            context: Contexts, (M, C), for a conditional flow: a tensor, array or data frame.
            temperature: Factor on the spread of the latents, 0 or more. Below 1, samples are
                nearer the mode and no longer follow p.
            as_frame: Return a data frame, with the names of the columns and with the context of
                each row. "pandas" or "polars"; True for pandas if it is installed, else polars.
            generator: Source of randomness; torch's global generator by default.

        Raises:
            ArgumentError: An argument is out of its range, or a context is missing or unexpected.
        """
        if finite_float("temperature", temperature) < 0:
            raise ArgumentError(f"'temperature' should be 0 or more, got {temperature}.")
        context = checked_context(self, context)
        if temperature == 1 and self.augment is None:
            samples = self.sample_and_log_prob(n, context, generator=generator)[0]
        else:
            joined = self._sample_joined(n, context, temperature, generator)[0]
            samples = self.drop_augmentation(joined)
        return frame_of(self, samples, context, as_frame) if as_frame else samples

    def rsample(
        self,
        n: int | Sequence[int],
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Returns samples like `sample`, with gradients to the parameters and the context.

        Raises:
            ArgumentError: As for `sample`, or samples of the base carry no gradients to some of
                its parameters.
        """
        check_has_rsample(self.base)
        if self.augment is None:
            return self.sample_and_log_prob(n, context, generator=generator)[0]
        return self.drop_augmentation(self._sample_joined(n, context, 1.0, generator)[0])

    def sample_and_log_prob(
        self,
        n: int | Sequence[int],
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns samples and their log-density in nats from one pass; both carry gradients.

        If the base is a `NormalMixture`, samples carry no gradients to the weights of its
        components. With an augmentation, the log-density is `log_prob` of the samples, with new e.

        Args:
            n: Number of samples, for each context, or a shape, as for `sample`.
            context: Contexts, (M, C), for a conditional flow.
            generator: Source of randomness; torch's global generator by default.

        Returns:
            Samples, (n, *event) or (n, M, *event), and log-densities, (n,) or (n, M).

        Raises:
            ArgumentError: A size is negative, or a context is missing or unexpected.
        """
        joined, log_prob = self._sample_joined(n, context, 1.0, generator)
        if self.augment is None:
            return joined, log_prob
        x = self.drop_augmentation(joined)
        return x, self.log_prob(x, context, generator=generator)

    def as_distribution(self, context: Tensor | None = None) -> FlowDistribution:
        """Returns the flow as a `torch.distributions.Distribution` that shares its parameters.

        Args:
            context: Context, (*batch, C), for a conditional flow; one distribution for each row.

        Returns:
            The distribution, with the batch shape of the context.

        Raises:
            ArgumentError: log_prob is a bound or a joint density, or a context is missing or not
                expected.

        Example:
            >>> import kappaflow as kf
            >>> density = kf.real_nvp(2, depth=2, hidden=(8,)).as_distribution()
            >>> density.log_prob(density.rsample((3, 4))).shape
            torch.Size([3, 4])
        """
        context = checked_context(self, context)
        return FlowDistribution(self, context)

    def as_transform(self, context: Tensor | None = None, *, cache_size: int = 0) -> FlowTransform:
        """Returns the map from latent to data as a `torch.distributions.Transform`.

        The transform is a module that shares the parameters of the flow. Use it in
        `TransformedDistribution(base, [flow.as_transform()])` and in guides of Pyro.

        Args:
            context: Context, (*batch, C), for a conditional flow.
            cache_size: With 1, the inverse of the last value returns its cached latent, as for
                other transforms of torch.

        Raises:
            ArgumentError: The flow has an augmentation, or a context is missing or unexpected.

        Example:
            >>> import kappaflow as kf
            >>> transform = kf.real_nvp(2, depth=2, hidden=(8,)).as_transform()
            >>> transform.inv(transform(torch.ones(5, 2))).shape
            torch.Size([5, 2])
        """
        context = checked_context(self, context)
        return FlowTransform(self, context, cache_size)

    def latents(self, z: Tensor) -> tuple[Tensor, ...]:
        """Returns the latents of each scale, (B, c, h, w), the finest scale first.

        A flow without scales returns z as its only part.
        """
        parts = list(self.chain())
        last = parts[-1] if parts else None
        return last.latents(z) if isinstance(last, MultiScale) else (z,)

    def _check_samples(self, samples: int) -> None:
        if positive_int("samples", samples) == 1 or self.likelihood == "bound":
            return
        left_out = f"'samples' should be left out, got {samples}: the log_prob of this flow is"
        if self.likelihood == "exact":
            raise ArgumentError(f"{left_out} exact.")
        raise ArgumentError(
            f"{left_out} the joint density of a point and its padding. The padding has no "
            "density, so there is no likelihood of the point to estimate."
        )

    def _sample_joined(
        self,
        n: int | Sequence[int],
        context: Tensor | None,
        temperature: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Returns samples of x joined with its augmentation, and their log-densities."""
        sizes = n if isinstance(n, Sequence) else (n,)
        batch_shape = tuple(natural_int("n", size) for size in sizes)
        context = checked_context(self, context)
        if context is not None:
            batch_shape = (*batch_shape, *context.shape[:-1])
            context = context.expand(*batch_shape, context.shape[-1]).reshape(
                -1, context.shape[-1]
            )
        z = sample_of_base(
            self.base,
            math.prod(batch_shape),
            context=context,
            dtype=self.dtype,
            device=self.device,
            generator=generator,
        )
        z = z if temperature == 1 else self.base.tempered(z, temperature, context)
        x, log_det = self.bijection.inverse(z, context)
        log_prob = log_prob_of_base(self.base, z, context) - log_det
        return x.reshape(*batch_shape, *self.joint_shape), log_prob.reshape(batch_shape)

    def _warn(self, note: Note, x: Tensor, context: Tensor | None) -> None:
        """Warns of the note on some rows, if there is one; skips traced code."""
        if torch.compiler.is_compiling() or is_transformed() or x.is_meta:
            return
        message = note(x, context)
        if message is not None:
            warnings.warn(message, DataWarning, stacklevel=3)

    def _forgotten(self, x: Tensor, context: Tensor | None) -> str | None:
        """Returns a note if the standardization was forgotten, and compares no other batch."""
        self.unchecked = False
        return self.standardization.forgotten(x, context)
