"""Images as a training reads them: batch by batch, decoded when they are asked for."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from kappaflow.data import Images
from kappaflow.data.images import flipped
from kappaflow.errors import ArgumentError, DataError
from kappaflow.flows import Flow
from kappaflow.training.rows import Rows

EXAMPLES = 4096  # to take means and deviations of


class ImageRows:
    """Images with their classes as contexts, in the type and on the device of a flow.

    Args:
        images: Whole numbers as pixels.
        flow: One of images of this shape. If it reads a context, that is the class of the image,
            as many zeros as there are classes and a one.
        flip: Mirror each image with probability 1/2 each time it is asked for.

    Raises:
        ArgumentError: The shapes differ, or the flow reads a context of another width than there
            are classes.
    """

    weights = None  # all images count alike

    def __init__(self, images: Images, flow: Flow, *, flip: bool = False) -> None:
        if images.shape != flow.event_shape:
            raise ArgumentError(
                f"'data' should hold images of shape {flow.event_shape}, as the flow takes, got "
                f"{images.shape} from {images.source}: give load_images a size, or grey."
            )
        classes = len(images.classes)
        if flow.context_features not in (0, classes):
            raise ArgumentError(
                f"'data' should have {flow.context_features} classes, as the flow has context "
                f"features, got {classes} from {images.source}."
            )
        self.images, self.flow, self.flip = images, flow, flip

    def __len__(self) -> int:
        return len(self.images)

    def at(self, index: Tensor | slice) -> Rows:
        """Returns some of the images, (B, C, H, W), with their classes."""
        chosen = np.arange(len(self))[index.numpy() if isinstance(index, Tensor) else index]
        pixels = self.images.batch(chosen)
        if self.flip:
            pixels = flipped(pixels, generator=torch.default_generator)
        flow = self.flow
        x = pixels.to(flow.device, flow.dtype)
        if not flow.context_features:
            return Rows(x, None)
        labels = torch.from_numpy(self.images.labels[chosen])  # pyright: ignore[reportOptionalSubscript]
        context = one_hot(labels, flow.context_features)
        return Rows(x, context.to(flow.device, flow.dtype))

    def examples(self) -> Rows:
        """Returns the first images, which are in random order."""
        return self.at(slice(0, EXAMPLES))


def check_pixels(images: Images, flow: Flow) -> None:
    """Refuses pixels of more values than the dequantisation of a flow expects."""
    values = getattr(flow.augment, "values", images.values)
    if images.values > values:
        raise DataError(
            f"{images.source} has pixels of {images.values} values, the flow expects {values}: "
            f"build it with values={images.values}."
        )
