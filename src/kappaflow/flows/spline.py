"""The recipe of neural spline flows by couplings."""

import functools
from collections.abc import Sequence

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
from kappaflow.flows.standardization import Bounds, angles_of
from kappaflow.nets import MLP, SinCosEmbedding
from kappaflow.partition import Partition
from kappaflow.registry import register


@register("spline")
def spline(
    features: int,
    *,
    depth: int = 8,
    hidden: Sequence[int] = (128, 128),
    bins: int = 8,
    bound: float = 5.0,
    partition: str | Partition = "half",
    padding: int | Padding | None = None,
    context_features: int = 0,
    embedding: nn.Module | None = None,
    bounds: Bounds = None,
    memory: str = "recompute",
    min_bin: float = 0.4,
    min_slope: float = 0.2,
    residual: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    start: str = "identity",
    components: int = 1,
    mixing: str | None = None,
    condition_bound: float | None = None,
) -> Flow:
    """Returns a neural spline flow: couplings by rational-quadratic splines, standardised first.

    A new flow is the identity up to rounding, or with `mixing` a rotation. Each coupling maps the
    box of half-width `bound` onto itself, and leaves alone what lies outside of it.

    Args:
        features: Number of features D. One feature without padding leaves a coupling nothing to
            read: the flow is then an affine map, or a spline of the context where there is one.
        depth: Number of couplings.
        hidden: Widths of the conditioners' hidden layers.
        bins: Pieces of each spline, at least 2; a conditioner answers 3 bins - 1 numbers for each
            feature that is changed.
        bound: Half-width of the box, in standard deviations of the training rows.
        partition: "half", "alternating", "random", "random-half", or a `Partition`; as for
            `real_nvp`.
        padding: Number of Gaussian features added to those of x, or any `Padding`; None for
            none. log_prob is then a bound, see `Flow`, and samples drop them.
        context_features: Width of the context; 0 for none.
        embedding: A network that the context goes through first, from (B, context_features) to
            rows of any width; None for none. To be saved its class has to be registered, as
            `MLP` is.
        memory: "recompute", "store" or "invert": what is kept for the backward pass, see `Chain`.
        min_bin: Least width and height of a piece, as a share of those of equal pieces.
        min_slope: Least slope where pieces meet; the largest is its reciprocal. Together these
            bound all slopes of a coupling, see `SplineCoupling`.
        residual: Add each hidden layer of the conditioners to the next of equal width.
        dropout: Share of the conditioners' hidden units that a training step leaves out.
        bounds: The domain of each feature, in which all samples then lie, as `Domain` takes them,
            such as ["positive", (0, 1), "circular", None]; None for none. Circular
            features stay on their circle, on which the density has no seam: couplings read their
            cosine and sine, turn them and put them through a spline.
        seed: Draws the random partitions, and the rotations at which linear maps begin.
        start: "identity", "whiten", "gaussianize" or "whiten-gaussianize", as for `real_nvp`.
        components: Components of the base, as for `real_nvp`.
        mixing: Form of a learned linear map before each coupling, as for `real_nvp`.
        condition_bound: For mixing="svd": the largest condition number of each map.

    Returns:
        A flow with `log_prob` and `sample`.

    Raises:
        ArgumentError: An argument is out of its range.

    Source:
        Durkan, Bekasov, Murray, Papamakarios 2019, Neural spline flows: there with a permutation
        and a linear map, mixing="lu", before each coupling.

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
    partition: str | Partition,
    start: str,
    mixing: str | None,
) -> None:
    """Refuses what would mix an angle with other features, or leave it nothing to be read from."""
    if not angles:
        return
    for name, value, required in (
        ("start", start, "identity"),
        ("mixing", mixing, None),
    ):
        if value != required:
            raise ArgumentError(
                f"'{name}' should be {required!r} with circular columns, got {value!r}: a linear "
                "map has no place on a circle."
            )
    if partition == "random":
        raise ArgumentError(
            "'partition' should be 'half', 'alternating', 'random-half' or a Partition with "
            "circular columns, got 'random'."
        )
    if joint == 1 and not context_features:
        raise ArgumentError(
            "'bounds' should not be one circular column alone, of which a coupling has nothing to "
            "read: give padding=1."
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
    angles: Sequence[int] = (),
) -> Chain:
    """Returns couplings by splines of a shape, with optional permutations before them.

    A coupling that changes `angles` has a `RotationCoupling` in front, which reads all but these.
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
                    memory="store" if memory == "store" else "recompute",
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
            memory="store" if memory == "store" else "recompute",
        )
        parts.append(coupling)
    return Chain(parts, memory=memory)


def _without(features: int, some: Sequence[int]) -> tuple[int, ...]:
    """Returns all features but some."""
    return tuple(place for place in range(features) if place not in some)
