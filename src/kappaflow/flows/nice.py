"""The recipe of NICE."""

from collections.abc import Sequence

from torch import nn

from kappaflow._checks import positive_int
from kappaflow.bijections import ElementwiseAffine
from kappaflow.flows.couplings import coupling_flow
from kappaflow.flows.flow import Flow
from kappaflow.flows.leading import Bounds
from kappaflow.flows.pad import Padding
from kappaflow.flows.pad_kinds import checked_padding, padding_features
from kappaflow.partition import Partition
from kappaflow.registry import register


@register("nice")
def nice(
    features: int,
    *,
    depth: int = 8,
    hidden: Sequence[int] = (128, 128),
    partition: str | Partition = "half",
    padding: int | Padding | None = None,
    context_features: int = 0,
    embedding: nn.Module | None = None,
    bounds: Bounds = None,
    memory: str = "recompute",
    residual: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    start: str = "identity",
    components: int = 1,
) -> Flow:
    """Returns a NICE: additive couplings, which preserve volume, and one learned scale a feature.

    Args:
        features: Number of features D.
        depth: Number of couplings.
        hidden: Widths of the conditioners' hidden layers.
        partition: "half", "alternating", "random", "random-half", or a `Partition`; as for
            `real_nvp`.
        padding: How many Gaussian features are added behind those of x, or any `Padding`; None for
            none. log_prob is then a bound, see `Flow`, and samples drop them. Each part of "half"
            and of "random-half" is one of the data beside half of the padding; the other
            partitions are of all features, x first.
        context_features: Width of the context; 0 for none.
        embedding: A network that the context goes through first, from (B, context_features) to
            rows of any width; None for none. To be saved its class has to be registered, as
            `MLP` is.
        memory: "recompute", "store" or "invert": what is kept for the backward pass, see
            `CouplingStack`.
        residual: Add each hidden layer of the conditioners to the next of equal width.
        dropout: Share of the conditioners' hidden units that a training step leaves out.
        bounds: The domain of each feature, in which all samples then lie, as `Domain` takes them,
            such as ["positive", (0, 1), "circular", None]; None for none. Circles are cut
            where the training rows are rarest.
        seed: Draws the random partitions.
        start: As for `real_nvp`. "whiten": six linear couplings in front, which the first
            `kappaflow.fit` sets so that the training rows are uncorrelated, and which learn on.
        components: Components of the base, as for `real_nvp`.

    Returns:
        A flow with `log_prob` and `sample`, the identity until it is trained.

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
        seed=seed,
        start=start,
        components=components,
        last=(ElementwiseAffine(joint),),
    )
