"""The order in which a run of couplings is executed: which features are read, which are changed.

The features are carried through the run as two halves. Where couplings only let the halves take
turns nothing is ever moved; where the next coupling splits the features in another way, one index
move makes other halves. A `Segment` is what lies between two moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kappaflow.partition import Partition

Order = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One coupling: its place in the run, counted from 0 at the data, and which half it reads."""

    layer: int
    reads: int


@dataclass(frozen=True)
class Segment:
    """Steps between the same two halves.

    Attributes:
        gather: Where the features of the two halves, one after the other, are found among those
            of the segment before, or among the features that come in; None if they are in order.
        sizes: How many features each half has; the first step reads the first half.
        steps: In the order of execution.
    """

    gather: Order | None
    sizes: tuple[int, int]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Route:
    """A run of couplings in the order of execution.

    Attributes:
        features: How many there are.
        segments: At least one.
        gather: Where each feature that goes out is found in the halves of the last segment.
    """

    features: int
    segments: tuple[Segment, ...]
    gather: Order | None


def routes(
    partitions: Sequence[Partition], permutations: Sequence[Order | None]
) -> tuple[Route, Route]:
    """Returns the routes of the two directions: data to latent, and latent to data.

    Args:
        partitions: One a coupling, at least one.
        permutations: One in front of each coupling, z[:, i] = x[:, index[i]]; None for none.

    Returns:
        Both; the second one visits the couplings from the last to the first.
    """
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
    segments: list[Segment] = []
    now, last = incoming, (incoming, ())
    for layer, (kept, changed) in layers:
        if segments and {kept, changed} == set(last):
            step = Step(layer, last.index(kept))
            segments[-1] = Segment(
                segments[-1].gather, segments[-1].sizes, (*segments[-1].steps, step)
            )
            continue
        sizes = len(kept), len(changed)
        segments.append(Segment(_gather(kept + changed, now), sizes, (Step(layer, 0),)))
        now, last = kept + changed, (kept, changed)
    return Route(len(incoming), tuple(segments), _gather(outgoing, now))


def _gather(wanted: Order, found: Order) -> Order | None:
    """Returns where each wanted feature is found, or None if they are in order."""
    place = {feature: i for i, feature in enumerate(found)}
    return None if wanted == found else tuple(place[feature] for feature in wanted)
