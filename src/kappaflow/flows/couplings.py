"""What the coupling recipes share: the run of couplings that they assemble."""

from collections.abc import Sequence
from typing import Any

from kappaflow._checks import natural_int, one_of, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Permutation, Standardize
from kappaflow.bijections.coupling import check_something_to_read
from kappaflow.errors import ArgumentError
from kappaflow.factor import Whiten
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.nets import StandardizeInputs
from kappaflow.partition import Partition
from kappaflow.stack import CouplingStack

STARTS = ("identity", "whiten")
PARTITIONS = ("half", "alternating", "random", "random-half")


def coupling_flow(
    features: int,
    *,
    depth: int,
    partition: str | Partition,
    context_features: int,
    seed: int,
    start: str,
    last: Sequence[Bijection] = (),
    **couplings: Any,  # noqa: ANN401
) -> Flow:
    """Returns a flow of `depth` couplings, whose parts take turns, behind a `Standardize`.

    Args:
        features: Number of features; with one, `depth` is at most 1, and 0 without a context.
        depth: Number of couplings.
        partition: "half", "alternating", "random", "random-half", or the partition of the first
            coupling.
        context_features: Width of the context, 0 for none.
        seed: Draws the random partitions.
        start: "identity", or "whiten" for a `Whiten` in front of the couplings.
        last: Bijections behind the couplings.
        **couplings: What else `CouplingStack` is to be told.

    Returns:
        The flow, the identity until it is fitted and trained.
    """
    positive_int("features", features)
    positive_int("depth", depth, "depth counts couplings.")
    natural_int("context_features", context_features)
    natural_int("seed", seed)
    _check_partition(partition, features, context_features)
    layers = range(useful_depth(features, depth, context_features))
    permutations = None
    if partition == "random":
        permutations = [
            Permutation.random(features, seed=seed + layer).index.tolist() for layer in layers
        ]
    run: list[Bijection] = []
    if one_of("start", start, STARTS) == "whiten" and features > 1:
        run.append(Whiten(features))
    if layers:
        partitions = [_turn(partition, features, layer, seed) for layer in layers]
        run.append(
            CouplingStack(
                partitions,
                context_features=context_features,
                permutations=permutations,
                **couplings,
            )
        )
    before: dict[str, Any] = {}
    if context_features:
        before["embedding"] = StandardizeInputs(context_features)
        before["context_features"] = context_features
    return Flow(StandardNormal(features), Chain([Standardize(features), *run, *last], **before))


def _turn(partition: str | Partition, features: int, layer: int, seed: int) -> Partition:
    """Returns the partition of a layer, counted from 0."""
    if features == 1 or partition == "random":
        return Partition.half(features)
    if isinstance(partition, Partition):
        first = partition
    elif partition == "alternating":
        first = Partition.alternating(features)
    elif partition == "random-half":
        first = Partition.random_half(features, seed=seed + layer // 2)
    else:
        first = Partition.half(features)
    return first if layer % 2 == 0 else first.swapped()


def _check_partition(partition: str | Partition, features: int, context_features: int) -> None:
    if isinstance(partition, Partition):
        check_something_to_read(partition, context_features)
        if partition.features != features:
            raise ArgumentError(
                f"'partition' should be one of {features} features, "
                f"got one of {partition.features}."
            )
    elif partition not in PARTITIONS:
        listed = ", ".join(map(repr, PARTITIONS))
        raise ArgumentError(
            f"'partition' should be one of {listed} or a Partition, got {partition!r}."
        )


def useful_depth(features: int, depth: int, context_features: int) -> int:
    """Returns how many couplings can do something: one feature has no other to read.

    Affine maps of one feature compose to an affine map, so one coupling of the context is all
    there is.
    """
    if features > 1:
        return depth
    return 1 if context_features else 0
