"""Images in batches, as tensors with the dtype and on the device of a flow."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from kappaflow.data.batches import Batch
from kappaflow.data.dataset import Model
from kappaflow.errors import ArgumentError

if TYPE_CHECKING:
    from kappaflow.images.images import Images

IMAGE_EXAMPLES = 4096  # images used to fit means and deviations


class ImageBatches:
    """Images batch by batch, with their one-hot classes as contexts if the flow has any.

    If `images.flip` is set, each image is mirrored with probability 1/2 each time it is read.
    """

    weights = None  # all images count equally
    index_device = torch.device("cpu")

    def __init__(self, images: "Images", flow: Model) -> None:
        if images.shape != flow.event_shape:
            raise ArgumentError(
                f"'data' should hold images of shape {flow.event_shape}, as the flow takes, got "
                f"{images.shape} from {images.source}: give load_images a size, or gray."
            )
        classes = len(images.classes)
        if flow.context_features not in (0, classes):
            raise ArgumentError(
                f"'data' should have {flow.context_features} classes, as the flow has context "
                f"features, got {classes} from {images.source}."
            )
        self.images, self.flow = images, flow

    def __len__(self) -> int:
        return len(self.images)

    def at(self, index: Tensor | slice) -> Batch:
        """Returns some of the images, (B, C, H, W), with their classes."""
        chosen = np.arange(len(self))[index.numpy() if isinstance(index, Tensor) else index]
        pixels = self.images.batch(chosen)
        if self.images.flip:
            pixels = _flipped(pixels)
        x = pixels.to(self.flow.device, self.flow.dtype)
        if self.images.labels is None or not self.flow.context_features:
            return Batch(x, None)
        return Batch(x, class_context(self.images.labels[chosen], self.flow))

    def examples(self) -> Batch:
        """Returns the first images, which are in random order."""
        return self.at(slice(0, IMAGE_EXAMPLES))


def class_context(labels: np.ndarray, flow: Model) -> Tensor | None:
    """Returns class numbers (N,) as one-hot contexts (N, C); None if the flow reads none."""
    if not flow.context_features:
        return None
    result = one_hot(torch.from_numpy(labels.astype(np.int64)), flow.context_features)
    return result.to(flow.device, flow.dtype)


def _flipped(batch: Tensor) -> Tensor:
    """Returns images (B, C, H, W), each mirrored left to right with probability 1/2."""
    mirrored = (torch.rand(len(batch)) < 0.5)[:, None, None, None]
    return torch.where(mirrored, batch.flip(-1), batch)
