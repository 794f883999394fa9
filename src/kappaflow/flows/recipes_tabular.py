"""Recipes for tables: RealNVP, NICE, planar and radial flows."""

from collections.abc import Sequence

import torch
from torch import nn

from kappaflow._checks import natural_int, positive_float, positive_int
from kappaflow.bijection import Chain
from kappaflow.bijections import ElementwiseAffine, Planar, Radial
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.coupling_flow import coupling_flow, useful_depth
from kappaflow.flows.flow import Flow
from kappaflow.flows.padding import Padding
from kappaflow.flows.padding_options import checked_padding, padding_features
from kappaflow.flows.recipe import recipe
from kappaflow.flows.standardization import Bounds, input_layers
from kappaflow.nets.activations import AnyActivation
from kappaflow.options import Memory, Mixing, PartitionName, Start
from kappaflow.partition import Partition


@recipe("real_nvp")
def real_nvp(
    features: int,
    *,
    depth: int = 8,
    hidden: Sequence[int] = (128, 128),
    partition: PartitionName | Partition = "half",
    padding: int | Padding | None = None,
    context_features: int = 0,
    embedding: nn.Module | None = None,
    bounds: Bounds = None,
    memory: Memory = "recompute",
    scale_bound: float = 12.0,
    residual: bool = False,
    dropout: float = 0.0,
    activation: AnyActivation = "relu",
    seed: int = 0,
    start: Start = "identity",
    components: int = 1,
    mixing: Mixing | None = None,
    condition_bound: float | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Returns a RealNVP: affine couplings that alternate between two parts, after standardization.

    A new flow is the identity, or with `mixing` a rotation, or with partition="random" a
    permutation. The log-scales of all couplings together are bounded: each coupling gets
    `scale_bound` / `depth`, so that no feature is ever scaled by more than exp(scale_bound) or
    less than its reciprocal, whatever the depth. So a deep flow starts finite and
    invertible in float32; `round_trip` measures a trained one.

    Args:
        features: Number of features D. With one feature and no padding, a coupling has no feature
            to condition on. The flow is then an affine map, conditioned on the context if there
            is one.
        depth: Number of couplings.
        hidden: Widths of the conditioners' hidden layers; (a, b) is
            Linear-ReLU-Linear-ReLU-Linear.
        partition: "half" (first floor(D/2) features | the rest, taking turns), "alternating" (even
            and odd features), "random" (a fixed random permutation before each coupling),
            "random-half" (a random half of the features, drawn again for every two couplings), or
            a `Partition`.
        padding: Number of Gaussian features to add to x, or any `Padding`; None for none.
            log_prob is then a bound, see `Flow`, and samples do not contain the padding. "half"
            and "random-half" give half of the padding to each part; the other partitions cover
            all features, those of x first.
        context_features: Width of the context; 0 for none.
        embedding: A network that embeds the context first, from (B, context_features) to rows of
            any width; None for none. To save the flow, register the class of the network, as for
            `MLP`.
        memory: What is kept for the backward pass: "recompute", "store" or "invert"; see
            `CouplingStack`.
        scale_bound: Bound on the sum over depth of the log-scales.
        residual: Add skip connections between hidden layers of equal width.
        dropout: Share of the conditioners' hidden units that a training step drops.
        activation: Activation of the conditioners, such as "silu" or `torch.nn.SiLU()`; see `MLP`.
            Others than "relu" train about half as fast, in a `Chain` in place of a
            `CouplingStack`.
        bounds: The domain of each feature, such as ["positive", (0, 1), None]; see `Domain`. All
            samples lie in these domains. None for no domains. For circles use `spline`.
        seed: Seed of the random partitions and of the initial rotations of linear maps.
        start: What the first `kappaflow.fit` sets before the couplings, from the training rows.
            "identity": nothing. "whiten": six linear couplings that make the rows uncorrelated;
            training changes them further. "gaussianize": a curve for each feature that makes it
            about normal, then "whiten". "whiten-gaussianize": the curves after whitening.
        components: Number of components of the base: 1 for a standard normal; more for a
            `NormalMixture`, which the first `kappaflow.fit` fits to the latents and training
            changes further.
        mixing: Form of a learned linear map with a shift before each coupling, "lu", "plain",
            "qr", "svd" or "orthogonal", as in `InvertibleConv1x1`; None for none. All couplings
            then keep and change the same features: `partition` is "half", "alternating" or any
            `Partition`, such as `Partition(D, range(D - 1))`, which changes one feature. With one
            feature there are no such maps.
        condition_bound: For mixing="svd": the largest condition number of each map.
        dtype: Floating-point type of the parameters; torch's default type by default.

    Raises:
        ArgumentError: An argument is out of its range.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017; with couplings that change one feature, and affine maps
        between them: Teshima et al. 2020, Coupling-based invertible neural networks are universal
        diffeomorphism approximators.

    Example:
        >>> flow = real_nvp(4, depth=2, hidden=(8,))
        >>> flow.sample(3).shape
        torch.Size([3, 4])
    """
    depth = positive_int("depth", depth, "depth counts couplings.")
    joint = positive_int("features", features) + padding_features(checked_padding(padding))
    couplings = useful_depth(joint, depth, context_features)
    return coupling_flow(
        features,
        kind="affine",
        scale_bound=positive_float("scale_bound", scale_bound) / max(1, couplings),
        depth=depth,
        hidden=hidden,
        partition=partition,
        padding=padding,
        context_features=context_features,
        embedding=embedding,
        bounds=bounds,
        memory=memory,
        residual=residual,
        dropout=dropout,
        activation=activation,
        seed=seed,
        start=start,
        components=components,
        mixing=mixing,
        condition_bound=condition_bound,
        last=(ElementwiseAffine(joint),) if joint == 1 and not context_features else (),
    )


@recipe("nice")
def nice(
    features: int,
    *,
    depth: int = 8,
    hidden: Sequence[int] = (128, 128),
    partition: PartitionName | Partition = "half",
    padding: int | Padding | None = None,
    context_features: int = 0,
    embedding: nn.Module | None = None,
    bounds: Bounds = None,
    memory: Memory = "recompute",
    residual: bool = False,
    dropout: float = 0.0,
    activation: AnyActivation = "relu",
    seed: int = 0,
    start: Start = "identity",
    components: int = 1,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Returns a NICE: additive couplings, which preserve volume, and a learned scale per feature.

    The arguments are those of `real_nvp`.

    Returns:
        A flow with `log_prob` and `sample`. A new one is the identity, or with partition="random"
        a permutation.

    Source:
        Dinh, Krueger, Bengio 2015.

    Example:
        >>> nice(4, depth=2, hidden=(8,)).sample(3).shape
        torch.Size([3, 4])
    """
    joint = positive_int("features", features) + padding_features(checked_padding(padding))
    return coupling_flow(
        features,
        kind="additive",
        depth=depth,
        hidden=hidden,
        partition=partition,
        padding=padding,
        context_features=context_features,
        embedding=embedding,
        bounds=bounds,
        memory=memory,
        residual=residual,
        dropout=dropout,
        activation=activation,
        seed=seed,
        start=start,
        components=components,
        last=(ElementwiseAffine(joint),),
    )


@recipe("planar")
def planar(
    features: int,
    *,
    depth: int = 8,
    bounds: Bounds = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Returns a planar flow: maps that each move points along one direction.

    A new flow is the identity. Each map starts at u = 0 and with its own direction w, so that no
    two maps have the same gradient.

    Args:
        features: Number of features.
        depth: Number of planar maps.
        bounds: The domain of each feature, as for `real_nvp`.
        seed: Seed of the directions.
        dtype: Floating-point type of the parameters; torch's default type by default.

    Returns:
        A flow with `log_prob` and `sample`, which inverts each map by a search: see `Planar`.

    Raises:
        ArgumentError: An argument is out of its range.

    Source:
        Rezende, Mohamed 2015.

    Example:
        >>> planar(4, depth=2).sample(3).shape
        torch.Size([3, 4])
    """
    return _repeated(Planar, features, depth=depth, bounds=bounds, seed=seed)


@recipe("radial")
def radial(
    features: int,
    *,
    depth: int = 8,
    bounds: Bounds = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Returns a radial flow: maps that each move points towards a center, or away from it.

    A new flow is the identity. Each map starts with its own center among the standardized data,
    so that no two maps have the same gradient.

    Args:
        features: Number of features.
        depth: Number of radial maps.
        bounds: The domain of each feature, as for `real_nvp`.
        seed: Seed of the centers.
        dtype: Floating-point type of the parameters; torch's default type by default.

    Raises:
        ArgumentError: An argument is out of its range.

    Source:
        Rezende, Mohamed 2015.

    Example:
        >>> radial(4, depth=2).sample(3).shape
        torch.Size([3, 4])
    """
    return _repeated(Radial, features, depth=depth, bounds=bounds, seed=seed)


def _repeated(
    kind: type[Planar] | type[Radial], features: int, *, depth: int, bounds: Bounds, seed: int
) -> Flow:
    """Returns a flow of `depth` maps of one kind, each with its own seed."""
    units = input_layers(features, bounds)
    positive_int("depth", depth, f"depth counts {kind.__name__.lower()} maps.")
    natural_int("seed", seed)
    layers = [kind(features, seed=seed + layer) for layer in range(depth)]
    return Flow(StandardNormal(features), Chain([*units, *layers]))
