"""A flow in the coordinates of one partition.

What flows through the new flow is y = x[order] of what flows through the old one. A permutation of
the old flow only changes the order. A coupling needs what it keeps in one part of the partition,
and what it changes in the other: within the parts the order is free, since conditioners can be
reordered. So features move only where a coupling finds them in the wrong part, and where a layer
that is not known needs the old order. Linear layers and moves between two couplings are one map.
"""

from collections.abc import Sequence

import numpy as np

from kappaflow.bijection import Bijection, Inverse
from kappaflow.bijections import Logit
from kappaflow.errors import ArgumentError
from kappaflow.factor import LinearCoupling
from kappaflow.nets.exact_type import is_exact
from kappaflow.partition import Partition
from kappaflow.rewrite.affine import AffineMap, affine_map
from kappaflow.rewrite.items import Item, LinearMap, elementwise_if_any, partition_of
from kappaflow.rewrite.opened import (
    is_coupling,
    is_elementwise,
    is_frozen,
    is_inverse_coupling,
    is_linear,
    is_permutation,
)
from kappaflow.rewrite.reordered import AnyCoupling, reordered


class Plan:
    """Layers of one partition that do what the layers added so far do.

    Args:
        partition: What couplings may keep, and change; or the other way round.

    Attributes:
        items: The layers, with linear maps that are still to be factored.
        left: Names of layers that were left as they are.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.items: list[Item] = []
        self.left: list[str] = []
        self._order = list(range(partition.features))
        self._pending: AffineMap | None = None
        self._behind: AffineMap | None = None  # elementwise, behind the pending map
        self._names: list[str] = []
        self._sources: tuple[list[Bijection], list[Bijection]] = ([], [])  # of the two maps
        self._is_last_map = False  # what is pending

    def add_all(self, parts: Sequence[Bijection]) -> None:
        """Adds the layers of the old flow, and brings the features back to their order."""
        mixes = [is_linear(part) and not is_elementwise(part) for part in parts]
        last = max((place for place, does in enumerate(mixes) if does), default=0)
        for place, part in enumerate(parts):
            self._is_last_map = place > last
            self._add(part)
        self._finish()

    def _add(self, part: Bijection) -> None:
        """Adds a layer."""
        if is_permutation(part):
            index = self._map_of(part).matrix.argmax(0)  # feature f goes to place index[f]
            self._order = [int(index[feature]) for feature in self._order]
            self._names.append(type(part).__name__)
        elif self._fits(part):
            self.items.append(part)
        elif is_linear(part) and (not is_elementwise(part) or self._pending is not None):
            self._mix(part)
        elif is_coupling(part) and (own := partition_of(part)) is not None:
            self._couple(part, own)  # pyright: ignore[reportArgumentType]
        elif is_inverse_coupling(part) and (own := partition_of(part)) is not None:
            self._couple(part.bijection, own)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
            self.items[-1] = Inverse(self.items[-1])  # pyright: ignore[reportArgumentType]
        elif is_linear(part) and not self._in_order():
            made = self._map_of(part).reordered(self._order)
            frozen = is_frozen([part])
            self.items += elementwise_if_any(made.matrix.diagonal(), made.shift, frozen=frozen)
        else:
            self._leave(part)

    def _finish(self) -> None:
        """Brings the features back to their order."""
        self._move_to(self._positions())
        self._emit()

    def _fits(self, part: Bijection) -> bool:
        """Returns whether a layer is a linear coupling that can stay what it is."""
        if not is_exact(part, LinearCoupling) or not self._in_order():
            return False
        own = (self.partition, self.partition.swapped())
        return self._pending is None and partition_of(part) in own

    def _map_of(self, part: Bijection) -> AffineMap:
        return affine_map([part], self.partition.features)

    def _in_order(self) -> bool:
        return self._order == sorted(self._order)

    def _positions(self) -> list[int]:
        return np.argsort(self._order).tolist()

    def _mix(self, part: Bijection) -> None:
        """Adds a linear layer to the pending map, or an elementwise one behind it."""
        made = self._map_of(part).reordered(self._order)
        mixing, behind = self._sources
        if is_elementwise(part):
            self._behind = made if self._behind is None else self._behind.then(made)
            behind.append(part)
            return
        for before in (self._behind, self._pending):
            made = made if before is None else before.then(made)
        self._pending, self._behind = made, None
        self._sources = [*mixing, *behind, part], []
        self._names.append(type(part).__name__)

    def _couple(self, coupling: AnyCoupling, partition: Partition) -> None:
        """Adds a coupling, and has the features moved that it finds in the wrong part."""
        target = self._target(partition)
        self._move_to(self._moves(partition, target))
        self._emit()
        self.items.append(reordered(coupling, self._order, partition=target))

    def _target(self, old: Partition) -> Partition:
        """Returns the partition of the new coupling: this one, or with its parts exchanged."""
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
        # To exchange the parts at the last map would take another one, to bring them back.
        stay = self._pending is None or (self._is_last_map and self._in_order())
        if stay and 0 in wrong:
            return fitting[wrong.index(0)]
        # Factors of a map join the couplings on both its sides if these change different parts.
        last = next((p for item in reversed(self.items) if (p := partition_of(item))), None)
        return min(zip(fitting, wrong, strict=True), key=lambda f: (f[0] == last, f[1]))[0]

    def _misplaced(self, old: Partition, target: Partition) -> list[int]:
        """Returns the positions outside of what the target keeps, of features to be kept."""
        positions = self._positions()
        return sorted({positions[feature] for feature in old.kept} - set(target.kept))

    def _moves(self, old: Partition, target: Partition) -> list[int]:
        """Returns from where each position takes its feature; an even permutation if it can."""
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
        # Couplings of positive scales have positive determinants: two features more change places,
        # unless all others are where they belong, since it takes couplings to bring them back.
        in_order = self._in_order() and moves == sorted(moves)
        if sign < 0 and len(large) > 1 and not in_order:
            a, b = large[:2]
            moves[a], moves[b] = moves[b], moves[a]
        return moves

    def _move_to(self, moves: Sequence[int]) -> None:
        """Has position i take its feature from position moves[i]."""
        if list(moves) == sorted(moves):
            return
        self._order = [self._order[position] for position in moves]
        move = AffineMap.move(moves)
        self._pending = move if self._pending is None else self._pending.then(move)
        if self._behind is not None:
            self._behind = self._behind.reordered(moves)

    def _emit(self) -> None:
        """Turns what is pending into layers, frozen if all was that it was made of."""
        frozen, frozen_behind = map(is_frozen, self._sources)
        if self._pending is not None:
            matrix, shift = self._pending
            if not np.array_equal(matrix, np.eye(len(matrix))):
                name = " and ".join(dict.fromkeys(self._names)) or "another partition"
                self.items.append(LinearMap(matrix, name, frozen))
            self.items += elementwise_if_any(np.ones(len(matrix)), shift, frozen=frozen)
        if self._behind is not None:
            scale, shift = self._behind.matrix.diagonal(), self._behind.shift
            self.items += elementwise_if_any(scale, shift, frozen=frozen_behind)
        self._pending, self._behind, self._names = None, None, []
        self._sources = [], []

    def _leave(self, part: Bijection) -> None:
        """Adds a layer as it is, in front of which all is in its old order."""
        # the same function of each feature, unless some of them are padding
        if not isinstance(part, Logit) or part.padding:
            self._finish()
        self._emit()
        self.items.append(part)
        if not (is_linear(part) or is_elementwise(part)):
            self.left.append(type(part).__name__)
