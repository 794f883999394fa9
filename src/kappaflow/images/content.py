"""The content of a report on images that training does not provide: bits and pictures."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kappaflow.diagnosis import Comparison, diagnose_flow
from kappaflow.flows import Flow
from kappaflow.images import Images, reconstruct
from kappaflow.images.report import ImageCharts
from kappaflow.images.samples import MOST_ROWS, SIDE, Sheet, grid, sample_sheet, shown, values_of
from kappaflow.report.pictures import Picture, Pixels, encoded
from kappaflow.report.result import AddedPadding, HeldOut, Likelihood
from kappaflow.runs.content import Content
from kappaflow.runs.kinds import points_of
from kappaflow.training import FitResult, log_prob_of, quantile
from kappaflow.training.measure import bits_per_dimension, has_bits, standard_error

if TYPE_CHECKING:
    from kappaflow.images.data import ImageData

TEMPERATURES = (0.5, 0.7, 0.8, 1.0)
IMAGES_AT_ONCE = 1024
WEIGHTS = (1.0, 4.0, 16.0, 64.0, 256.0)  # of the histogram over all pixels


def image_content(result: FitResult, data: "ImageData") -> Content:
    """Returns what is measured of a flow on the test images of a run."""
    flow, classes = result.flow, data.classes
    test = data.test.batches(flow)
    nll, few = -log_prob_of(flow, test), test.at(slice(0, points_of(flow)))
    return Content(
        held_out=_held_out(flow, nll, data),
        charts=ImageCharts(
            held_out=held_out_picture(flow, data),
            samples=sample_pictures(flow, classes),
            reconstructions=reconstruction_picture(flow, data),
        ),
        diagnosis=diagnose_flow(flow, few.x, few.context),
        points=few,
    )


def _held_out(flow: Flow, nll: Tensor, data: "ImageData") -> HeldOut:
    mean, error = nll.mean().item(), standard_error(nll)
    scale = bits_per_dimension(flow, 1.0) if has_bits(flow) else None
    values = nll if scale is None else nll * scale
    levels = {"median": 0.5, "p95": 0.95, "max": 1.0}
    return HeldOut(
        kind=data.config.kind,
        likelihood=flow.likelihood,
        test=Likelihood(
            name="test",
            rows=len(nll),
            nll=mean,
            standard_error=error,
            quantiles={name: quantile(values, level) for name, level in levels.items()},
            bits_per_dimension=None if scale is None else mean * scale,
            bits_standard_error=None if scale is None else error * scale,
        ),
        references=[] if scale is None else [_independent(data, values.numpy())],
        padding=AddedPadding.of(flow),
    )


def _independent(data: "ImageData", bits: np.ndarray) -> Comparison:
    """Returns the comparison of the bits of each image with those of independent pixels."""
    alone = independent_bits(data.train, data.validation, data.test)
    with np.errstate(invalid="ignore"):
        paired = bits - alone
        error = paired.std() / math.sqrt(len(bits))
    mean = float(alone.mean())
    return Comparison(
        kind="independent pixels",
        components=1,
        conditional=False,
        rows=len(bits),
        nll=mean,
        nll_standardized=mean,
        difference=float(paired.mean()),
        standard_error=float(error),
        unit="bits per dimension",
    )


def held_out_picture(flow: Flow, data: "ImageData") -> Picture:
    """Returns a grid of held-out images like those of samples: a row for each class."""
    test = data.test
    if not flow.context_features:
        sheet = Sheet(_of(test, range(min(len(test), SIDE * SIDE))), SIDE, ())
    else:
        sheet = _by_class(test, data.classes[:MOST_ROWS])
    return _of_sheet(
        sheet,
        "Held-out images",
        f"A grid of {len(sheet.images)} images that were not trained on.",
        "Never trained on: what the samples should look like, in kind and in variety.",
    )


def _by_class(images: Images, classes: tuple[str, ...]) -> Sheet:
    """Returns a row of images for each class, filled up with gray."""
    blank = np.full((1, *images.shape), 128, np.uint8)
    rows = []
    for label in range(len(classes)):
        result = np.flatnonzero(images.labels == label)[:SIDE]
        rows += [_of(images, result), blank.repeat(SIDE - len(result), axis=0)]
    return Sheet(np.concatenate(rows), SIDE, classes)


def sample_pictures(flow: Flow, classes: tuple[str, ...]) -> list[Picture]:
    """Returns a grid of samples for each temperature, from the same latents."""
    pictures = []
    for temperature in TEMPERATURES:
        sheet = sample_sheet(flow, classes, temperature=temperature)
        what = f"{len(sheet.images)} samples at temperature {temperature}"
        caption = f"The same latents, {temperature} times as long."
        if temperature == 1:
            caption = "The density that was trained."
        by_class = f", a row for each of {len(sheet.rows)} classes" if sheet.rows else ""
        title = f"Temperature {temperature}"
        pictures.append(_of_sheet(sheet, title, f"A grid of {what}{by_class}.", caption))
    return pictures


def reconstruction_picture(flow: Flow, data: "ImageData") -> Picture:
    """Returns held-out images, and below each its reconstruction from the latent."""
    rows = data.test.batches(flow).at(slice(0, SIDE))
    back = reconstruct(flow, rows.x, rows.context)
    off = (back - rows.x).abs()
    worst, count = off.max().item(), int((off > 0.5).sum())
    unit = "pixel value" if has_bits(flow) else "unit of a pixel"
    errors = (
        f"All {off.numel():,} pixels came back exactly."
        if worst == 0
        else f"The largest error is {worst:.3g} {unit}{'s' if worst > 1 else ''}; {count:,} of "
        f"{off.numel():,} pixels are off by more than a half."
    )
    both = np.concatenate([pixels_of(rows.x, flow), pixels_of(back, flow)])
    return Picture(
        title="Reconstructions",
        alt=f"{len(back)} held-out images, each above its reconstruction. {errors}",
        caption=f"{errors} A flow loses nothing but to rounding.",
        columns=len(back),
        rows=["image", "back"],
        png=encoded(grid(both, len(back))),
    )


def _of_sheet(sheet: Sheet, title: str, alt: str, caption: str) -> Picture:
    return Picture(
        title=title,
        alt=alt,
        caption=caption,
        columns=sheet.columns,
        rows=list(sheet.rows),
        png=encoded(sheet.picture),
    )


def _of(images: Images, index: Sequence[int] | np.ndarray) -> Pixels:
    """Returns some images on the scale of a picture."""
    return shown(images.batch(index).numpy(), images.values)


def pixels_of(x: Tensor, flow: Flow) -> Pixels:
    """Returns points of a flow on the scale of a picture."""
    values = values_of(flow)
    pixels = x.nan_to_num(0).round().clamp(0, values - 1)
    return shown(pixels.cpu().numpy().astype(np.uint8), values)


def independent_bits(train: Images, validation: Images, test: Images) -> NDArray[np.float64]:
    """Returns the bits per dimension of each image under the histograms of its pixels.

    Each pixel is coded on its own, by how often its values occurred at its place among the
    training images, joined with how often they occurred anywhere. The weight of the second is the
    one with the shortest code of the validation images.
    """
    counts = _counts(train)
    anywhere = counts.sum(0) + 1
    anywhere /= anywhere.sum()
    held_out = _counts(validation)
    best = min(WEIGHTS, key=lambda weight: _bits(counts, anywhere, weight, held_out))
    lengths = -np.log2(_share(counts, anywhere, best)).ravel()
    offsets = np.arange(len(counts)) * counts.shape[1]
    coded = [lengths[pixels + offsets].mean(1) for pixels in _batches(test)]
    return np.concatenate(coded)


def _counts(images: Images) -> NDArray[np.float64]:
    """Returns how often each value occurs at each place, (places, values)."""
    numbers = int(np.prod(images.shape))
    result = np.zeros(numbers * images.values, np.int64)
    offsets = np.arange(numbers) * images.values
    for pixels in _batches(images):
        result += np.bincount((pixels + offsets).ravel(), minlength=len(result))
    return result.reshape(numbers, images.values).astype(np.float64)


def _bits(
    counts: NDArray[np.float64],
    anywhere: NDArray[np.float64],
    weight: float,
    coded: NDArray[np.float64],
) -> float:
    """Returns the mean code length of the counted pixels of some images."""
    return float(-(coded * np.log2(_share(counts, anywhere, weight))).sum() / coded.sum())


def _share(
    counts: NDArray[np.float64], anywhere: NDArray[np.float64], weight: float
) -> NDArray[np.float64]:
    """Returns the probability of each value at each place, (places, values)."""
    share = counts + weight * anywhere
    return share / share.sum(1, keepdims=True)


def _batches(images: Images) -> Iterator[NDArray[np.integer[Any]]]:
    """Yields the pixels of images, (n, places), some images at a time."""
    for start in range(0, len(images), IMAGES_AT_ONCE):
        index = range(start, min(start + IMAGES_AT_ONCE, len(images)))
        yield images.batch(index).numpy().reshape(len(index), -1)
