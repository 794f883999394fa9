"""`coupling_flow` builds the flows of all recipes of couplings for tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from kappaflow._checks import natural_int, one_of, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Gaussianize, OnFeatures, Permutation, RotationCoupling
from kappaflow.bijections.conv1x1 import check_form, mixing_layer
from kappaflow.bijections.coupling import check_something_to_read
from kappaflow.errors import ArgumentError
from kappaflow.factor import Whiten
from kappaflow.flows.base import NormalMixture, StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.padding import Padding, checked_padding, padding_features
from kappaflow.flows.recipe import Options, as_group
from kappaflow.flows.standardization import Bounds, context_embedding, input_layers
from kappaflow.nets import MLP, SinCosEmbedding
from kappaflow.options import (
    CouplingOptions,
    Mixing,
    MixingOptions,
    NetworkOptions,
    PartitionName,
    StartName,
    StartOptions,
)
from kappaflow.partition import Partition, shuffled
from kappaflow.stack import CouplingStack

UNMIXED = ("random", "random-half")  # these already mix the features


@dataclass(frozen=True)
class Transformer:
    """What couplings do to the features that they change."""

    coupling: Callable[..., Bijection]  # from a partition, a conditioner and context_features
    parameters: int  # numbers of the conditioner for each changed feature
    stack: Mapping[str, Any] | None = None  # arguments of a `CouplingStack`, if there is one
    angles: Sequence[int] = ()  # features on a circle, which are read by cosine and sine
    half_period: float | None = None  # half the length of the circles


def coupling_flow(
    features: int,
    transformer: Transformer,
    *,
    depth: int,
    hidden: Sequence[int],
    partition: PartitionName | Partition,
    padding: int | Padding | None,
    context_features: int,
    bounds: Bounds,
    start: StartName | StartOptions | Options,
    couplings: CouplingOptions,
    network: NetworkOptions | Options,
    last: Sequence[Bijection] = (),
) -> Flow:
    """Returns a flow of a `Standardize` and `depth` couplings that alternate between two parts.

    With `mixing`, all couplings change the same part, unless there are angles, which it does not
    mix. `kappaflow.real_nvp` describes most arguments. `last` holds bijections after the
    couplings. The couplings are a `CouplingStack` if there is one for them and their activation is
    ReLU, else a chain.
    """
    positive_int("features", features)
    positive_int("depth", depth, "depth counts couplings.")
    start = as_group(StartOptions, "start", start)
    network = as_group(NetworkOptions, "network", network)
    width, before = context_embedding(
        context_features, network.embedding, gaussianize=start.gaussianize_context
    )
    natural_int("seed", couplings.seed)
    added = checked_padding(padding)
    joint, extra = features + padding_features(added), padding_features(added)
    _check_partition(partition, joint, width)
    mixing = couplings.mixing if isinstance(couplings, MixingOptions) else None
    if isinstance(couplings, MixingOptions):
        _check_mixing(mixing, couplings.condition_bound, partition)
    count = useful_depth(joint, depth, width)
    angles = transformer.angles
    layers = layers_before(start.start, joint, added, keep_gaps=count > 0, angles=angles)
    if count:
        turns = [turn if mixing is None or angles else 0 for turn in range(count)]
        stack = _stack(
            transformer,
            [_turn(partition, features, extra, turn, couplings.seed) for turn in turns],
            hidden,
            _permutations(partition, joint, count, couplings.seed),
            width,
            couplings,
            network,
        )
        lines = [i for i in range(joint) if i not in angles]
        if isinstance(couplings, MixingOptions) and mixing is not None and len(lines) > 1:
            mixed = _mixed(_plain(stack), joint, lines, mixing, couplings)
            stack = Chain(mixed, memory=couplings.memory)
        layers.append(stack)
    units = input_layers(features, bounds, padding=extra, circle=transformer.half_period)
    return Flow(base_of(start, joint), Chain([*units, *layers, *last], **before), added)


def joint_features(features: int, padding: int | Padding | None) -> int:
    """Returns the number of features of x and of the padding."""
    return positive_int("features", features) + padding_features(checked_padding(padding))


def base_of(start: StartOptions, joint: int) -> StandardNormal | NormalMixture:
    """Returns the base distribution of a start: a standard normal, or a mixture of normals."""
    components = positive_int("components", start.components)
    return (
        StandardNormal(joint) if components == 1 else NormalMixture(joint, components=components)
    )


def layers_before(
    start: StartName,
    joint: int,
    padding: Padding | None = None,
    *,
    keep_gaps: bool = True,
    angles: Sequence[int] = (),
) -> list[Bijection]:
    """Returns the layers that the first fit sets, before the couplings; they leave out angles."""
    lines = [i for i in range(joint) if i not in angles]
    count, layers = len(lines), list[Bijection]()
    gaussianize = Gaussianize(
        max(1, count), padding=padding_features(padding), keep_gaps=keep_gaps
    )
    if one_of("start", start, get_args(StartName)) == "gaussianize" and lines:
        layers.append(gaussianize)
    if start != "identity" and padding is not None and not padding.has_density:
        raise ArgumentError(
            "'start' should be 'identity' with padding that has no density, because such padding "
            "cannot be whitened."
        )
    if start != "identity" and count > 1:
        layers.append(Whiten(count))
    if start == "whiten-gaussianize" and lines:
        layers.append(gaussianize)
    return [_on(lines, joint, layer) for layer in layers]


def _on(lines: Sequence[int], joint: int, layer: Bijection) -> Bijection:
    """Returns a layer that maps the features `lines` of `joint`."""
    return layer if len(lines) == joint else OnFeatures(joint, lines, layer)


def _permutations(
    partition: PartitionName | Partition, joint: int, count: int, seed: int
) -> list[list[int]] | None:
    """Returns the permutation before each coupling, for random partitions."""
    if partition != "random":
        return None
    seeds = range(seed, seed + count)
    return [Permutation.random(joint, seed=layer_seed).index.tolist() for layer_seed in seeds]


def _stack(
    transformer: Transformer,
    partitions: Sequence[Partition],
    hidden: Sequence[int],
    permutations: Sequence[Sequence[int]] | None,
    context_features: int,
    couplings: CouplingOptions,
    network: NetworkOptions,
) -> CouplingStack | Chain:
    """Returns couplings, each with an optional permutation before it."""
    options: dict[str, Any] = {
        "context_features": context_features,
        "residual": network.residual,
        "dropout": network.dropout,
    }
    if transformer.stack is not None and network.activation == "relu":
        return CouplingStack(
            partitions,
            hidden,
            permutations=permutations,
            memory=couplings.memory,
            **options,
            **transformer.stack,
        )

    def conditioner(partition: Partition, outputs: int) -> nn.Module:
        angles = [i for i, kept in enumerate(partition.kept) if kept in transformer.angles]
        inputs = len(partition.kept) + len(angles)
        net = MLP(inputs, outputs, hidden, activation=network.activation, **options)
        if not angles or transformer.half_period is None:
            return net
        return SinCosEmbedding(net, angles, half_period=transformer.half_period)

    parts: list[Bijection] = []
    for layer, partition in enumerate(partitions):
        if permutations is not None:
            parts.append(Permutation(permutations[layer]))
        parts += _rotations(transformer, partition, conditioner, context_features)
        net = conditioner(partition, transformer.parameters * len(partition.changed))
        parts.append(transformer.coupling(partition, net, context_features=context_features))
    return Chain(parts, memory=couplings.memory)


def _rotations(
    transformer: Transformer,
    partition: Partition,
    conditioner: Callable[[Partition, int], nn.Module],
    context_features: int,
) -> list[Bijection]:
    """Returns a rotation of the angles that a coupling changes, which reads all other features."""
    turned = sorted(set(partition.changed) & set(transformer.angles))
    if not turned or transformer.half_period is None:
        return []
    others = tuple(i for i in range(partition.features) if i not in turned)
    reading = Partition(partition.features, others)
    rotation = RotationCoupling(
        reading,
        conditioner(reading, 2 * len(turned)),
        half_period=transformer.half_period,
        context_features=context_features,
    )
    return [rotation]


def _plain(couplings: CouplingStack | Chain) -> Chain:
    return couplings.to_chain() if isinstance(couplings, CouplingStack) else couplings


def _mixed(
    layers: Iterable[Bijection],
    joint: int,
    lines: Sequence[int],
    mixing: Mixing,
    couplings: MixingOptions,
) -> list[Bijection]:
    """Returns couplings with a linear map of the features `lines` before each."""
    generator = torch.Generator().manual_seed(couplings.seed)
    bound, parts = couplings.condition_bound, []
    for layer in layers:
        mix = mixing_layer(len(lines), mixing, condition_bound=bound, generator=generator)
        parts += [_on(lines, joint, mix), layer]
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
    """Returns a partition of data and padding, in which each part gets half of the padding.

    The padding comes after the data; `seed` selects its kept features, and None keeps the first.
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
