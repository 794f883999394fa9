"""Recipes for images: Glow and RealNVP."""

from collections.abc import Sequence
from typing import get_args

from kappaflow._checks import image_shape, natural_int, one_of, positive_float, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    ImageChain,
    InvertibleConv1x1,
    Logit,
    MultiScale,
    Squeeze,
    Standardize,
)
from kappaflow.bijections.conv1x1 import check_form
from kappaflow.errors import ArgumentError
from kappaflow.flows.augmentation import Augmentation
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.padding import Padding, checked_padding, padding_features
from kappaflow.flows.recipe import Options, as_group, recipe
from kappaflow.images.dequantize import Dequantize, DequantizeAndPad, VariationalDequantize
from kappaflow.images.options import GlowOptions, ImageOptions, PixelOptions
from kappaflow.nets import ConvNet, ResidualConvNet, StandardizeInputs
from kappaflow.options import CouplingKind, Dequantization, Memory, PartitionName
from kappaflow.partition import AnyPartition, Partition, SpatialPartition


def padded_shape(
    shape: tuple[int, int, int], padding: int | Padding | None
) -> tuple[int, int, int]:
    """Returns the shape of images with the channels of a padding."""
    channels, height, width = shape
    return channels + padding_features(checked_padding(padding)), height, width


def pixel_flow(
    shape: tuple[int, int, int],
    bijection: Bijection,
    *,
    pixels: PixelOptions | Options,
    padding: int | Padding | None,
    context_features: int,
) -> Flow:
    """Returns the flow of a bijection of images, after standardization or a logit of the pixels.

    `shape` is that of the images without padding channels, and the bijection takes images with
    them. `glow` describes the other arguments.
    """
    pixels = as_group(PixelOptions, "pixels", pixels)
    joint_shape = padded_shape(shape, padding)
    added = joint_shape[0] - shape[0]
    if pixels.logit is None:
        units = Standardize(joint_shape[0], padding=added)
    else:
        most = float(positive_int("values", pixels.values))
        units = Logit(0.0, most, margin=pixels.logit, padding=added)
    before = {}
    if context_features:
        before["embedding"] = StandardizeInputs(context_features)
        before["context_features"] = context_features
    base = StandardNormal(bijection.latent_shape(joint_shape))
    augment = _augmentation(shape, pixels, checked_padding(padding))
    return Flow(base, Chain([units, bijection], **before), augment)


def _augmentation(
    shape: tuple[int, int, int], pixels: PixelOptions, padding: Padding | None
) -> Augmentation | None:
    """Returns the dequantization and padding as one augmentation; None for neither."""
    kind = one_of("dequantize", pixels.dequantize, (None, *get_args(Dequantization)))
    if kind is None:
        return padding
    uniform = kind == "uniform"
    filling = Dequantize(pixels.values) if uniform else VariationalDequantize(shape, pixels.values)
    return filling if padding is None else DequantizeAndPad(filling, padding)


def check_levels(shape: tuple[int, int, int], levels: int, *, squeezes: int) -> None:
    """Raises an error for levels that would halve odd sides of the images."""
    _, *sides = shape
    positive_int("levels", levels)
    if squeezes and any(side % 2 for side in sides):
        raise ArgumentError(
            f"the sides of the images should be even to be squeezed, got {sides[0]} x "
            f"{sides[1]} pixels: give their size, such as 32."
        )
    if any(side % 2**squeezes for side in sides):
        most = min((side & -side).bit_length() - 1 for side in sides) + levels - squeezes
        raise ArgumentError(
            f"'levels' should be at most {most} for images of {sides[0]} x {sides[1]} pixels, "
            f"got {levels}: levels halve both sides."
        )


PRIOR_BOUND = 4.0  # bound on the log-scales of the couplings that model factored-out channels


@recipe("glow")
def glow(
    shape: Sequence[int],
    *,
    levels: int = 3,
    steps: int = 8,
    hidden: int = 128,
    context_features: int = 0,
    padding: int | Padding | None = None,
    couplings: GlowOptions | Options = GlowOptions(),
    pixels: PixelOptions | Options = PixelOptions(),
) -> Flow:
    """Returns a Glow: levels of steps, each an ActNorm, a 1x1 convolution and a coupling.

    A level squeezes the image and applies its steps; after each but the last, half of the channels
    are factored out, with a learned normal density given the other half. The latent is one flat
    tensor; `flow.latents` shows it by scale.

    Args:
        shape: (C, H, W) of the images; H and W divide by 2^levels.
        levels: Number L of levels; each squeezes the image once.
        steps: Number K of steps in each level.
        hidden: Number of channels of the couplings' networks, `ConvNet`.
        context_features: Width of the context, such as the number of classes; 0 for none.
        padding: Number of Gaussian channels to add to those of the image, or any `Padding`; None
            for none. log_prob is then a bound, and samples do not contain the padding.
        couplings: `coupling`, `mixing`, `partition`, `condition_bound`, `scale_bound`, `memory`:
            see `GlowOptions`. A dict will do.
        pixels: `dequantize`, `values` and `logit`: see `PixelOptions`. A dict will do.

    Raises:
        ArgumentError: An argument is out of its range, or the sides cannot be halved so often.

    Source:
        Kingma, Dhariwal 2018.

    Example:
        >>> import torch
        >>> flow = glow((3, 8, 8), levels=2, steps=2, hidden=8)
        >>> flow.sample(4).shape, [tuple(part.shape) for part in flow.latents(torch.zeros(1, 192))]
        (torch.Size([4, 3, 8, 8]), [(1, 6, 4, 4), (1, 24, 2, 2)])
    """
    sizes = image_shape("shape", shape)
    check_levels(sizes, levels, squeezes=levels)
    natural_int("context_features", context_features)
    form = as_group(GlowOptions, "couplings", couplings)
    one_of("coupling", form.coupling, get_args(CouplingKind))
    one_of("memory", form.memory, get_args(Memory))
    check_form("mixing", form.mixing, form.condition_bound)
    one_of("partition", form.partition, (None, *get_args(PartitionName)))
    if form.partition is not None and (form.mixing, form.condition_bound) != ("lu", None):
        raise ArgumentError(
            "'mixing' and 'condition_bound' should be left out with a partition, which takes the "
            "place of convolutions."
        )
    count = levels * positive_int("steps", steps)
    bound = positive_float("scale_bound", form.scale_bound) / count

    def couple(partition: Partition, kind: CouplingKind, bound: float) -> Bijection:
        outputs = (2 if kind == "affine" else 1) * len(partition.changed)
        network = ConvNet(
            len(partition.kept),
            outputs,
            hidden,
            context_features=context_features,
            memory="recompute" if form.memory == "recompute" else "store",
        )
        if kind == "additive":
            return AdditiveCoupling(partition, network, context_features=context_features)
        return AffineCoupling(
            partition, network, scale_bound=bound, context_features=context_features
        )

    joint_shape = padded_shape(sizes, padding)
    scales, channels = [], joint_shape[0]
    for level in range(levels):
        channels *= 4
        layers: list[Bijection] = [Squeeze()]
        half = Partition.half(channels)
        for step in range(steps):
            layers.append(ActNorm(channels))
            if form.partition is not None:
                partition = _in_turn(form.partition, channels, level * steps + step)
                layers.append(couple(partition, form.coupling, bound))
                continue
            mix = InvertibleConv1x1(
                channels, form=form.mixing, condition_bound=form.condition_bound
            )
            layers += [mix, couple(half, form.coupling, bound)]
        if level < levels - 1:
            layers.append(couple(half, "affine", PRIOR_BOUND))
        # Only the networks recompute, which costs less than recomputing whole layers.
        scales.append(ImageChain(layers, memory="invert" if form.memory == "invert" else None))
        channels //= 2
    return pixel_flow(
        sizes,
        MultiScale(joint_shape, scales),
        pixels=pixels,
        padding=padding,
        context_features=context_features,
    )


def _in_turn(name: PartitionName, channels: int, step: int) -> Partition:
    """Returns the partition of a step without a convolution."""
    if name == "random":
        return Partition.random_half(channels, seed=step)
    if name == "random-half":
        first = Partition.random_half(channels, seed=step // 2)
    else:
        first = Partition.half(channels) if name == "half" else Partition.alternating(channels)
    return first.swapped() if step % 2 else first


IN_A_ROW = 3  # consecutive couplings with one kind of partition
LAST = 4  # couplings of the coarsest scale


@recipe("real_nvp_image")
def real_nvp_image(
    shape: Sequence[int],
    *,
    levels: int = 2,
    hidden: int = 64,
    blocks: int = 2,
    context_features: int = 0,
    padding: int | Padding | None = None,
    couplings: ImageOptions | Options = ImageOptions(),
    pixels: PixelOptions | Options = PixelOptions(),
) -> Flow:
    """Returns a RealNVP of images: checkerboard and channel couplings, scale by scale.

    Each level has three couplings of the checkerboard, whose colors take turns, a squeeze, and
    three couplings of the channels, whose halves take turns; then half of the channels are
    factored out. The coarsest scale has four couplings of the checkerboard and factors out
    nothing. Before each coupling, an `ActNorm` replaces the batch normalization of the source,
    which makes rows depend on each other.

    Args:
        shape: (C, H, W) of the images; H and W divide by 2^(levels - 1).
        levels: Number of scales.
        hidden: Number of channels of the couplings' networks, `ResidualConvNet`.
        blocks: Number of residual blocks of each network.
        context_features: Width of the context; 0 for none.
        padding: Number of channels to add, or a `Padding`; None for none.
        couplings: `scale_bound` and `memory`: see `ImageOptions`. A dict will do.
        pixels: `dequantize`, `values` and `logit`, 0.05 in the source: see `PixelOptions`.

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
    form = as_group(ImageOptions, "couplings", couplings)
    count = (levels - 1) * 2 * IN_A_ROW + LAST
    bound = positive_float("scale_bound", form.scale_bound) / count

    def couple(partition: AnyPartition) -> list[Bijection]:
        network = ResidualConvNet(
            len(partition.kept),
            2 * len(partition.changed),
            hidden,
            blocks=blocks,
            context_features=context_features,
        )
        coupling = AffineCoupling(
            partition, network, context_features=context_features, scale_bound=bound
        )
        return [ActNorm(partition.features), coupling]

    def in_turns(first: AnyPartition, count: int) -> list[Bijection]:
        turns = [first if i % 2 == 0 else first.swapped() for i in range(count)]
        return [layer for partition in turns for layer in couple(partition)]

    joint_shape = padded_shape(sizes, padding)
    scales, channels = [], joint_shape[0]
    for _ in range(levels - 1):
        layers = in_turns(SpatialPartition(channels), IN_A_ROW)
        channels *= 4
        layers += [Squeeze(), *in_turns(Partition.half(channels), IN_A_ROW)]
        scales.append(Chain(layers, memory=form.memory))
        channels //= 2
    scales.append(Chain(in_turns(SpatialPartition(channels), LAST), memory=form.memory))
    return pixel_flow(
        sizes,
        MultiScale(joint_shape, scales),
        pixels=pixels,
        padding=padding,
        context_features=context_features,
    )
