"""The numbers and pictures of the study on faces, from its run folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kappaflow.files import load
from kappaflow.flows import Flow
from kappaflow.images.batches import ImageBatches
from kappaflow.images.content import nearest_images
from kappaflow.images.data import ImageData
from kappaflow.images.pictures import enlarged, grid, shown
from kappaflow.images.report import pixel_bits
from kappaflow.images.samples import TEMPERATURE, draw_pixels, values_of
from kappaflow.report.files import read_report
from kappaflow.report.pictures import Pixels, png
from kappaflow.results import Part
from kappaflow.runs.stored import read_finished, read_run, reload_data
from kappaflow.training import log_prob_of
from kappaflow.training.measure import bits_per_dimension


class FacesRun(Part):
    """One training."""

    padding: int  # number of Gaussian channels, in addition to the image's single channel
    folder: str  # name of the run folder
    parameters: int
    epochs: int
    best_epoch: int  # the epoch with the kept weights
    time_s: float
    bits_per_dimension: float | None  # mean over held-out faces, of an upper bound
    bits_standard_error: float | None  # over the faces
    round_trip_data: float | None  # largest reconstruction error of a held-out face
    kept_condition_number: float  # of the kept weights, the median over `kept_points`
    kept_points: int  # number of held-out faces
    curve: list[dict[str, float | int | str | None]]  # CURVES, for the epochs with a measurement
    drawn_at: float  # temperature of the samples with measured distances
    of_samples: list[float]  # distance of each of 64 samples to its nearest training face


class FacesSize(Part):
    """A pair of trainings that differ only in the padding.

    A distance is the root mean square over the pixels, which range from 0 to 255.
    """

    size: int  # side of the images, in pixels
    images: list[int]  # number of training, validation and test images
    independent_bits: float | None  # bits per dimension with independent pixels
    bits_more: float  # by which padding is worse, on average over held-out faces
    bits_more_standard_error: float  # from differences paired by face
    of_held_out: list[float]  # distance of each held-out face to its nearest training face
    plain: FacesRun
    padded: FacesRun

    @property
    def runs(self) -> tuple[FacesRun, FacesRun]:
        """Both trainings, the one without padding first."""
        return self.plain, self.padded


class FacesReport(Part):
    """All measurements of the study: a pair of trainings for each size."""

    preset: str
    seed: int
    sizes: list[FacesSize]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """The settings of all runs."""
        return [("preset", self.preset), ("seed", str(self.seed))]


SAMPLE_COUNT = 64  # number of samples with measured distances to the training faces
COLUMNS, ROWS = 8, 2  # size of each band of a picture file, in images
PICTURE_TEMPERATURE = 0.7
BAND_GAP = 6  # pixels between two bands
CURVES = ("epoch", "condition_number_median", "condition_number_p95")


def faces_size(size: int, plain: Path, padded: Path) -> FacesSize:
    """Returns the results of a pair of finished run folders, for images of this side."""
    parts: Any = reload_data(read_run(plain))  # ImageData
    counts = [len(part) for part in (parts.train, parts.validation, parts.test)]
    report = read_report(plain)
    more = _bits(load(padded), parts) - _bits(load(plain), parts)
    return FacesSize(
        size=size,
        images=counts,
        independent_bits=pixel_bits(report.result),
        bits_more=more.mean().item(),
        bits_more_standard_error=more.std(correction=0).item() / len(more) ** 0.5,
        of_held_out=_distances(_held_out_pixels(parts), parts, load(plain)),
        plain=_run(plain, parts),
        padded=_run(padded, parts),
    )


def picture_of(plain: Path, padded: Path, *, seed: int = 0) -> bytes:
    """Returns a PNG file: held-out faces above samples of two flows, one band each, enlarged."""
    count = COLUMNS * ROWS
    parts: Any = reload_data(read_run(plain))  # ImageData
    bands = [_held_out_pixels(parts)[:count]]
    for folder in (plain, padded):
        flow = load(folder)
        samples = draw_pixels(flow, count, temperature=PICTURE_TEMPERATURE, seed=seed)
        bands.append(shown(samples, values_of(flow)))
    return png(enlarged(_stacked([grid(band, COLUMNS) for band in bands])))


def _run(folder: Path, parts: ImageData) -> FacesRun:
    flow, result = load(folder), read_finished(folder)
    report = read_report(folder)
    kept = report.profile.condition_number
    samples = draw_pixels(flow, SAMPLE_COUNT, temperature=TEMPERATURE, seed=1)
    return FacesRun(
        padding=0 if result.padding is None else result.padding.features,
        folder=folder.name,
        parameters=sum(p.numel() for p in flow.parameters()),
        epochs=result.epochs,
        best_epoch=report.best_epoch,
        time_s=result.time_s,
        bits_per_dimension=result.test.bits_per_dimension,
        bits_standard_error=result.test.bits_standard_error,
        round_trip_data=result.round_trip_data,
        kept_condition_number=kept.median[-1],
        kept_points=report.profile.points,
        curve=[
            {key: line[key] for key in CURVES}
            for line in report.curves
            if line["condition_number_median"] is not None
        ],
        drawn_at=TEMPERATURE,
        of_samples=_distances(shown(samples, values_of(flow)), parts, flow),
    )


def _bits(flow: Flow, parts: ImageData) -> Tensor:
    return -log_prob_of(flow, ImageBatches(parts.test, flow)) * bits_per_dimension(flow, 1.0)


def _held_out_pixels(parts: ImageData) -> Pixels:
    """Returns the held-out images with pixels from 0 to 255."""
    return shown(parts.test.batch(range(len(parts.test))).numpy(), parts.test.values)


def _distances(images: Pixels, parts: ImageData, flow: Flow) -> list[float]:
    return nearest_images(images, parts.train, values_of(flow))[0]


def _stacked(bands: Sequence[Pixels]) -> Pixels:
    """Returns pictures of equal width above each other, with white lines between them."""
    white = np.full((bands[0].shape[0], BAND_GAP, bands[0].shape[2]), 255, np.uint8)
    pieces = [piece for band in bands for piece in (band, white)]
    return np.concatenate(pieces[:-1], axis=1)
