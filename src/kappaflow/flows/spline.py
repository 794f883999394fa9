"""The `spline` recipe, which builds neural spline flows from couplings."""

import functools
from collections.abc import Sequence

import torch
from torch import nn

from kappaflow._checks import positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import (
    CircleToLine,
    ElementwiseAffine,
    Permutation,
    RotationCoupling,
    SplineCoupling,
)
from kappaflow.bijections.spline import SplineShape
from kappaflow.errors import ArgumentError
from kappaflow.flows.coupling_flow import coupling_flow
from kappaflow.flows.flow import Flow
from kappaflow.flows.padding import Padding
from kappaflow.flows.padding_options import checked_padding, padding_features
from kappaflow.flows.recipe import recipe
from kappaflow.flows.standardization import Bounds, angles_of
from kappaflow.nets import MLP, SinCosEmbedding
from kappaflow.nets.activations import AnyActivation
from kappaflow.options import Memory, Mixing, PartitionName, Start
from kappaflow.partition import Partition


@recipe("spline")
def spline(
    features: int,
    *,
    depth: int = 8,
    hidden: Sequence[int] = (128, 128),
    bins: int = 8,
    bound: float = 5.0,
    partition: PartitionName | Partition = "half",
    padding: int | Padding | None = None,
    context_features: int = 0,
    embedding: nn.Module | None = None,
    bounds: Bounds = None,
    memory: Memory = "recompute",
    min_bin: float = 0.4,
    min_slope: float = 0.2,
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
    """Returns a neural spline flow: standardization, then rational-quadratic spline couplings.

    A new flow is the identity up to rounding, or with `mixing` a rotation, or with
    partition="random" a permutation. Each coupling maps the box of half-width `bound` onto itself,
    and is the identity outside of it. `real_nvp` describes the arguments that both have in full.

    Args:
        features: Number of features D. With one feature and no padding, a coupling has no feature
            to condition on. The flow is then an affine map, or with a context a spline
            conditioned on it.
        depth: Number of couplings.
        hidden: Widths of the hidden layers of the conditioners.
        bins: Number of bins of each spline, at least 2. A conditioner outputs 3 bins - 1 numbers
            for each changed feature.
        bound: Half-width of the box, in standard deviations of the training rows.
        partition: "half", "alternating", "random", "random-half" or a `Partition`.
        padding: Number of features to add, or a `Padding`; None for none.
        context_features: Width of the context; 0 for none.
        embedding: Network that embeds the context first; None for none.
        bounds: The domain of each feature; None for none. Circular features stay on their circle,
            and the density has no seam there: couplings read cosines and sines of angles, and
            change angles by a rotation and a spline.
        memory: The memory mode: "recompute", "store" or "invert"; see `Chain`.
        min_bin: Smallest width and height of a bin, relative to bins of equal size.
        min_slope: Smallest slope at the knots; the largest is its reciprocal. `min_bin` and
            `min_slope` bound all slopes of a coupling, see `SplineCoupling`.
        residual: Add skip connections between hidden layers of equal width.
        dropout: Share of hidden units that a training step drops.
        activation: Activation of the conditioners, as in `MLP`.
        seed: Seed of the random partitions and of the initial rotations.
        start: "identity", "whiten", "gaussianize" or "whiten-gaussianize".
        components: Number of components of the base.
        mixing: Form of a learned linear map before each coupling; None for none.
        condition_bound: For mixing="svd": the largest condition number of each map.
        dtype: Floating-point type of the parameters; torch's default type by default.

    Raises:
        ArgumentError: An argument is out of its range.

    Source:
        Durkan, Bekasov, Murray, Papamakarios 2019, Neural spline flows. Their flows have a
        permutation and a linear map (mixing="lu") before each coupling.

    Example:
        >>> spline(4, depth=2, hidden=(8,), bins=4).sample(3).shape
        torch.Size([3, 4])
    """
    joint = positive_int("features", features) + padding_features(checked_padding(padding))
    angles = angles_of(features, bounds)
    _check_circles(angles, joint, context_features, partition, start, mixing)
    to_line = [CircleToLine(joint, angles, half_period=bound)] if angles else []
    return coupling_flow(
        features,
        run_of=functools.partial(spline_couplings, angles=angles),
        shape=SplineShape(bins, bound, min_bin, min_slope),
        depth=depth,
        hidden=hidden,
        partition=partition,
        padding=padding,
        context_features=context_features,
        embedding=embedding,
        bounds=bounds,
        circle=bound if angles else None,
        memory=memory,
        residual=residual,
        dropout=dropout,
        activation=activation,
        seed=seed,
        start=start,
        components=components,
        mixing=mixing,
        condition_bound=condition_bound,
        last=(ElementwiseAffine(joint),) if joint == 1 and not context_features else to_line,
    )


def _check_circles(
    angles: Sequence[int],
    joint: int,
    context_features: int,
    partition: PartitionName | Partition,
    start: Start,
    mixing: Mixing | None,
) -> None:
    """Raises an error for arguments that mix an angle with others or leave nothing to read."""
    if not angles:
        return
    for name, value, required in (
        ("start", start, "identity"),
        ("mixing", mixing, None),
    ):
        if value != required:
            raise ArgumentError(
                f"'{name}' should be {required!r} with circular columns, got {value!r}: linear "
                "maps do not work on circles."
            )
    if partition == "random":
        raise ArgumentError(
            "'partition' should be 'half', 'alternating', 'random-half' or a Partition with "
            "circular columns, got 'random'."
        )
    if joint == 1 and not context_features:
        raise ArgumentError(
            "'bounds' should not be one circular column alone, because a coupling would have "
            "nothing to read: pass padding=1."
        )


def spline_couplings(
    partitions: Sequence[Partition],
    hidden: Sequence[int],
    *,
    shape: SplineShape,
    context_features: int,
    permutations: Sequence[Sequence[int]] | None,
    memory: str,
    residual: bool,
    dropout: float,
    activation: AnyActivation = "relu",
    angles: Sequence[int] = (),
) -> Chain:
    """Returns a chain of spline couplings with optional permutations before them.

    Before each coupling that changes `angles`, a `RotationCoupling` reads all other features.
    """

    def network_of(partition: Partition, outputs: int) -> nn.Module:
        read = [place for place, kept in enumerate(partition.kept) if kept in angles]
        network = MLP(
            len(partition.kept) + len(read),
            outputs,
            hidden,
            context_features=context_features,
            residual=residual,
            dropout=dropout,
            activation=activation,
        )
        return SinCosEmbedding(network, read, half_period=shape.bound) if read else network

    parts: list[Bijection] = []
    for layer, partition in enumerate(partitions):
        if permutations is not None:
            parts.append(Permutation(permutations[layer]))
        turned = sorted(set(partition.changed) & set(angles))
        if turned:
            others = Partition(partition.features, _without(partition.features, turned))
            parts.append(
                RotationCoupling(
                    others,
                    network_of(others, 2 * len(turned)),
                    half_period=shape.bound,
                    context_features=context_features,
                )
            )
        network = network_of(partition, shape.parameters * len(partition.changed))
        coupling = SplineCoupling(
            partition,
            network,
            bins=shape.bins,
            bound=shape.bound,
            min_bin=shape.min_bin,
            min_slope=shape.min_slope,
            context_features=context_features,
        )
        parts.append(coupling)
    return Chain(parts, memory=memory)


def _without(features: int, some: Sequence[int]) -> tuple[int, ...]:
    return tuple(place for place in range(features) if place not in some)
