"""The pictures of a report on a flow of images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kappaflow.data import Images
from kappaflow.flows import Flow, interpolate, reconstruct
from kappaflow.report import Neighbours, Picture, encoded
from kappaflow.report.pictures import Pixels, grid, shown
from kappaflow.runs.image_job import ImageParts
from kappaflow.runs.image_samples import (
    MOST_ROWS,
    SIDE,
    TEMPERATURE,
    Sheet,
    sample_sheet,
    values_of,
)
from kappaflow.training.image_rows import ImageRows
from kappaflow.training.measure import has_bits

TEMPERATURES = (0.5, 0.7, 0.8, 1.0)
PAIRS = 6
IMAGES_AT_ONCE = 1024


def held_out_picture(flow: Flow, parts: ImageParts) -> Picture:
    """Returns held-out images in the form of the grids of samples: a row for each class."""
    test = parts.test
    if not flow.context_features:
        sheet = Sheet(_of(test, range(min(len(test), SIDE * SIDE))), SIDE, ())
    else:
        sheet = _by_class(test, parts.classes[:MOST_ROWS])
    return _of_sheet(
        sheet,
        "Held-out images",
        f"A grid of {len(sheet.images)} images that were not trained on.",
        "Never trained on: what the samples should look like, in kind and in variety.",
    )


def _by_class(images: Images, classes: tuple[str, ...]) -> Sheet:
    """Returns some images of each class, and grey where there are fewer than fit in a row."""
    blank = np.full((1, *images.shape), 128, np.uint8)
    rows = []
    for label in range(len(classes)):
        found = np.flatnonzero(images.labels == label)[:SIDE]
        rows += [_of(images, found), blank.repeat(SIDE - len(found), axis=0)]
    return Sheet(np.concatenate(rows), SIDE, classes)


def sample_pictures(flow: Flow, classes: tuple[str, ...]) -> list[Picture]:
    """Returns a grid of samples for each temperature, from the same latents."""
    made = []
    for temperature in TEMPERATURES:
        sheet = sample_sheet(flow, classes, temperature=temperature)
        what = f"{len(sheet.images)} samples at temperature {temperature}"
        said = "The density that was trained." if temperature == 1 else _colder(temperature)
        given = f", a row for each of {len(sheet.rows)} classes" if sheet.rows else ""
        title = f"Temperature {temperature}"
        made.append(_of_sheet(sheet, title, f"A grid of {what}{given}.", said))
    return made


def _colder(temperature: float) -> str:
    return f"The same latents, {temperature} times as long."


def reconstruction_picture(flow: Flow, parts: ImageParts) -> Picture:
    """Returns held-out images above, and below what came back from their latents."""
    rows = ImageRows(parts.test, flow).at(slice(0, SIDE))
    back = reconstruct(flow, rows.x, rows.context)
    off = (back - rows.x).abs()
    worst, count = off.max().item(), int((off > 0.5).sum())
    unit = "pixel value" if has_bits(flow) else "unit of a pixel"
    said = (
        f"All {off.numel():,} pixels came back exactly."
        if worst == 0
        else f"The largest error is {worst:.3g} {unit}{'s' if worst > 1 else ''}; {count:,} of "
        f"{off.numel():,} pixels are off by more than a half."
    )
    both = np.concatenate([_pixels(rows.x, flow), _pixels(back, flow)])
    return Picture(
        title="There and back",
        alt=f"{len(back)} held-out images, and below each what came back from its latent. {said}",
        caption=f"{said} A flow loses nothing but to rounding.",
        columns=len(back),
        rows=["image", "back"],
        png=encoded(grid(both, len(back))),
    )


def interpolation_picture(flow: Flow, parts: ImageParts) -> Picture:
    """Returns ways from one held-out image to another through the latent, a row each."""
    first, second = _pairs(parts.test, by_class=bool(flow.context_features))
    rows = ImageRows(parts.test, flow)
    a, b = rows.at(torch.tensor(first)), rows.at(torch.tensor(second))
    between = interpolate(flow, a.x, b.x, SIDE, context=a.context)
    images = between.transpose(0, 1).flatten(0, 1)
    same = ", both of one class" if flow.context_features else ""
    return Picture(
        title="From one image to another",
        alt=f"{len(first)} rows of {SIDE} images that lead from one held-out image to another "
        f"through the latent{same}.",
        caption=f"The first and the last of each row are held-out images{same}; between them the "
        "latent moves on an arc. Good: each step is an image of the kind, not two images at once.",
        columns=SIDE,
        png=encoded(grid(_pixels(images, flow), SIDE)),
    )


def _pairs(images: Images, *, by_class: bool) -> tuple[list[int], list[int]]:
    """Returns positions of images to start from and of others to arrive at."""
    if not by_class or images.labels is None:
        count = min(PAIRS, len(images))
        return list(range(count)), [(i + count) % len(images) for i in range(count)]
    first, second = [], []
    for label in np.unique(images.labels):
        found = np.flatnonzero(images.labels == label)
        if len(found) > 1 and len(first) < PAIRS:
            first.append(int(found[0]))
            second.append(int(found[1]))
    return (first, second) if first else ([0], [0])


def neighbours_of(flow: Flow, parts: ImageParts, classes: tuple[str, ...]) -> Neighbours:
    """Returns samples beside the training images nearest to them, by L2 on pixels."""
    values = values_of(flow)
    drawn = sample_sheet(flow, classes, temperature=TEMPERATURE, seed=1).images
    drawn = drawn[:: len(drawn) // SIDE][:SIDE]
    held_out = _of(parts.test, range(min(SIDE, len(parts.test))), values)
    (of_samples, nearest), (of_held_out, _) = (
        nearest_images(images, parts.train, values) for images in (drawn, held_out)
    )
    unit = f"root mean square over the pixels, which go from 0 to {values - 1}"
    scale = (values - 1) / 255
    return Neighbours(
        picture=Picture(
            title="Samples and the training images nearest to them",
            alt=f"{len(drawn)} samples at temperature {TEMPERATURE}, and below each the training "
            "image nearest to it.",
            caption="A sample that repeats a training image has a distance near zero. Pixels say "
            "little about likeness: this shows what is nearest, and no more.",
            columns=len(drawn),
            rows=["sample", "nearest"],
            under=[f"{distance * scale:.3g}" for distance in of_samples],
            png=encoded(grid(np.concatenate([drawn, nearest]), len(drawn))),
        ),
        of_samples=[distance * scale for distance in of_samples],
        of_held_out=[distance * scale for distance in of_held_out],
        unit=unit,
    )


def nearest_images(images: Pixels, train: Images, values: int) -> tuple[list[float], Pixels]:
    """Returns the distance of each image to the nearest training image, and that one.

    Args:
        images: (N, channels, height, width), on the scale of a picture.
        train: Images to search.
        values: How many values a pixel may have.

    Returns:
        Root mean squares over the pixels on that scale, 0 to 255, and the nearest images.
    """
    wanted = torch.from_numpy(images).flatten(1).float()
    best = torch.full((len(images),), torch.inf)
    found = np.zeros_like(images)
    for start in range(0, len(train), IMAGES_AT_ONCE):
        part = _of(train, range(start, min(start + IMAGES_AT_ONCE, len(train))), values)
        distance = torch.cdist(wanted, torch.from_numpy(part).flatten(1).float())
        least, where = distance.min(1)
        closer = (least < best).numpy()
        found[closer] = part[where.numpy()[closer]]
        best = torch.minimum(best, least)
    return (best / wanted.shape[1] ** 0.5).tolist(), found


def _of_sheet(sheet: Sheet, title: str, alt: str, caption: str) -> Picture:
    return Picture(
        title=title,
        alt=alt,
        caption=caption,
        columns=sheet.columns,
        rows=list(sheet.rows),
        png=encoded(sheet.picture),
    )


def _of(images: Images, index: Sequence[int] | np.ndarray, values: int | None = None) -> Pixels:
    """Returns some images on the scale of a picture."""
    chosen = np.asarray(index, dtype=np.int64)
    return shown(images.batch(chosen).numpy(), values or images.values)


def _pixels(x: Tensor, flow: Flow) -> Pixels:
    """Returns points of a flow on the scale of a picture."""
    values = values_of(flow)
    whole = x.nan_to_num(0).round().clamp(0, values - 1)
    return shown(whole.cpu().numpy().astype(np.uint8), values)
