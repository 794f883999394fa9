"""The options of recipes for images, in groups. This file does not import torch."""

from dataclasses import dataclass

from kappaflow.options import (
    CouplingKind,
    CouplingOptions,
    Dequantization,
    Memory,
    Mixing,
    OptionGroup,
    PartitionName,
    described,
    documented,
)


@documented
@dataclass(frozen=True, kw_only=True)
class ImageOptions(OptionGroup):
    """The couplings of `real_nvp_image`."""

    scale_bound: float = described("Bound on the sum of the couplings' log-scales.", default=12.0)
    memory: Memory = described(
        "What is stored for the backward pass. store: everything. recompute: all but the layers, "
        "for glow all but the hidden layers of the networks, which run again. invert: the output, "
        "for glow of each level, from which the inputs are recovered. See `Chain`.",
        default="recompute",
    )


@documented
@dataclass(frozen=True, kw_only=True)
class GlowOptions(ImageOptions):
    """The couplings and 1x1 convolutions of `glow`."""

    coupling: CouplingKind = described(
        "Kind of the couplings: affine or additive.", default="affine"
    )
    mixing: Mixing = described(
        "Form of the 1x1 convolutions: lu, plain, qr, svd or orthogonal; see `InvertibleConv1x1`.",
        default="lu",
    )
    partition: PartitionName | None = described(
        "Instead of convolutions: which channels each coupling keeps, as for `real_nvp`.",
        default=None,
    )
    condition_bound: float | None = described(
        "With mixing svd: the largest condition number of each convolution.", default=None
    )


@documented
@dataclass(frozen=True, kw_only=True)
class JetOptions(CouplingOptions):
    """The couplings of `jet`."""

    scale_bound: float = described(
        "Bound on the r of each coupling's scale 2 sigmoid(r).", default=4.0
    )
    spatial_every: int = described(
        "Every how many couplings the places are split; 0 for never.", default=4
    )
    memory: Memory = described(
        "What is stored for the backward pass: recompute, store or invert; see `Chain`.",
        default="recompute",
    )
    seed: int = described("Seed of the permutations.", default=0)


@documented
@dataclass(frozen=True, kw_only=True)
class TransformerOptions(OptionGroup):
    """The vision transformers of `jet`."""

    width: int = described("Width of the transformers, see `VisionTransformer`.", default=64)
    blocks: int = described("Number of blocks of each transformer.", default=2)
    heads: int = described("Number of attention heads.", default=4)


@documented
@dataclass(frozen=True, kw_only=True)
class PixelOptions(OptionGroup):
    """How the pixels of images become real numbers."""

    dequantize: Dequantization | None = described(
        "Noise between the values of an integer pixel: uniform, or variational (learned), see "
        "`Dequantize` and `VariationalDequantize`. None for images of real numbers, whose "
        "log_prob is exact.",
        default=None,
    )
    values: int = described("Number of values of an integer pixel.", default=256)
    logit: float | None = described(
        "Margin, such as 0.05, of a logit of the pixels, from 0 to the number of values; None to "
        "standardize the channels instead, which the first `kappaflow.fit` sets.",
        default=None,
    )
