"""All rows of images: Glows of one shape, ours and those of other libraries."""

from functools import partial

from benchmarks.images_peers import image_peers
from benchmarks.names import OWN_IMAGES
from benchmarks.ours import of_kappaflow
from benchmarks.row import ImageShape, Model, Row
from kappaflow import glow
from kappaflow.autograd.checkpoint import MEMORY_MODES
from kappaflow.options import Memory


def image_rows() -> list[Row]:
    """Returns a row for each memory mode, and one for each library."""
    ours = [
        Row(
            OWN_IMAGES.format(mode),
            "images",
            "kappaflow",
            "`kappaflow.glow((3, 32, 32), levels=3, steps=8, hidden=128, "
            f'couplings={{"memory": "{mode}"}})`',
            partial(_glow, memory=mode),
            ("speed", "memory", "digits") if mode == "store" else ("speed", "memory"),
        )
        for mode in MEMORY_MODES
    ]
    return [*ours, *image_peers()]


def _glow(shape: ImageShape, *, memory: Memory) -> Model:
    flow = glow(
        shape.image,
        levels=shape.levels,
        steps=shape.steps,
        hidden=shape.hidden,
        couplings={"memory": memory},
    )
    return of_kappaflow(flow)
