"""The recipe of RealNVP on images."""

from collections.abc import Sequence

from kappaflow._checks import image_shape, natural_int, positive_float
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import ActNorm, AffineCoupling, MultiScale, Squeeze
from kappaflow.flows.flow import Flow
from kappaflow.flows.images import check_levels, image_flow, padded_shape
from kappaflow.flows.pad import Padding
from kappaflow.nets import ResidualConvNet
from kappaflow.partition import AnyPartition, Partition, SpatialPartition
from kappaflow.registry import register

IN_A_ROW = 3  # couplings of one kind of partition
LAST = 4  # of the coarsest scale


@register("real_nvp_image")
def real_nvp_image(
    shape: Sequence[int],
    *,
    levels: int = 2,
    hidden: int = 64,
    blocks: int = 2,
    scale_bound: float = 12.0,
    context_features: int = 0,
    memory: str = "recompute",
    dequantize: str | None = None,
    values: int = 256,
    logit: float | None = None,
    padding: int | Padding | None = None,
) -> Flow:
    """Returns a RealNVP of images: checkerboard and channel couplings, scale by scale.

    Each level has three couplings of the checkerboard, whose colours take turns, a squeeze, three
    of the channels, whose halves take turns, and then half of the channels are factored out; the
    coarsest scale has four of the checkerboard and keeps all. In front of each coupling an
    `ActNorm` stands for the batch normalisation of the source, in which rows depend on each other.

    Args:
        shape: (C, H, W) of the images; H and W divide by 2^(levels - 1).
        levels: Scales.
        hidden: Channels of the couplings' networks, `ResidualConvNet`.
        blocks: Residual blocks of each.
        scale_bound: Bound on the sum over depth of the couplings' log-scales.
        context_features: Width of the context, such as the number of classes; 0 for none.
        memory: "recompute", "store" or "invert": what is kept for the backward pass, see `Chain`.
        dequantize: None for images of real numbers, whose log_prob is exact; "uniform" or
            "variational" for pixels of whole numbers, see `Dequantize` and
            `VariationalDequantize`.
        values: How many values such a pixel may have.
        logit: A margin, such as 0.05 in the source, puts a logit of the pixels, from 0 to
            `values`, in front; None a standardisation of the channels, which the first
            `kappaflow.fit` sets.
        padding: How many Gaussian channels are added beside those of the image, or any `Padding`:
            log_prob is then a bound, samples drop them. None for none.

    Returns:
        A flow with `log_prob` and `sample`.

    Raises:
        ArgumentError: An argument is out of its range, or the sides cannot be halved so often.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017, section 3.

    Example:
        >>> flow = real_nvp_image((1, 8, 8), levels=2, hidden=4, blocks=1)
        >>> flow.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    sizes = image_shape("shape", shape)
    check_levels(sizes, levels, squeezes=levels - 1)
    natural_int("context_features", context_features)
    couplings = (levels - 1) * 2 * IN_A_ROW + LAST
    bound = positive_float("scale_bound", scale_bound) / couplings

    def couple(partition: AnyPartition) -> list[Bijection]:
        network = ResidualConvNet(
            len(partition.kept),
            2 * len(partition.changed),
            hidden,
            blocks=blocks,
            context_features=context_features,
        )
        made = AffineCoupling(
            partition, network, context_features=context_features, scale_bound=bound
        )
        return [ActNorm(partition.features), made]

    def in_turns(first: AnyPartition, count: int) -> list[Bijection]:
        turns = [first if i % 2 == 0 else first.swapped() for i in range(count)]
        return [layer for partition in turns for layer in couple(partition)]

    joint_shape = padded_shape(sizes, padding)
    scales, channels = [], joint_shape[0]
    for _ in range(levels - 1):
        layers = in_turns(SpatialPartition(channels), IN_A_ROW)
        channels *= 4
        layers += [Squeeze(), *in_turns(Partition.half(channels), IN_A_ROW)]
        scales.append(Chain(layers, memory=memory))
        channels //= 2
    scales.append(Chain(in_turns(SpatialPartition(channels), LAST), memory=memory))
    return image_flow(
        sizes,
        MultiScale(joint_shape, scales),
        dequantize=dequantize,
        values=values,
        logit=logit,
        padding=padding,
        context_features=context_features,
    )
