"""Images to fit flows to: from shipped sets, folders, idx files and CIFAR-10 batches.

Pixels are whole numbers in uint8 tensors; what makes them continuous is the flow's own affair.
Nothing is decoded before it is asked for, and nothing in a file is ever run.
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
