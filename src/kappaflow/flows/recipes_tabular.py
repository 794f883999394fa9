"""Recipes for tables: RealNVP, NICE, neural splines, planar and radial flows."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from kappaflow._checks import natural_int, positive_float, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import (
    AdditiveCoupling,
    AffineCoupling,
    CircleToLine,
    ElementwiseAffine,
    Planar,
    Radial,
    SplineCoupling,
)
from kappaflow.bijections.spline_shape import SplineShape
from kappaflow.errors import ArgumentError
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.coupling_flow import Transformer, coupling_flow, joint_features, useful_depth
from kappaflow.flows.flow import Flow
from kappaflow.flows.padding import Padding
from kappaflow.flows.recipe import Options, as_group, recipe
from kappaflow.flows.standardization import Bounds, angles_of, input_layers
from kappaflow.options import (
    AffineOptions,
    CouplingOptions,
    NetworkOptions,
    PartitionName,
    SplineOptions,
    StartName,
    StartOptions,
)
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
    bounds: Bounds = None,
    start: StartName | StartOptions | Options = StartOptions(),
    couplings: AffineOptions | Options = AffineOptions(),
    network: NetworkOptions | Options = NetworkOptions(),
) -> Flow:
    """Returns a RealNVP: affine couplings that alternate between two parts, after standardization.

    A new flow is the identity, or with `mixing` a rotation, or with partition="random" a
    permutation. The log-scales of all couplings together are bounded by `scale_bound`. So a deep
    flow starts finite and invertible in float32; `round_trip` measures a trained one.

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
        bounds: The domain of each feature, such as ["positive", (0, 1), None]; see `Domain`. All
            samples lie in these domains. None for no domains. For circles use `spline`.
        start: What the first `kappaflow.fit` computes from the training rows: "identity",
            "whiten", "gaussianize" or "whiten-gaussianize", or `StartOptions`, which also has the
            components of a mixture as the base.
        couplings: `scale_bound`, `mixing`, `condition_bound`, `memory` and `seed`: see
            `AffineOptions`. A dict will do.
        network: `activation`, `residual`, `dropout` and `embedding`: see `NetworkOptions`. A dict
            will do.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017; with couplings that change one feature, and affine maps
        between them: Teshima et al. 2020, Coupling-based invertible neural networks are universal
        diffeomorphism approximators.

    Example:
        >>> flow = real_nvp(4, depth=2, hidden=(8,), network={"dropout": 0.1})
        >>> flow.sample(3).shape
        torch.Size([3, 4])
    """
    depth = positive_int("depth", depth, "depth counts couplings.")
    joint = joint_features(features, padding)
    couplings = as_group(AffineOptions, "couplings", couplings)
    count = useful_depth(joint, depth, context_features)
    bound = positive_float("scale_bound", couplings.scale_bound) / max(1, count)
    return coupling_flow(
        features,
        Transformer(
            partial(AffineCoupling, scale_bound=bound),
            parameters=2,
            stack={"kind": "affine", "scale_bound": bound},
        ),
        depth=depth,
        hidden=hidden,
        partition=partition,
        padding=padding,
        context_features=context_features,
        bounds=bounds,
        start=start,
        couplings=couplings,
        network=network,
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
    bounds: Bounds = None,
    start: StartName | StartOptions | Options = StartOptions(),
    couplings: CouplingOptions | Options = CouplingOptions(),
    network: NetworkOptions | Options = NetworkOptions(),
) -> Flow:
    """Returns a NICE: additive couplings, which preserve volume, and a learned scale per feature.

    The arguments are those of `real_nvp`; `couplings` has `memory` and `seed`, see
    `CouplingOptions`.

    Returns:
        A flow with `log_prob` and `sample`. A new one is the identity, or with partition="random"
        a permutation.

    Source:
        Dinh, Krueger, Bengio 2015.

    Example:
        >>> nice(4, depth=2, hidden=(8,)).sample(3).shape
        torch.Size([3, 4])
    """
    return coupling_flow(
        features,
        Transformer(AdditiveCoupling, parameters=1, stack={"kind": "additive"}),
        depth=depth,
        hidden=hidden,
        partition=partition,
        padding=padding,
        context_features=context_features,
        bounds=bounds,
        start=start,
        couplings=as_group(CouplingOptions, "couplings", couplings),
        network=network,
        last=(ElementwiseAffine(joint_features(features, padding)),),
    )


@recipe("spline")
def spline(
    features: int,
    *,
    depth: int = 8,
    hidden: Sequence[int] = (128, 128),
    partition: PartitionName | Partition = "half",
    padding: int | Padding | None = None,
    context_features: int = 0,
    bounds: Bounds = None,
    start: StartName | StartOptions | Options = StartOptions(),
    couplings: SplineOptions | Options = SplineOptions(),
    network: NetworkOptions | Options = NetworkOptions(),
) -> Flow:
    """Returns a neural spline flow: standardization, then rational-quadratic spline couplings.

    A new flow is the identity up to rounding, or with `mixing` a rotation, or with
    partition="random" a permutation. Each coupling maps the box of half-width `bound` onto itself,
    and is the identity outside of it.

    The arguments are those of `real_nvp`, with two differences. `couplings` also has `bins`,
    `bound`, `min_bin` and `min_slope`, see `SplineOptions`. `bounds` may have circular features:
    they stay on their circle, and the density has no seam there. Couplings then read cosines and
    sines of angles, and change angles by a rotation and a spline; starts and `mixing` act on the
    other features. A flow of one feature with a context is a spline conditioned on it.

    Source:
        Durkan, Bekasov, Murray, Papamakarios 2019, Neural spline flows. Their flows have a
        permutation and a linear map (mixing="lu") before each coupling.

    Example:
        >>> spline(4, depth=2, hidden=(8,), couplings={"bins": 4}).sample(3).shape
        torch.Size([3, 4])
    """
    joint = joint_features(features, padding)
    couplings = as_group(SplineOptions, "couplings", couplings)
    start = as_group(StartOptions, "start", start)
    angles = angles_of(features, bounds)
    bound = couplings.bound
    if angles:
        _check_circles(joint, context_features, partition, start)
    last: list[Bijection] = [CircleToLine(joint, angles, half_period=bound)] if angles else []
    shape = SplineShape(couplings.bins, bound, couplings.min_bin, couplings.min_slope)
    return coupling_flow(
        features,
        Transformer(
            partial(SplineCoupling, **asdict(shape)),
            parameters=shape.parameters,
            angles=angles,
            half_period=bound if angles else None,
        ),
        depth=depth,
        hidden=hidden,
        partition=partition,
        padding=padding,
        context_features=context_features,
        bounds=bounds,
        start=start,
        couplings=couplings,
        network=network,
        last=[ElementwiseAffine(joint)] if joint == 1 and not context_features else last,
    )


def _check_circles(
    joint: int,
    context_features: int,
    partition: PartitionName | Partition,
    start: StartOptions,
) -> None:
    """Raises an error for arguments that move an angle or leave nothing to read."""
    if partition == "random" or start.components > 1:
        raise ArgumentError(
            "'bounds' should have circular columns only with components=1 and a partition other "
            "than 'random': a mixture has a seam on a circle, and a permutation moves it."
        )
    if joint == 1 and not context_features:
        raise ArgumentError(
            "'bounds' should not be one circular column alone, because a coupling would have "
            "nothing to read: add a column or a context; kappaflow.spline also takes padding=1."
        )


@recipe("planar")
def planar(
    features: int,
    *,
    depth: int = 8,
    bounds: Bounds = None,
    seed: int = 0,
) -> Flow:
    """Returns a planar flow: maps that each move points along one direction.

    A new flow is the identity. Each map starts at u = 0 and with its own direction w, so that no
    two maps have the same gradient.

    Args:
        features: Number of features.
        depth: Number of planar maps.
        bounds: The domain of each feature, as for `real_nvp`.
        seed: Seed of the directions.

    Returns:
        A flow with `log_prob` and `sample`, which inverts each map by a search: see `Planar`.

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
) -> Flow:
    """Returns a radial flow: maps that each move points towards a center, or away from it.

    A new flow is the identity. Each map starts with its own center among the standardized data,
    so that no two maps have the same gradient. The arguments are those of `planar`.

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
