"""What the coupling recipes share: the run of couplings that they assemble."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from kappaflow._checks import natural_int, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Permutation, Standardize
from kappaflow.bijections.coupling import Coupling, mlp_conditioner
from kappaflow.errors import ArgumentError
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.nets import StandardizeInputs
from kappaflow.partition import Partition

PARTITIONS = ("half", "alternating", "random", "random-half")


def coupling_flow(
    features: int,
    make: Callable[..., Coupling],
    kind: type[Coupling],
    *,
    depth: int,
    hidden: Sequence[int],
    partition: str | Partition,
    context_features: int,
    residual: bool,
    dropout: float,
    seed: int,
    last: Sequence[Bijection] = (),
) -> Flow:
    """Returns a flow of `depth` couplings, whose parts take turns, behind a `Standardize`.

    Args:
        features: Number of features; with one, `depth` is at most 1, and 0 without a context.
        make: Returns a coupling from a partition and a conditioner.
        kind: The class of couplings that `make` returns.
        depth: Number of couplings.
        hidden: Widths of the conditioners' hidden layers.
        partition: "half", "alternating", "random", "random-half", or the partition of the first
            coupling.
        context_features: Width of the context, 0 for none.
        residual: Whether the conditioners add each hidden layer to the next of equal width.
        dropout: Share of the hidden units that a training step leaves out.
        seed: Draws the random partitions.
        last: Bijections behind the couplings.

    Returns:
        The flow, the identity until it is trained.
    """
    positive_int("features", features)
    positive_int("depth", depth, "depth counts couplings.")
    natural_int("context_features", context_features)
    natural_int("seed", seed)
    conditioner = functools.partial(
        mlp_conditioner,
        kind,
        hidden=hidden,
        context_features=context_features,
        residual=residual,
        dropout=dropout,
    )
    _check_partition(partition, features)
    run: list[Bijection] = []
    for layer in range(useful_depth(features, depth, context_features)):
        if partition == "random":
            run.append(Permutation.random(features, seed=seed + layer))
        turn = _turn(partition, features, layer, seed)
        run.append(make(turn, conditioner(turn)))
    before: dict[str, Any] = {}
    if context_features:
        before["embedding"] = StandardizeInputs(context_features)
        before["context_features"] = context_features
    # A chain of their own: names in model files stay when a faster execution takes it over.
    parts = [Standardize(features), *([Chain(run)] if run else []), *last]
    return Flow(StandardNormal(features), Chain(parts, **before))


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


def _check_partition(partition: str | Partition, features: int) -> None:
    if isinstance(partition, Partition):
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
