"""`coupling_flow`, which the recipes of couplings share."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from kappaflow._checks import natural_int, one_of, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Gaussianize, Permutation
from kappaflow.bijections.conv1x1 import check_form, mixing_layer
from kappaflow.bijections.coupling import check_something_to_read
from kappaflow.errors import ArgumentError
from kappaflow.factor import Whiten
from kappaflow.flows.base import NormalMixture, StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.padding import Padding
from kappaflow.flows.padding_options import checked_padding, padding_features
from kappaflow.flows.standardization import Bounds, context_embedding, input_layers
from kappaflow.partition import Partition, shuffled
from kappaflow.stack import CouplingStack

STARTS = ("identity", "whiten", "gaussianize", "whiten-gaussianize")
PARTITIONS = ("half", "alternating", "random", "random-half")
UNMIXED = ("random", "random-half")  # these already mix the features


def coupling_flow(
    features: int,
    *,
    depth: int,
    partition: str | Partition,
    padding: int | Padding | None,
    context_features: int,
    embedding: nn.Module | None,
    seed: int,
    start: str,
    components: int = 1,
    bounds: Bounds = None,
    circle: float | None = None,
    mixing: str | None = None,
    condition_bound: float | None = None,
    memory: str = "recompute",
    last: Sequence[Bijection] = (),
    run_of: Callable[..., CouplingStack | Chain] = CouplingStack,
    **couplings: Any,  # noqa: ANN401
) -> Flow:
    """Returns a flow of `depth` couplings that alternate between two parts, after a `Standardize`.

    With `mixing`, all couplings change the same part.

    Args:
        features: Number of features, without padding; with one in all, `depth` is at most 1, and 0
            without a context.
        depth: Number of couplings.
        partition: "half", "alternating", "random", "random-half", or the partition of the first
            coupling.
        padding: A `Padding`, or how many Gaussian features are added; None for none.
        context_features: Width of the context, 0 for none.
        embedding: A network that the context goes through first; None for none.
        seed: Draws the random partitions, and the rotations at which linear maps begin.
        start: "identity", "whiten" for a `Whiten` before the couplings, "gaussianize" for a
            `Gaussianize` and a `Whiten`, or "whiten-gaussianize" for the two in that order.
        components: Components of the base: 1 for a standard normal, more for a `NormalMixture`.
        bounds: The domain of each feature, None for none.
        circle: Half the length of circles that the couplings know; None to cut them.
        mixing: Form of a linear map before each coupling; None for none.
        condition_bound: For mixing="svd": the largest condition number of each.
        memory: What is kept for the backward pass.
        last: Bijections after the couplings.
        run_of: Makes the run of couplings, of what `CouplingStack` takes for any kind.
        **couplings: Further arguments of `run_of`.

    Returns:
        The flow: until it is fitted and trained the identity, or a rotation where it mixes.
    """
    positive_int("features", features)
    positive_int("depth", depth, "depth counts couplings.")
    width, before = context_embedding(context_features, embedding)
    natural_int("seed", seed)
    added = checked_padding(padding)
    joint, extra = features + padding_features(added), padding_features(added)
    _check_partition(partition, joint, width)
    _check_mixing(mixing, condition_bound, partition)
    layers = range(useful_depth(joint, depth, width))
    permutations = None
    if partition == "random":
        permutations = [
            Permutation.random(joint, seed=seed + layer).index.tolist() for layer in layers
        ]
    run: list[Bijection] = []
    if one_of("start", start, STARTS) == "gaussianize":
        run.append(Gaussianize(joint, padding=extra))
    if start != "identity" and joint > 1:
        _check_varies(added)
        run.append(Whiten(joint))
    if start == "whiten-gaussianize":
        run.append(Gaussianize(joint, padding=extra))
    if layers:
        turns = [layer if mixing is None else 0 for layer in layers]
        stack = run_of(
            [_turn(partition, features, extra, turn, seed) for turn in turns],
            context_features=width,
            permutations=permutations,
            memory=memory,
            **couplings,
        )
        if mixing is None or joint == 1:
            run.append(stack)
        else:
            plain = stack.to_chain() if isinstance(stack, CouplingStack) else stack
            mixed = _mixed(plain, joint, mixing, condition_bound, seed)
            run.append(Chain(mixed, memory=memory))
    units = input_layers(features, bounds, padding=extra, circle=circle)
    count = positive_int("components", components)
    base = StandardNormal(joint) if count == 1 else NormalMixture(joint, components=count)
    return Flow(base, Chain([*units, *run, *last], **before), added)


def _mixed(
    couplings: Iterable[Bijection],
    features: int,
    mixing: str,
    condition_bound: float | None,
    seed: int,
) -> list[Bijection]:
    """Returns couplings, each with a linear map before it."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[Bijection] = []
    for coupling in couplings:
        mix = mixing_layer(features, mixing, condition_bound=condition_bound, generator=generator)
        parts += [mix, coupling]
    return parts


def _turn(
    partition: str | Partition, features: int, padding: int, layer: int, seed: int
) -> Partition:
    """Returns the partition of a layer, counted from 0."""
    joint = features + padding
    if joint == 1 or partition == "random":
        return Partition.half(joint)
    if isinstance(partition, Partition):
        first = partition
    elif partition == "alternating":
        first = Partition.alternating(joint)
    elif partition == "random-half":
        drawn = seed + layer // 2
        first = padded_partition(Partition.random_half(features, seed=drawn), padding, seed=drawn)
    else:
        first = padded_partition(Partition.half(features), padding)
    return first if layer % 2 == 0 else first.swapped()


def padded_partition(partition: Partition, padding: int, *, seed: int | None = None) -> Partition:
    """Extends a partition of the data to data and padding; each part gets half of the padding.

    Every coupling then reads and changes some of both if there are two of each. A coupling that
    ignores the padding is a coupling of the data alone, so a padded flow contains the flow
    without padding.

    Args:
        partition: Of the features of the data.
        padding: Number of padding features after them.
        seed: Selects the kept ones at random; the first ones if left out.

    Returns:
        A partition that also keeps ceil(padding / 2) features of the padding.

    Example:
        >>> padded_partition(Partition.half(2), 3)
        Partition(5 features: keeps 0, 2, 3, changes 1, 4)
    """
    if not padding:
        return partition
    order = list(range(padding)) if seed is None else shuffled(padding, seed)
    kept = [partition.features + i for i in order[: (padding + 1) // 2]]
    return Partition(partition.features + padding, (*partition.kept, *kept))


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


def _check_mixing(
    mixing: str | None, condition_bound: float | None, partition: str | Partition
) -> None:
    """Raises for an unknown mixing, a bound that it has not, and a partition that mixes too."""
    check_form("mixing", mixing, condition_bound, others=(None,))
    if mixing is not None and partition in UNMIXED:
        raise ArgumentError(
            f"'partition' should be 'half', 'alternating' or a Partition with mixing={mixing!r}, "
            f"got {partition!r}: the linear maps mix, so that one partition serves all couplings."
        )


def useful_depth(features: int, depth: int, context_features: int) -> int:
    """Returns the number of couplings that have an effect: one feature has no other to read.

    Affine maps of one feature compose to an affine map, so one coupling of the context is enough.
    """
    if features > 1:
        return depth
    return 1 if context_features else 0


def _check_varies(padding: Padding | None) -> None:
    """Raises if padding that depends on the data would be whitened."""
    if padding is not None and not padding.has_density:
        raise ArgumentError(
            "'start' should be 'identity' with padding that has no density: no map makes it "
            "uncorrelated."
        )
