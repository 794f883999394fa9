"""The layers of a flow: listed, classified, converted to matrices, put back into stacks."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from kappaflow.bijection import Bijection, Chain, Inverse
from kappaflow.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    ElementwiseAffine,
    ImageChain,
    MultiScale,
    Permutation,
    Standardize,
)
from kappaflow.bijections.coupling import Coupling
from kappaflow.errors import ArgumentError
from kappaflow.factor import LinearCoupling, Whiten
from kappaflow.flows import Flow
from kappaflow.linearization import AutogradLinearization
from kappaflow.nets.exact_type import has_hooks, is_exact
from kappaflow.partition import Partition
from kappaflow.rewrite.sandwich import SandwichCoupling
from kappaflow.stack import CouplingStack

STARTS = ("initialized", "fitted")  # flags of layers that start from data
OPENED = (Chain, CouplingStack, Inverse, SandwichCoupling, Whiten)
ELEMENTWISE = (ActNorm, ElementwiseAffine, Standardize)


Change = Callable[[list[Bijection], int], list[Bijection]]


def opened(bijection: Bijection, *, unsplit: tuple[type, ...] = ()) -> list[Bijection]:
    """Returns copies of the innermost layers of a bijection in order, in evaluation mode.

    A module with a hook is not split, because the hook would no longer be called, nor is one of
    the types in `unsplit`.
    """
    return list(_walk(copy.deepcopy(bijection).eval(), unsplit))


def flow_of(flow: Flow, parts: list[Bijection]) -> Flow:
    """Returns a flow with other layers, in their dtype, and everything else from a given flow."""
    chain = flow.bijection if isinstance(flow.bijection, Chain) else Chain([])
    embedding = copy.deepcopy(chain.embedding)
    width = None if embedding is None else chain.context_features
    layers = Chain(parts, embedding=embedding, context_features=width, memory=chain.memory)
    base, augment = copy.deepcopy(flow.base), copy.deepcopy(flow.augment)
    result = Flow(base, layers, augment).to(flow.device).train(flow.training)
    result.columns, result.context_columns = flow.columns, flow.context_columns
    return result


def parts_of(flow: Flow, *, unsplit: tuple[type, ...] = ()) -> list[Bijection]:
    """Returns copies of the layers of a flow; those of the types in `unsplit` are not split."""
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    chain = flow.bijection
    if isinstance(chain, Chain) and has_hooks(chain):
        raise ArgumentError(
            "'flow' should have no hook on its chain: the new flow has a new chain without "
            "the hook. Remove the hook first, and register it again on the new chain."
        )
    return opened(Chain(list(chain)) if isinstance(chain, Chain) else chain, unsplit=unsplit)


def is_elementwise(part: Bijection) -> bool:
    """Returns whether a layer is linear and acts on each feature separately."""
    return isinstance(_inner(part), ELEMENTWISE)


def is_linear(part: Bijection) -> bool:
    """Returns whether a layer is a linear map plus a shift, and does not wait for data."""
    inner = _inner(part)
    flags = (getattr(layer, name, True) for layer in inner.modules() for name in STARTS)
    return inner.is_linear and all(map(bool, flags))


def is_coupling(part: Bijection) -> bool:
    """Returns whether a layer is exactly an `AffineCoupling` or an `AdditiveCoupling`."""
    return is_exact(part, AffineCoupling) or is_exact(part, AdditiveCoupling)


def is_inverse_coupling(part: Bijection) -> bool:
    """Returns whether a layer is the inverse of such a coupling."""
    return isinstance(part, Inverse) and not has_hooks(part) and is_coupling(_inner(part))


def is_frozen(parts: Iterable[nn.Module]) -> bool:
    """Returns whether layers have parameters and none of them is trainable."""
    trained = [parameter.requires_grad for part in parts for parameter in part.parameters()]
    return bool(trained) and not any(trained)


def is_permutation(part: Bijection) -> bool:
    """Returns whether a layer only permutes features."""
    return is_exact(_inner(part), Permutation)


def _inner(part: Bijection) -> Bijection:
    return _inner(part.bijection) if isinstance(part, Inverse) else part


def _walk(part: Bijection, unsplit: tuple[type, ...]) -> Iterator[Bijection]:
    if has_hooks(part) or isinstance(part, unsplit):
        yield part
        return
    if isinstance(part, CouplingStack):
        part = part.to_chain().eval()
    if isinstance(part, Whiten) and part.fitted:
        part = part.couplings
    if isinstance(part, Chain):
        if part.embedding is not None:
            raise ArgumentError(
                "'flow' should not have a chain with a context embedding inside its chain."
            )
        for inner in part:
            yield from _walk(inner, unsplit)
    elif isinstance(part, SandwichCoupling):
        yield from part.parts()
    elif isinstance(part, Inverse) and isinstance(part.bijection, OPENED):
        yield from (_inverse(inner) for inner in reversed(list(_walk(part.bijection, unsplit))))
    else:
        yield part


def _inverse(part: Bijection) -> Bijection:
    return part.bijection if isinstance(part, Inverse) else Inverse(part)


class AffineMap(NamedTuple):
    """x -> matrix x + shift, on columns x."""

    matrix: np.ndarray
    shift: np.ndarray

    def then(self, other: "AffineMap") -> "AffineMap":
        """Returns this map followed by another."""
        return AffineMap(other.matrix @ self.matrix, other.matrix @ self.shift + other.shift)

    def reordered(self, order: Sequence[int]) -> "AffineMap":
        """Returns the same map for features in another order."""
        return AffineMap(self.matrix[np.ix_(order, order)], self.shift[list(order)])

    @classmethod
    def move(cls, order: Sequence[int]) -> "AffineMap":
        """Returns the map x -> x[order]."""
        return cls(np.eye(len(order))[list(order)], np.zeros(len(order)))


@torch.no_grad()
def affine_map(parts: Sequence[Bijection], features: int) -> AffineMap:
    """Returns the matrix and the shift of a sequence of linear layers, in float64.

    The matrix is computed as a derivative: in a difference of values, a large shift would hide it.
    """
    chain = Chain(copy.deepcopy(list(parts))).double().cpu().eval()
    zero = torch.zeros(1, features, dtype=torch.float64)
    at_zero = AutogradLinearization(chain, chain.inverse, zero, None)  # calls hooks too
    columns = at_zero.jv(torch.eye(features, dtype=torch.float64)[:, None])[:, 0]
    return AffineMap(columns.T.numpy().copy(), at_zero.value[0].numpy().copy())


@dataclass(frozen=True)
class MixingMap:
    """A linear map, (n, n) on columns, in float64, and the name of the layers that it replaces."""

    matrix: np.ndarray
    name: str
    frozen: bool = False


Item = Bijection | MixingMap


def partition_of(item: Item | None) -> Partition | None:
    """Returns the partition of a coupling of any kind; None for other items."""
    if isinstance(item, Inverse):
        return partition_of(item.bijection)
    if isinstance(item, AffineCoupling | AdditiveCoupling | SandwichCoupling | LinearCoupling):
        return item.partition if isinstance(item.partition, Partition) else None
    return None


def is_any_coupling(item: Item) -> bool:
    """Returns whether an item is a coupling of any kind, linear or not, in either direction."""
    item = item.bijection if isinstance(item, Inverse) else item
    return isinstance(item, Coupling | SandwichCoupling | LinearCoupling)


def after_standardization(parts: Sequence[Bijection]) -> int:
    """Returns the number of the first layer that does not belong to the standardization."""
    return next((i for i, part in enumerate(parts) if not part.is_standardization), len(parts))


def elementwise(
    scale: np.ndarray, shift: np.ndarray, *, frozen: bool = False
) -> ElementwiseAffine:
    """Returns the layer x -> scale x + shift with positive scales, in float64."""
    layer = ElementwiseAffine(len(scale)).double()
    state = {"log_scale": np.log(scale), "shift": shift.copy()}
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return layer.requires_grad_(not frozen)


def elementwise_if_any(
    scale: np.ndarray, shift: np.ndarray, *, frozen: bool = False
) -> list[Bijection]:
    """Returns the layer x -> scale x + shift in a list, which is empty for the identity."""
    does_nothing = (scale == 1).all() and not shift.any()
    return [] if does_nothing else [elementwise(scale, shift, frozen=frozen)]


def changed_by_run(
    parts: Sequence[Bijection], shape: Sequence[int], change: Change
) -> list[Bijection]:
    """Returns layers in which each sequence of layers on the same features has been changed.

    A sequence ends at a layer that rearranges pixels and features (a squeeze, a flattening) and at
    a multi-scale map, in which the sequence of each scale is changed separately. `change` maps a
    sequence and its number of features to the new layers.
    """
    changed: list[Bijection] = []
    run: list[Bijection] = []
    shape = tuple(shape)
    for part in parts:
        next_shape = part.latent_shape(shape)
        if next_shape == shape and not isinstance(part, MultiScale):
            run.append(part)
            continue
        changed += change(run, shape[0]) if run else []
        changed.append(_scale_by_scale(part, change) if isinstance(part, MultiScale) else part)
        run, shape = [], next_shape
    return changed + (change(run, shape[0]) if run else [])


def _scale_by_scale(part: MultiScale, change: Change) -> MultiScale:
    """Returns a multi-scale map with changed runs in each scale and the same memory modes."""
    scales = []
    for scale, shape in zip(part, part.shapes_in, strict=True):
        layers = changed_by_run(opened(scale), shape, change)
        memory = scale.memory if isinstance(scale, Chain) else None
        kind = type(scale) if isinstance(scale, ImageChain) else Chain
        scales.append(kind(layers, memory=memory))
    return MultiScale(part.event_shape, scales)


def stacked(parts: Sequence[Bijection], like: Flow) -> list[Bijection]:
    """Returns the same layers, with neighboring couplings of one kind and shape in stacks.

    They have the memory mode that all stacks of the flow `like` share, or else "recompute".
    """
    modes = {part.memory for part in like.modules() if isinstance(part, CouplingStack)}
    memory = modes.pop() if len(modes) == 1 else "recompute"
    layers: list[Bijection] = []
    for plain, group in groupby(parts, is_coupling):
        run = list(group)
        if plain and len(run) > 1:
            with suppress(ArgumentError):  # different kinds or networks stay apart
                run = [CouplingStack.of(run, memory=memory)]
        layers += run
    return layers
