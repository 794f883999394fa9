"""What a finished run on images is used for: to sample, to score, to be examined again."""

from pathlib import Path

import numpy as np
import torch

from kappaflow.data import Images, load_images
from kappaflow.data.images.names import readable
from kappaflow.data.images.origin import Files
from kappaflow.diagnosis import Diagnosis, Progress, diagnose_flow, quietly, with_findings
from kappaflow.errors import ArgumentError, FileError, KappaflowError
from kappaflow.files import load
from kappaflow.flows import Flow
from kappaflow.report.pictures import Pixels
from kappaflow.runs.evaluate_images import points_of
from kappaflow.runs.image_job import with_classes
from kappaflow.runs.image_samples import context_of, draw_pixels, values_of
from kappaflow.runs.stored import (
    ImageRunConfig,
    images_again,
    read_finished_images,
    read_image_run,
)
from kappaflow.runs.stored_findings import stored_findings
from kappaflow.runs.use import Columns, check_draws, checked_quantiles, column_of, percentiles
from kappaflow.training import Rows, log_prob_of
from kappaflow.training.image_rows import ImageRows
from kappaflow.training.measure import bits_per_dimension, has_bits


def sample_image_run(
    folder: Path,
    n: int,
    *,
    class_name: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> tuple[Pixels, int, int]:
    """Returns n samples of the flow of a run on images, as pixels.

    Args:
        folder: The run folder.
        n: How many.
        class_name: The class of all of them, for a flow that is one given the class; if left out,
            all classes take turns.
        temperature: Deviation of the latents.
        seed: Of the draws.

    Returns:
        (n, channels, height, width) of whole numbers, how many values these may have, and how
        many classes take turns (1 where none do).

    Raises:
        ArgumentError: An argument is out of its range, or there is no such class.
    """
    check_draws(n, temperature, seed)
    run, flow = read_image_run(folder), load(folder)
    labels, turns = _labels(run, flow, n, class_name)
    drawn = draw_pixels(flow, n, labels=labels, temperature=temperature, seed=seed)
    return drawn, values_of(flow), turns


def _labels(
    run: ImageRunConfig, flow: Flow, n: int, class_name: str | None
) -> tuple[np.ndarray | None, int]:
    """Returns the class of each sample, and how many take turns."""
    classes = classes_of(run, flow)
    if not classes:
        if class_name is not None:
            raise ArgumentError(
                "'class' should be left out: the flow of this run does not read the class."
            )
        return None, 1
    if class_name is None:
        return np.arange(n) % len(classes), len(classes)
    if class_name not in classes:
        raise ArgumentError(f"'class' should be one of {', '.join(classes)}, got {class_name!r}.")
    return np.full(n, classes.index(class_name)), 1


def score_image_run(folder: Path, data: str) -> Columns:
    """Returns the score of each image of a source, brought to the form of the run.

    Args:
        folder: The run folder.
        data: Images, as `kappaflow.load_images` takes them.

    Returns:
        image (the name of its file, or its number from 0), bits_per_dimension (where the flow
        takes pixels for whole numbers), log_prob (nats; joint_log_prob where padding without a
        density leaves none) and percentile: 1 means that 99 % of the training images have a higher
        density.

    Raises:
        ArgumentError: The images do not fit the run.
        FileError: The run is not finished, or an image cannot be read.
    """
    result, run, flow = read_finished_images(folder), read_image_run(folder), load(folder)
    quantiles = checked_quantiles(result.train_log_prob_quantiles, folder)
    images = images_for(run, flow, data)
    scores = log_prob_of(flow, ImageRows(images, flow)).numpy()
    found: Columns = {"image": names_of(images)}
    if has_bits(flow):
        found["bits_per_dimension"] = -scores * bits_per_dimension(flow, 1.0)
    return found | {column_of(flow): scores, "percentile": percentiles(scores, quantiles)}


def examine_image_run(
    folder: Path, data: str | None = None, *, progress: Progress = quietly
) -> tuple[Diagnosis, str]:
    """Returns the doctor's diagnosis of the flow of a run on images, and where it was examined.

    Args:
        folder: The run folder.
        data: Images; the held-out ones of the run if left out and still to be found, else samples.
        progress: Is told what is measured, before it is.

    Returns:
        The diagnosis, and the points in words.
    """
    run, flow = read_image_run(folder), load(folder)
    if data is not None:
        return _examined(flow, images_for(run, flow, data), progress), f"images of {data}"
    try:
        images = images_again(run).test
    except KappaflowError:
        rows = draws_of(flow, points_of(flow))
        said = "samples of the flow (its images were not found as they were)"
        return diagnose_flow(flow, rows.x, rows.context, progress=progress), said
    found = _examined(flow, images, progress)
    return with_findings(found, *stored_findings(folder)), "held-out images of the run"


def images_for(run: ImageRunConfig, flow: Flow, data: str) -> Images:
    """Returns images in the form that a flow takes, with the classes that it was trained on."""
    channels, height, width = flow.event_shape
    crop = True if run.source is None else run.source.crop
    images = load_images(data, size=(height, width), grey=channels == 1, crop=crop)
    if images.values > values_of(flow):
        raise ArgumentError(
            f"'images' should have pixels of {values_of(flow)} values, as the run has; those of "
            f"{data} have {images.values}."
        )
    if not flow.context_features:
        return images
    return with_classes(images, classes_of(run, flow))


def classes_of(run: ImageRunConfig, flow: Flow) -> tuple[str, ...]:
    """Returns the names of the classes that a flow reads, numbers where none are stored."""
    width = flow.context_features
    if run.classes is not None and len(run.classes) == width:
        return run.classes
    if run.classes:
        raise FileError(f"the run has {len(run.classes)} classes, its flow reads {width}.")
    return tuple(map(str, range(width)))


def names_of(images: Images) -> np.ndarray:
    """Returns the name of the file of each image, or the number of each, from 0."""
    if not isinstance(images.pixels.origin, Files):
        return images.index.copy()
    return np.array([readable(images.pixels.origin.name(i)) for i in images.index.tolist()])


def draws_of(flow: Flow, count: int) -> Rows:
    """Returns samples of a flow as points of it, of all classes in turn where it reads them."""
    width = flow.context_features
    labels = np.arange(count) % width if width else None
    pixels = draw_pixels(flow, count, labels=labels)
    x = torch.from_numpy(pixels).to(flow.device, flow.dtype)
    return Rows(x, None if labels is None else context_of(labels, flow))


def _examined(flow: Flow, images: Images, progress: Progress) -> Diagnosis:
    rows = ImageRows(images, flow).at(slice(0, points_of(flow)))
    return diagnose_flow(flow, rows.x, rows.context, progress=progress)
