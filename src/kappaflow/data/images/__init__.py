"""Images to fit flows to: from built-in sets, folders, idx files and CIFAR-10 batches.

Pixels are whole numbers in uint8 tensors; a flow makes them continuous. Images are decoded when a
batch needs them. No code in a file is executed.
"""

from kappaflow.data.images.images import Images, flipped
from kappaflow.data.images.load import is_images, load_images, split_images
from kappaflow.data.images.shipped import ImageSet, image_sets

__all__ = [
    "ImageSet",
    "Images",
    "flipped",
    "image_sets",
    "is_images",
    "load_images",
    "split_images",
]
