"""What a run of couplings looks like, without its weights."""

import functools
from dataclasses import dataclass

from kappaflow.partition import Partition
from kappaflow.stack.route import Order, Route, routes


@dataclass(frozen=True)
class NetworkShape:
    """The shape of a fully connected conditioner.

    Attributes:
        widths: Of the input (without the context), of the hidden layers, and of the output.
        context_features: Width of the context, read beside the input by the first layer.
        residual: Whether hidden layers of equal width are added up.
        dropout: Share of the hidden units that a training step leaves out.
        wiring: "plain", "blocks" (of a `ResidualMLP`) or "twins" (a `TwinMLP`).
    """

    widths: tuple[int, ...]
    context_features: int
    residual: bool
    dropout: float
    wiring: str = "plain"

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
        """Whether the hidden layers are those of a `ResidualMLP`."""
        return self.wiring == "blocks"

    @property
    def has_twins(self) -> bool:
        """Whether behind the first layer there are two halves: that of a `TwinMLP`."""
        return self.wiring == "twins"

    def adds(self, layer: int) -> bool:
        """Returns whether the input of a hidden layer is added to its output."""
        return self.residual and self.inputs[layer] == self.outputs[layer]


# Compared by identity: equal blocks share one object, which then is a quick key of their buffers.
@dataclass(frozen=True, eq=False)
class BlockShape:
    """The shape of a run of couplings.

    Attributes:
        features: How many there are.
        encode: The route from data to latent.
        decode: The route from latent to data.
        networks: The different conditioners.
        network_of: Which of them each coupling has.
        row_of: How many couplings before it have the same.
        affine: Whether the couplings scale, or only shift.
        scale_bound: Bound on the log-scale of each coupling.
        scale: The curve of the log-scales.
    """

    features: int
    encode: Route
    decode: Route
    networks: tuple[NetworkShape, ...]
    network_of: tuple[int, ...]
    row_of: tuple[int, ...]
    affine: bool
    scale_bound: float
    scale: str

    def __deepcopy__(self, memo: object) -> "BlockShape":
        return self

    @property
    def layers(self) -> int:
        """How many couplings there are."""
        return len(self.network_of)

    @property
    def context_features(self) -> int:
        """Width of the context, 0 for none."""
        return self.networks[0].context_features

    @property
    def dropout(self) -> float:
        """Share of the hidden units that a training step leaves out."""
        return self.networks[0].dropout


@functools.lru_cache(maxsize=1024)
def block_shape(
    partitions: tuple[Partition, ...],
    permutations: tuple[Order | None, ...],
    hidden: tuple[int, ...],
    *,
    affine: bool,
    scale_bound: float,
    context_features: int,
    residual: bool,
    dropout: float,
    scale: str = "tanh",
    wiring: str = "plain",
) -> BlockShape:
    """Returns the shape of a run of couplings; the same object for the same arguments."""
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
