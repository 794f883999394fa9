"""The shape of a block without its weights: its conditioners, and the route of the features.

Features pass through a block as two halves. Nothing is moved while couplings alternate between the
same halves. If the next coupling splits the features differently, one gather forms the new halves.
A `RouteSegment` holds the couplings between two gathers.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from kappaflow.partition import Partition

Order = tuple[int, ...]


@dataclass(frozen=True)
class CouplingStep:
    """One coupling: its number in the block, from 0 at the data, and the half that it reads."""

    layer: int
    reads: int


@dataclass(frozen=True)
class RouteSegment:
    """Couplings that alternate between the same two halves; the first reads the first half."""

    gather: Order | None  # index of the features among those before; None if they are in order
    sizes: tuple[int, int]
    steps: tuple[CouplingStep, ...]


@dataclass(frozen=True)
class Route:
    """The couplings of a block in the order of execution."""

    features: int
    segments: tuple[RouteSegment, ...]
    gather: Order | None  # index of each output feature in the halves of the last segment


def routes(
    partitions: Sequence[Partition], permutations: Sequence[Order | None]
) -> tuple[Route, Route]:
    """Returns the routes of the two directions: data to latent, and latent to data."""
    incoming = tuple(range(partitions[0].features))
    order, halves = incoming, []
    for partition, permutation in zip(partitions, permutations, strict=True):
        if permutation is not None:
            order = tuple(order[i] for i in permutation)
        kept, changed = (tuple(order[i] for i in p) for p in (partition.kept, partition.changed))
        halves.append((kept, changed))
    layers = list(enumerate(halves))
    return _route(layers, incoming, order), _route(layers[::-1], order, incoming)


def _route(
    layers: Sequence[tuple[int, tuple[Order, Order]]], incoming: Order, outgoing: Order
) -> Route:
    segments: list[RouteSegment] = []
    now, last = incoming, (incoming, ())
    for layer, (kept, changed) in layers:
        if segments and {kept, changed} == set(last):
            step = CouplingStep(layer, last.index(kept))
            segments[-1] = RouteSegment(
                segments[-1].gather, segments[-1].sizes, (*segments[-1].steps, step)
            )
            continue
        gather, sizes = _gather(kept + changed, now), (len(kept), len(changed))
        segments.append(RouteSegment(gather, sizes, (CouplingStep(layer, 0),)))
        now, last = kept + changed, (kept, changed)
    return Route(len(incoming), tuple(segments), _gather(outgoing, now))


def _gather(expected: Order, actual: Order) -> Order | None:
    """Returns the index of each expected feature in `actual`, or None if they are in order."""
    index_of = {feature: i for i, feature in enumerate(actual)}
    return None if expected == actual else tuple(index_of[feature] for feature in expected)


@dataclass(frozen=True)
class NetworkShape:
    """The shape of a fully connected conditioner."""

    widths: tuple[int, ...]  # of the input (without the context), the hidden layers, the output
    context_features: int
    residual: bool
    dropout: float
    wiring: str = "plain"  # or "blocks" (a `ResidualMLP`) or "paired" (a `PairedMLP`)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Widths of the outputs of the linear layers."""
        return self.widths[1:]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Widths of the inputs of the linear layers."""
        return (self.widths[0] + self.context_features, *self.widths[1:-1])

    @property
    def has_blocks(self) -> bool:
        """Whether the conditioner is a `ResidualMLP`."""
        return self.wiring == "blocks"

    @property
    def is_paired(self) -> bool:
        """Whether the hidden layers after the first are two halves, as in a `PairedMLP`."""
        return self.wiring == "paired"

    def adds(self, layer: int) -> bool:
        """Returns whether the input of a hidden layer is added to its output."""
        return self.residual and self.inputs[layer] == self.outputs[layer]


# Compared by identity: equal blocks share one object, which is a fast key for their buffers.
@dataclass(frozen=True, eq=False)
class BlockShape:
    """The shape of a block of couplings."""

    features: int
    encode: Route
    decode: Route
    networks: tuple[NetworkShape, ...]  # the distinct conditioners
    network_of: tuple[int, ...]  # index of the conditioner of each coupling
    row_of: tuple[int, ...]  # number of earlier couplings with the same one
    affine: bool
    scale_bound: float
    scale: str

    def __deepcopy__(self, memo: object) -> "BlockShape":
        return self

    @property
    def layers(self) -> int:
        """Number of couplings."""
        return len(self.network_of)

    @property
    def context_features(self) -> int:
        """Width of the context; 0 for none."""
        return self.networks[0].context_features

    @property
    def dropout(self) -> float:
        """Share of the hidden units that dropout sets to zero."""
        return self.networks[0].dropout


@functools.lru_cache(maxsize=1024)
def block_shape(
    partitions: tuple[Partition, ...],
    permutations: tuple[Order | None, ...],
    hidden: tuple[int, ...],
    *,
    affine: bool,
    scale_bound: float = 1.0,
    context_features: int,
    residual: bool,
    dropout: float,
    scale: str = "tanh",
    wiring: str = "plain",
) -> BlockShape:
    """Returns the shape of a block; the same object for the same arguments."""
    networks: list[NetworkShape] = []
    network_of, row_of = [], []
    for partition in partitions:
        changed = len(partition.changed)
        widths = (len(partition.kept), *hidden, changed * (2 if affine else 1))
        network = NetworkShape(widths, context_features, residual, dropout, wiring)
        if network not in networks:
            networks.append(network)
        network_of.append(networks.index(network))
        row_of.append(network_of[:-1].count(network_of[-1]))
    encode, decode = routes(partitions, permutations)
    return BlockShape(
        partitions[0].features,
        encode,
        decode,
        tuple(networks),
        tuple(network_of),
        tuple(row_of),
        affine,
        scale_bound,
        scale,
    )
