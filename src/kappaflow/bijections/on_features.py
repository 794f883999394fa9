"""`OnFeatures` applies a bijection to some of the features."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kappaflow._checks import feature_batch, positive_int
from kappaflow.bijection import Bijection
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.partition import index_on
from kappaflow.registry import register


@register("OnFeatures")
class OnFeatures(Bijection):
    """Applies a bijection to some of the features, and leaves the others unchanged.

    Recipes use it for maps that would not map a circle to itself, on tables with angles.

    Args:
        features: Number of features D.
        changed: Indices of the features that the bijection maps, in its order.
        bijection: A bijection of that many features.

    Raises:
        ArgumentError: `changed` is empty, or names a feature twice or one that does not exist.

    Example:
        >>> import kappaflow as kf
        >>> import torch
        >>> swap = OnFeatures(3, [0, 2], kf.bijections.Permutation([1, 0]))
        >>> swap(torch.tensor([[1.0, 2.0, 3.0]]))[0]
        tensor([[3., 2., 1.]])
    """

    def __init__(self, features: int, changed: Sequence[int], bijection: Bijection) -> None:
        super().__init__()
        self.features = positive_int("features", features)
        self.changed = list(changed)
        if not self.changed or len({*self.changed} & {*range(features)}) < len(self.changed):
            raise ArgumentError(
                f"'changed' should list features from 0 to {features - 1}, each at most once, got "
                f"{changed!r}."
            )
        places = {feature: features + i for i, feature in enumerate(self.changed)}
        self._places = [places.get(i, i) for i in range(features)]
        self.bijection = bijection
        self.context_features = bijection.context_features
        self.is_linear = bijection.is_linear

    def layer_name(self) -> str:
        return self.bijection.layer_name()

    def own(self, x: Tensor) -> Tensor:
        """Returns the features, in the last dimension of x, that the bijection maps."""
        return x.index_select(-1, index_on(x.device, self.changed))

    def merged(self, x: Tensor, own: Tensor) -> Tensor:
        """Returns x with these features in place of its own."""
        return torch.cat([x, own], -1).index_select(-1, index_on(x.device, self._places))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, log_det = self.bijection(self.own(feature_batch("x", x, self.features)), context)
        return self.merged(x, value), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        own = self.own(feature_batch("z", z, self.features))
        value, log_det = self.bijection.inverse(own, context)
        return self.merged(z, value), log_det

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        own = self.own(feature_batch("x", x, self.features))
        return _OnFeaturesLinearization(self, self.bijection.linearize(own, context), x)

    def extra_repr(self) -> str:
        return f"features={self.features}, changed={self.changed}"


class _OnFeaturesLinearization(Linearization):
    """The linearization of an `OnFeatures` from that of its bijection."""

    def __init__(self, layer: OnFeatures, inner: Linearization, x: Tensor) -> None:
        self._layer, self._inner = layer, inner
        self.value, self.log_det = layer.merged(x, inner.value), inner.log_det

    def jv(self, v: Tensor) -> Tensor:
        return self._layer.merged(v, self._inner.jv(self._layer.own(v)))

    def vjp(self, u: Tensor) -> Tensor:
        return self._layer.merged(u, self._inner.vjp(self._layer.own(u)))

    def inverse_jv(self, w: Tensor) -> Tensor:
        return self._layer.merged(w, self._inner.inverse_jv(self._layer.own(w)))

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return self._layer.merged(y, self._inner.inverse_vjp(self._layer.own(y)))
