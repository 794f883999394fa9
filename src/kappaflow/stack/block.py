"""A block of couplings: at most 32 of them, with stacked weights."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from kappaflow.bijection import Bijection
from kappaflow.bijections import Permutation
from kappaflow.partition import Partition
from kappaflow.stack.execution import KEEP, Manner, Pass
from kappaflow.stack.plain import couplings
from kappaflow.stack.route import Order
from kappaflow.stack.shape import BlockShape, NetworkShape
from kappaflow.stack.weights import StackedNetworks, named_rows


class Block(nn.Module):
    """Couplings with stacked weights.

    Args:
        shape: Of the couplings.
        partitions: One a coupling.
        permutations: One in front of each coupling, or None.
        first: How many couplings of the stack come before this block.

    Attributes:
        recomputing: Whether the memory mode "invert" was given up here, since states did not come
            back exactly enough.
    """

    def __init__(
        self,
        shape: BlockShape,
        partitions: Sequence[Partition],
        permutations: Sequence[Order | None],
        first: int,
    ) -> None:
        super().__init__()
        self.shape, self.first, self.recomputing = shape, first, False
        self.partitions, self.permutations = tuple(partitions), tuple(permutations)
        self.networks = nn.ModuleList(
            StackedNetworks(shape.network_of.count(i), network)
            for i, network in enumerate(shape.networks)
        )

    def tensors(self) -> list[Tensor]:
        """Returns the weights and the biases of each network."""
        return [tensor for network in self._stacked() for tensor in network.tensors()]

    def start_from(self, make: Callable[[NetworkShape], nn.Module]) -> None:
        """Copies the weights of new conditioners, which are made in the order of the couplings."""
        for number, row in zip(self.shape.network_of, self.shape.row_of, strict=True):
            self._stacked()[number].take(row, make(self.shape.networks[number]))

    def rows(self, tensors: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Returns the part of such tensors that belongs to each coupling, by its plain name."""
        parts = len(tensors) // len(self.shape.networks)
        by_network = [
            named_rows(network, tensors[i * parts : (i + 1) * parts])
            for i, network in enumerate(self.shape.networks)
        ]
        places = zip(self.shape.network_of, self.shape.row_of, strict=True)
        return [by_network[number][row] for number, row in places]

    def plain(self, tensors: Sequence[Tensor] | None = None) -> list[Bijection]:
        """Returns permutations and plain couplings that read given tensors, or the own ones."""
        rows = self.rows(self.tensors() if tensors is None else tensors)
        parts: list[Bijection] = []
        made = couplings(self.shape, self.partitions, rows)
        for permutation, coupling in zip(self.permutations, made, strict=True):
            if permutation is not None:
                parts.append(Permutation(permutation).to(rows[0]["layers.0.weight"].device))
            parts.append(coupling.train(self.training))
        return parts

    def start(self, manner: Manner, x: Tensor) -> Pass:
        """Returns a pass of x (B, features)."""
        seed = manner.seed if self.training and self.shape.dropout > 0 else None
        return Pass(
            self.shape,
            manner.direction,
            x,
            keep=KEEP[manner.memory],
            marked=manner.memory == "invert",
            kind=manner.kind,
            seed=None if seed is None else (seed + self.first) % 2**63,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Returns what copies and pickles take over: not the verdict on inversion."""
        return {**self.__dict__, "recomputing": False}

    def layer_names(self) -> list[str]:
        """Returns the names of the couplings: the place in the stack, from 1, and the class."""
        name = "AffineCoupling" if self.shape.affine else "AdditiveCoupling"
        return [f"{self.first + i} {name}" for i in range(1, self.shape.layers + 1)]

    def _stacked(self) -> list[StackedNetworks]:
        return list(self.networks)  # pyright: ignore[reportReturnType]

    def extra_repr(self) -> str:
        layers = f"layers {self.first + 1} to {self.first + self.shape.layers}"
        return layers + (", recomputing" if self.recomputing else "")
