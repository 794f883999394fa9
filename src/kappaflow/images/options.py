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
)


@dataclass(frozen=True, kw_only=True)
class ImageOptions(OptionGroup):
    """The couplings of `real_nvp_image`.

    Attributes:
        scale_bound: Bound on the sum of the couplings' log-scales.
        memory: What is stored for the backward pass. store: everything. recompute: all but the
            layers, for glow all but the hidden layers of the networks, which run again. invert:
            the output, for glow of each level, from which the inputs are recovered. See `Chain`.
    """

    scale_bound: float = 12.0
    memory: Memory = "recompute"


@dataclass(frozen=True, kw_only=True)
class GlowOptions(ImageOptions):
    """The couplings and 1x1 convolutions of `glow`.

    Attributes:
        coupling: Kind of the couplings: affine or additive.
        mixing: Form of the 1x1 convolutions: lu, plain, qr, svd or orthogonal; see
            `InvertibleConv1x1`.
        partition: Instead of convolutions: which channels each coupling keeps, as for `real_nvp`.
        condition_bound: With mixing svd: the largest condition number of each convolution.
    """

    coupling: CouplingKind = "affine"
    mixing: Mixing = "lu"
    partition: PartitionName | None = None
    condition_bound: float | None = None


@dataclass(frozen=True, kw_only=True)
class JetOptions(CouplingOptions):
    """The couplings of `jet`.

    Attributes:
        scale_bound: Bound on the r of each coupling's scale 2 sigmoid(r).
        spatial_every: Every how many couplings the places are split; 0 for never.
        memory: What is stored for the backward pass: recompute, store or invert; see `Chain`.
        seed: Seed of the permutations.
    """

    scale_bound: float = 4.0
    spatial_every: int = 4


@dataclass(frozen=True, kw_only=True)
class TransformerOptions(OptionGroup):
    """The vision transformers of `jet`.

    Attributes:
        width: Width of the transformers, see `VisionTransformer`.
        blocks: Number of blocks of each transformer.
        heads: Number of attention heads.
    """

    width: int = 64
    blocks: int = 2
    heads: int = 4


@dataclass(frozen=True, kw_only=True)
class PixelOptions(OptionGroup):
    """How the pixels of images become real numbers.

    Attributes:
        dequantize: Noise between the values of an integer pixel: uniform, or variational
            (learned), see `Dequantize` and `VariationalDequantize`. None for images of real
            numbers, whose log_prob is exact.
        values: Number of values of an integer pixel.
        logit: Margin, such as 0.05, of a logit of the pixels, from 0 to the number of values; None
            to standardize the channels instead, which the first `kappaflow.fit` sets.
    """

    dequantize: Dequantization | None = None
    values: int = 256
    logit: float | None = None
