"""`Plan`: the layers with which `rewrite_fixed_partition` replaces those of a flow.

All couplings of the new flow use one partition. It computes with reordered features y = x[order],
where x are the features of the old flow. A permutation in the old flow only changes the order. A
coupling needs its kept features in one part of the partition and its changed features in the
other. Within the parts the order is free, because conditioners can be reordered. So features move
only if they are in the wrong part for a coupling, or if a layer of an unknown kind needs the old
order. Linear layers and moves between two couplings are merged into one map.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection, Inverse
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, Logit
from kappaflow.errors import ArgumentError
from kappaflow.factor import LinearCoupling
from kappaflow.nets import MLP
from kappaflow.nets.exact_type import is_exact
from kappaflow.nets.linearized import is_plain
from kappaflow.partition import Partition
from kappaflow.registry import register
from kappaflow.rewrite.layers import (
    AffineMap,
    Item,
    MixingMap,
    affine_map,
    elementwise_if_any,
    is_coupling,
    is_elementwise,
    is_frozen,
    is_inverse_coupling,
    is_linear,
    is_permutation,
    partition_of,
)

AnyCoupling = AffineCoupling | AdditiveCoupling


def reordered(coupling: AnyCoupling, order: Sequence[int], *, partition: Partition) -> AnyCoupling:
    """Returns a coupling of y = x[order] that equals a coupling of x.

    The new partition keeps the same features, at new positions. A conditioner other than a plain
    `MLP` is wrapped.
    """
    inputs = _new_numbers(order, coupling.partition.kept, partition.kept)
    changed = _new_numbers(order, coupling.partition.changed, partition.changed)
    width = len(changed)
    outputs = [i * width + j for i in range(coupling.parameters_per_feature) for j in changed]
    network = _reordered_network(coupling.conditioner, inputs, outputs)
    settings: dict[str, Any] = {"context_features": coupling.context_features}
    if isinstance(coupling, AffineCoupling):
        settings["scale_bound"] = coupling.scale_bound
        settings["scale"] = coupling.scale
    return type(coupling)(partition, network, **settings)


@register("ReorderedNetwork")
class ReorderedNetwork(nn.Module):
    """Wraps a conditioner to move its inputs and outputs to new positions."""

    def __init__(self, network: nn.Module, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.inputs: Tensor
        self.outputs: Tensor
        self.register_buffer("inputs", torch.as_tensor(inputs))
        self.register_buffer("outputs", torch.as_tensor(outputs).argsort())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns the output of the network, in the new order."""
        x = x.index_select(1, self.inputs)
        answer = self.network(x) if context is None else self.network(x, context)
        return answer.index_select(1, self.outputs)


def _new_numbers(
    order: Sequence[int], features: Sequence[int], positions: Sequence[int]
) -> list[int]:
    """Returns the position of each feature, as an index into the list of new positions."""
    number = {order[position]: i for i, position in enumerate(positions)}
    return [number[feature] for feature in features]


def _reordered_network(
    network: nn.Module, inputs: Sequence[int], outputs: Sequence[int]
) -> nn.Module:
    """Returns a copy that reads and writes the new positions: its weights permuted, or wrapped."""
    if inputs == sorted(inputs) and outputs == sorted(outputs):
        return copy.deepcopy(network)
    if not (is_plain(network) and _only_first_layer_reads(network)):
        return ReorderedNetwork(copy.deepcopy(network), inputs, outputs)
    permuted = copy.deepcopy(network)
    state = permuted.state_dict()
    first, last = "layers.0.weight", f"layers.{len(permuted.layers) - 1}"
    state[first][:, list(inputs)] = state[first][:, : len(inputs)].clone()
    for name in (f"{last}.weight", f"{last}.bias"):
        state[name][list(outputs)] = state[name].clone()
    return permuted


def _only_first_layer_reads(network: MLP) -> bool:
    """Returns whether no residual connection adds the input to the first hidden layer."""
    state = network.state_dict()
    rows, columns = state["layers.0.weight"].shape
    return not (network.residual and rows == columns)


class Plan:
    """Collects layers on one partition that compute the same as the added layers of the old flow.

    The new couplings may swap the parts of the partition. `items` holds the new layers, and linear
    maps that `rewrite_fixed_partition` factors later. `left` holds the class names of the layers
    that were left unchanged.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.items: list[Item] = []
        self.left: list[str] = []
        self._order = list(range(partition.features))
        self._pending: AffineMap | None = None
        self._after: AffineMap | None = None  # elementwise, after the pending map
        self._names: list[str] = []
        # The old layers that the two maps come from, to know if they are frozen.
        self._sources: tuple[list[Bijection], list[Bijection]] = ([], [])
        self._is_last_map = False  # whether the pending map is the last one

    def add_all(self, parts: Sequence[Bijection]) -> None:
        """Adds all layers of the old flow, then restores the order of the features."""
        mixes = [is_linear(part) and not is_elementwise(part) for part in parts]
        last = max((number for number, does in enumerate(mixes) if does), default=0)
        for number, part in enumerate(parts):
            self._is_last_map = number > last
            self._add(part)
        self._finish()

    def _add(self, part: Bijection) -> None:
        """Adds a layer."""
        if is_permutation(part):
            index = self._map_of(part).matrix.argmax(0)  # feature f moves to position index[f]
            self._order = [int(index[feature]) for feature in self._order]
            self._names.append(type(part).__name__)
        elif self._can_stay(part):
            self.items.append(part)
        elif is_linear(part) and (not is_elementwise(part) or self._pending is not None):
            self._add_linear(part)
        elif is_coupling(part) and (own := partition_of(part)) is not None:
            self._add_coupling(part, own)  # pyright: ignore[reportArgumentType]
        elif is_inverse_coupling(part) and (own := partition_of(part)) is not None:
            self._add_coupling(part.bijection, own)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
            self.items[-1] = Inverse(self.items[-1])  # pyright: ignore[reportArgumentType]
        elif is_linear(part) and not self._in_order():
            scales = self._map_of(part).reordered(self._order)
            frozen = is_frozen([part])
            self.items += elementwise_if_any(scales.matrix.diagonal(), scales.shift, frozen=frozen)
        else:
            self._add_unchanged(part)

    def _finish(self) -> None:
        """Restores the order of the features."""
        self._move_to(self._positions())
        self._flush()

    def _can_stay(self, part: Bijection) -> bool:
        """Returns whether a layer is a linear coupling that can stay unchanged."""
        if not is_exact(part, LinearCoupling) or not self._in_order():
            return False
        own = (self.partition, self.partition.swapped())
        return self._pending is None and partition_of(part) in own

    def _map_of(self, part: Bijection) -> AffineMap:
        """Returns a linear layer as a matrix and a shift, in the order of the old flow."""
        return affine_map([part], self.partition.features)

    def _in_order(self) -> bool:
        return self._order == sorted(self._order)

    def _positions(self) -> list[int]:
        """Returns the present position of each feature of the old flow."""
        return np.argsort(self._order).tolist()

    def _add_linear(self, part: Bijection) -> None:
        """Adds a linear layer to the pending map, or an elementwise layer after that map."""
        linear = self._map_of(part).reordered(self._order)
        mixing, after = self._sources
        if is_elementwise(part):
            self._after = linear if self._after is None else self._after.then(linear)
            after.append(part)
            return
        for before in (self._after, self._pending):
            linear = linear if before is None else before.then(linear)
        self._pending, self._after = linear, None
        self._sources = [*mixing, *after, part], []
        self._names.append(type(part).__name__)

    def _add_coupling(self, coupling: AnyCoupling, partition: Partition) -> None:
        """Adds a coupling after moving the features that are in the wrong part."""
        target = self._target(partition)
        self._move_to(self._moves(partition, target))
        self._flush()
        self.items.append(reordered(coupling, self._order, partition=target))

    def _target(self, old: Partition) -> Partition:
        """Returns the partition of the new coupling, with or without swapped parts."""
        fitting = [
            target
            for target in (self.partition, self.partition.swapped())
            if len(target.kept) == len(old.kept)
        ]
        if not fitting:
            sizes = len(self.partition.kept), len(self.partition.changed)
            raise ArgumentError(
                "'partition' should have parts of the sizes that the couplings of the flow have, "
                f"got {sizes[0]} and {sizes[1]} where a coupling keeps {len(old.kept)} of "
                f"{old.features} features."
            )
        wrong = [len(self._misplaced(old, target)) for target in fitting]
        # Exchanging the parts at the last map would require another map to restore them.
        stay = self._pending is None or (self._is_last_map and self._in_order())
        if stay and 0 in wrong:
            return fitting[wrong.index(0)]
        # The outer factors of a map merge with both neighbors if these change different parts.
        last = next((p for item in reversed(self.items) if (p := partition_of(item))), None)
        return min(zip(fitting, wrong, strict=True), key=lambda f: (f[0] == last, f[1]))[0]

    def _misplaced(self, old: Partition, target: Partition) -> list[int]:
        """Returns positions of features that must be kept but lie outside the kept part."""
        positions = self._positions()
        return sorted({positions[feature] for feature in old.kept} - set(target.kept))

    def _moves(self, old: Partition, target: Partition) -> list[int]:
        """Returns the old position for each new position, as an even permutation if possible."""
        positions = self._positions()
        kept = {positions[feature] for feature in old.kept}
        moves = list(range(len(positions)))
        for inside, outside in zip(
            sorted(set(target.kept) - kept), self._misplaced(old, target), strict=True
        ):
            moves[inside], moves[outside] = outside, inside
        sign = np.linalg.det(np.eye(len(moves))[moves])
        if self._pending is not None:
            sign *= np.linalg.slogdet(self._pending.matrix)[0]
        large = max(target.kept, target.changed, key=len)
        # Couplings with positive scales have positive determinants, so two more features swap.
        # If all others are in place, that would only add couplings to swap them back.
        in_order = self._in_order() and moves == sorted(moves)
        if sign < 0 and len(large) > 1 and not in_order:
            a, b = large[:2]
            moves[a], moves[b] = moves[b], moves[a]
        return moves

    def _move_to(self, moves: Sequence[int]) -> None:
        """Moves the feature at position moves[i] to position i."""
        if list(moves) == sorted(moves):
            return
        self._order = [self._order[position] for position in moves]
        move = AffineMap.move(moves)
        self._pending = move if self._pending is None else self._pending.then(move)
        if self._after is not None:
            self._after = self._after.reordered(moves)

    def _flush(self) -> None:
        """Adds the pending maps as layers, frozen if all of their source layers were."""
        frozen, frozen_after = map(is_frozen, self._sources)
        if self._pending is not None:
            matrix, shift = self._pending
            if not np.array_equal(matrix, np.eye(len(matrix))):
                name = " and ".join(dict.fromkeys(self._names)) or "another partition"
                self.items.append(MixingMap(matrix, name, frozen))
            self.items += elementwise_if_any(np.ones(len(matrix)), shift, frozen=frozen)
        if self._after is not None:
            scale, shift = self._after.matrix.diagonal(), self._after.shift
            self.items += elementwise_if_any(scale, shift, frozen=frozen_after)
        self._pending, self._after, self._names = None, None, []
        self._sources = [], []

    def _add_unchanged(self, part: Bijection) -> None:
        """Adds a layer unchanged, after restoring the order of the features."""
        # a Logit without padding is the same function of each feature, in any order
        if not isinstance(part, Logit) or part.padding:
            self._finish()
        self._flush()
        self.items.append(part)
        if not (is_linear(part) or is_elementwise(part)):
            self.left.append(type(part).__name__)
