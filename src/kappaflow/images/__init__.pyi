from .data import ImageConfig
from .dequantize import Dequantize, DequantizeAndPad, VariationalDequantize
from .images import Images
from .jet import jet
from .latent import reconstruct
from .load import load_images, split_images
from .options import (
    GlowOptions,
    ImageOptions,
    JetOptions,
    PixelOptions,
    TransformerOptions,
)
from .recipes import glow, real_nvp_image
from .shipped import ImageSet, image_sets
from .vit import VisionTransformer

__all__ = [
    "Dequantize",
    "DequantizeAndPad",
    "ImageConfig",
    "GlowOptions",
    "ImageOptions",
    "ImageSet",
    "Images",
    "JetOptions",
    "PixelOptions",
    "TransformerOptions",
    "VariationalDequantize",
    "VisionTransformer",
    "glow",
    "image_sets",
    "jet",
    "load_images",
    "real_nvp_image",
    "reconstruct",
    "split_images",
]
