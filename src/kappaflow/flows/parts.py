"""The parts of a flow, and the shapes, dtype and device that follow from them."""

from itertools import chain, takewhile
from typing import Literal

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Domain
from kappaflow.flows.augmentation import Augmentation
from kappaflow.flows.base import Base, log_prob_of_base


class FlowParts(nn.Module):
    """Base class of `Flow`: its parts, and the density of points joined with an augmentation."""

    base: Base
    bijection: Bijection
    augment: Augmentation | None
    #: Names of the features and of the context, which `fit` takes from a table; empty without.
    columns: tuple[str, ...] = ()
    context_columns: tuple[str, ...] = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one point x."""
        joint = self.joint_shape
        return joint if self.augment is None else self.augment.event_shape(joint)

    @property
    def joint_shape(self) -> tuple[int, ...]:
        """Shape of one input of the bijection, which is x joined with its augmentation."""
        return self.bijection.data_shape(self.base.event_shape)

    @property
    def context_features(self) -> int:
        """Width of the context; 0 for an unconditional flow."""
        return self.bijection.context_features or self.base.context_features

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the floating-point state, in which the flow computes."""
        return self._first_float_tensor().dtype

    @property
    def device(self) -> torch.device:
        """Device of the state."""
        return self._first_float_tensor().device

    @property
    def likelihood(self) -> Literal["exact", "bound", "joint"]:
        """Whether `log_prob` is exact, a bound on log p(x), or joint (no likelihood of x)."""
        if self.augment is None:
            return "exact"
        return "bound" if self.augment.has_density else "joint"

    @property
    def domain(self) -> Domain | None:
        """The domain of the features (the first layer), or None."""
        first = takewhile(lambda part: part.is_standardization, self.chain())
        return next((part for part in first if isinstance(part, Domain)), None)

    def chain(self) -> Chain:
        """Returns the bijection as a chain."""
        return self.bijection if isinstance(self.bijection, Chain) else Chain([self.bijection])

    def augmented(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Returns x joined with a sample of its augmentation, as the bijection takes it."""
        if self.augment is None:
            return x
        return self.augment.join(x, self.augment.draw(x, generator=generator)[0])

    def drop_augmentation(self, joined: Tensor) -> Tensor:
        """Returns x for joined points with any leading shape."""
        lead = joined.shape[: joined.dim() - len(self.joint_shape)]
        rows = joined.reshape(-1, *self.joint_shape)
        x = rows if self.augment is None else self.augment.drop(rows)[0]
        return x.reshape(*lead, *self.event_shape)

    def augmented_log_prob(self, joined: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns the exact log-density, (B,), of points joined with their augmentations.

        The value is -inf outside the `domain` of the flow.
        """
        domain = self.domain
        outside = None if domain is None else domain.outside(joined)
        if domain is not None and outside is not None:
            inside = torch.tensor(domain.inside, dtype=joined.dtype)
            inside = inside.to(joined.device, non_blocking=True)  # the host does not wait for it
            joined = torch.where(outside[:, None], inside, joined)
        z, log_det = self.bijection(joined, context)
        log_prob = log_prob_of_base(self.base, z, context) + log_det
        return log_prob if outside is None else log_prob.masked_fill(outside, -torch.inf)

    def _first_float_tensor(self) -> Tensor:
        """Returns a parameter or buffer, which has the dtype and the device of the flow."""
        for tensor in chain(self.parameters(), self.bijection.buffers(), self.buffers()):
            if tensor.is_floating_point():
                return tensor
        return torch.empty(0)
