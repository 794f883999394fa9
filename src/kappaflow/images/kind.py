"""Registers images as a kind of data."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kappaflow.data.dataset import Kind, Model, register_kind
from kappaflow.errors import ArgumentError, DataError
from kappaflow.images.decode import FormRequest
from kappaflow.images.images import Images, images_from_array
from kappaflow.images.load import is_images, load_images, split_images
from kappaflow.images.shipped import ImageSet, image_sets

if TYPE_CHECKING:
    from torch import Tensor

    from kappaflow.images.runs import ImageRuns


@register_kind
class ImageKind(Kind):
    """Images from folders, array files and built-in data sets."""

    name = "images"

    def recognizes(self, source: object) -> bool:
        return isinstance(source, Images) or (isinstance(source, str | Path) and is_images(source))

    def load(self, source: Any, flow: Model) -> Images:
        if not self.fits(flow):
            raise ArgumentError(
                f"'flow' should be a flow for images, got one of shape {flow.event_shape}."
            )
        if isinstance(source, Images):
            return source
        channels, height, width = flow.event_shape
        return load_images(source, size=(height, width), gray=channels == 1)

    def split(self, data: Images, fractions: tuple[float, ...], seed: int) -> tuple[Images, ...]:
        return split_images(data, fractions=fractions, seed=seed)

    def models(self) -> dict[str, Callable[..., Any]]:
        from kappaflow.images.data import RECIPES

        return RECIPES

    def runs(self) -> "ImageRuns":
        from kappaflow.images.runs import ImageRuns

        return ImageRuns()

    def sets(self) -> tuple[ImageSet, ...]:
        return image_sets()

    def fits(self, flow: Model) -> bool:
        return len(flow.event_shape) == 3

    def from_tensors(
        self, x: "Tensor", context: "Tensor | None", flow: Model, source: str
    ) -> Images:
        """Returns images of whole numbers, or of fractions such as n/255, with their classes."""
        if tuple(x.shape[1:]) != flow.event_shape or x.shape[1] not in (1, 3):
            raise ArgumentError(
                f"'data' should hold images of shape {flow.event_shape}, as the flow takes, with "
                f"1 or 3 channels, got {tuple(x.shape[1:])} from {source}."
            )
        values = getattr(flow.augment, "values", 256)
        scaled = x.double() * (values - 1) if _is_fraction(x) else x.double()
        pixels = scaled.round()
        is_whole = (scaled - pixels).abs().max() < 1e-3
        if not (is_whole and pixels.min() >= 0 and pixels.max() < values):
            raise DataError(
                f"'data' should hold images of whole numbers from 0 to {values - 1}, or of these "
                f"divided by {values - 1}; {source} has values from {x.min():.4g} to "
                f"{x.max():.4g}: leave out transforms that change the values."
            )
        labels = None
        classes: tuple[str, ...] = ()
        if context is not None and not context.is_floating_point() and context.dim() == 1:
            labels = context.numpy().astype(np.int64)
            count = max(flow.context_features, int(labels.max()) + 1)
            classes = tuple(str(number) for number in range(count))
        return images_from_array(
            pixels.byte().numpy(),
            FormRequest(),
            source=source,
            labels=labels,
            classes=classes,
            values=values,
        )


def _is_fraction(x: "Tensor") -> bool:
    return x.is_floating_point() and bool(x.max() <= 1)
