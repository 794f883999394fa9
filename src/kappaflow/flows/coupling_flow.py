"""`coupling_flow` builds the flows of all recipes with couplings."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import torch
from torch import nn

from kappaflow._checks import natural_int, one_of, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, Gaussianize, Permutation
from kappaflow.bijections.conv1x1 import check_form, mixing_layer
from kappaflow.bijections.coupling import check_something_to_read
from kappaflow.errors import ArgumentError
from kappaflow.factor import Whiten
from kappaflow.flows.base import NormalMixture, StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.padding import Padding
from kappaflow.flows.padding_options import checked_padding, padding_features
from kappaflow.flows.standardization import Bounds, context_embedding, input_layers
from kappaflow.nets import MLP
from kappaflow.nets.activations import AnyActivation
from kappaflow.options import Memory, Mixing, PartitionName, Start
from kappaflow.partition import Partition, shuffled
from kappaflow.stack import CouplingStack

UNMIXED = ("random", "random-half")  # these already mix the features


def coupling_flow(
    features: int,
    *,
    depth: int,
    partition: PartitionName | Partition,
    padding: int | Padding | None,
    context_features: int,
    embedding: nn.Module | None,
    seed: int,
    start: Start,
    components: int = 1,
    activation: AnyActivation = "relu",
    bounds: Bounds = None,
    circle: float | None = None,
    mixing: Mixing | None = None,
    condition_bound: float | None = None,
    memory: Memory = "recompute",
    last: Sequence[Bijection] = (),
    run_of: Callable[..., CouplingStack | Chain] | None = None,
    **couplings: Any,  # noqa: ANN401
) -> Flow:
    """Returns a flow of a `Standardize` and `depth` couplings that alternate between two parts.

    With `mixing`, all couplings change the same part. `kappaflow.real_nvp` describes most
    arguments. `circle` is half the length of the circles, if the couplings support them; None cuts
    circles into intervals. `last` holds bijections after the couplings. `run_of` makes the
    couplings: it takes the arguments that `CouplingStack` has for all kinds of couplings, the
    activation, and `**couplings`. By default they are a `CouplingStack`, or a chain if their
    activation is not ReLU.
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
    if one_of("start", start, get_args(Start)) == "gaussianize":
        run.append(Gaussianize(joint, padding=extra))
    if start != "identity" and joint > 1:
        _check_varies(added)
        run.append(Whiten(joint))
    if start == "whiten-gaussianize":
        run.append(Gaussianize(joint, padding=extra))
    if layers:
        if run_of is None and activation == "relu":
            run_of = CouplingStack
        else:
            couplings["activation"] = activation
        turns = [layer if mixing is None else 0 for layer in layers]
        stack = (run_of or affine_couplings)(
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


def affine_couplings(
    partitions: Sequence[Partition],
    hidden: Sequence[int],
    *,
    kind: str,
    activation: AnyActivation,
    context_features: int,
    permutations: Sequence[Sequence[int]] | None,
    memory: str,
    scale_bound: float = 2.0,
    **network: Any,  # noqa: ANN401
) -> Chain:
    """Returns a chain of affine or additive couplings, with permutations before them."""
    parts: list[Bijection] = []
    for layer, partition in enumerate(partitions):
        if permutations is not None:
            parts.append(Permutation(permutations[layer]))
        conditioner = MLP(
            len(partition.kept),
            len(partition.changed) * (2 if kind == "affine" else 1),
            hidden,
            context_features=context_features,
            activation=activation,
            **network,
        )
        coupling = (
            AffineCoupling(
                partition,
                conditioner,
                scale_bound=scale_bound,
                context_features=context_features,
            )
            if kind == "affine"
            else AdditiveCoupling(partition, conditioner, context_features=context_features)
        )
        parts.append(coupling)
    return Chain(parts, memory=memory)


def _mixed(
    couplings: Iterable[Bijection],
    features: int,
    mixing: Mixing,
    condition_bound: float | None,
    seed: int,
) -> list[Bijection]:
    generator = torch.Generator().manual_seed(seed)
    parts: list[Bijection] = []
    for coupling in couplings:
        mix = mixing_layer(features, mixing, condition_bound=condition_bound, generator=generator)
        parts += [mix, coupling]
    return parts


def _turn(
    partition: PartitionName | Partition, features: int, padding: int, layer: int, seed: int
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

    With at least two features of each, every coupling then reads and changes both data and
    padding. A coupling may learn to ignore the padding, so a padded flow can represent every flow
    without padding. The padding comes after the data; `seed` selects the kept padding features,
    and None keeps the first ones.

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


def _check_partition(
    partition: PartitionName | Partition, features: int, context_features: int
) -> None:
    if isinstance(partition, Partition):
        check_something_to_read(partition, context_features)
        if partition.features != features:
            raise ArgumentError(
                f"'partition' should have {features} features, got {partition.features}."
            )
    elif partition not in get_args(PartitionName):
        listed = ", ".join(map(repr, get_args(PartitionName)))
        raise ArgumentError(
            f"'partition' should be one of {listed} or a Partition, got {partition!r}."
        )


def _check_mixing(
    mixing: Mixing | None, condition_bound: float | None, partition: PartitionName | Partition
) -> None:
    check_form("mixing", mixing, condition_bound, others=(None,))
    if mixing is not None and partition in UNMIXED:
        raise ArgumentError(
            f"'partition' should be 'half', 'alternating' or a Partition with mixing={mixing!r}, "
            f"got {partition!r}: the linear maps already mix the features."
        )


def useful_depth(features: int, depth: int, context_features: int) -> int:
    """Returns the number of couplings that have an effect.

    A single feature has no other feature to read. Affine maps of one feature compose to an affine
    map, so one coupling that reads the context is enough.
    """
    if features > 1:
        return depth
    return 1 if context_features else 0


def _check_varies(padding: Padding | None) -> None:
    """Raises if padding that depends on the data would be whitened."""
    if padding is not None and not padding.has_density:
        raise ArgumentError(
            "'start' should be 'identity' with padding that has no density, because such padding "
            "cannot be whitened."
        )
