"""Samples of a finished run, in memory or written to files."""

import io
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kappaflow._checks import finite_float, natural_int, positive_int
from kappaflow.data import Table, check_writable, load_table
from kappaflow.data.chunks import chunk_size
from kappaflow.data.raw import Decimal, Reading
from kappaflow.data.table import require_finite
from kappaflow.data.write import table_writer
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.report.pictures import Pixels, enlarged, grid, png, shown
from kappaflow.runs.image_samples import draw_pixels, values_of
from kappaflow.runs.ranges import Outside, rows_outside, stored_ranges
from kappaflow.runs.scores import refuse_table_options
from kappaflow.runs.stored import (
    ImageRunConfig,
    is_image_run,
    load_on,
    read_image_run,
    read_table_run,
)
from kappaflow.runs.written import Columns, Written, write_chunks
from kappaflow.storage import atomic_directory, check_place, write_bytes

ROWS_AT_ONCE = 65_536
PICTURE, ARRAY = ".png", ".npy"
MOST_IN_TURNS = 20  # classes that can have a column each


def sample_run(
    folder: Path,
    n: int,
    *,
    context: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    decimal: Decimal | None = None,
    device: str | None = None,
) -> Columns:
    """Returns samples of the flow of a run on a table, by column, in the units of the data.

    There are n samples, or n for each row of the data `context`, whose columns are returned too.
    The decimal sign of the context is by default that of the data of the run. The device is "cpu"
    (the default) or "cuda". A warning says if many context rows lie outside of the training range.

    Raises:
        ArgumentError: An argument is out of its range, a context is missing or not needed, or the
            device does not exist.
    """
    check_sampling(n, temperature, seed)
    samples = Samples(folder, context, temperature, decimal, device)
    samples.outside.warn(samples.contexts, "context rows")
    return samples.draw(n, torch.Generator().manual_seed(seed))


def sample_images(
    folder: Path,
    n: int,
    *,
    class_name: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    device: str | None = None,
) -> tuple[Pixels, int, int]:
    """Returns samples of the flow of a run on images, as pixels.

    `class_name` is the class of all samples, for a flow that reads the class; by default the
    classes take turns. The device is "cpu" (the default) or "cuda".

    Returns:
        Whole numbers (n, channels, height, width), the number of values that they can have, and
        the number of classes that take turns (1 for none).

    Raises:
        ArgumentError: An argument is out of its range, or there is no such class or device.
    """
    check_sampling(n, temperature, seed)
    run, flow = read_image_run(folder), load_on(folder, device)
    labels, turns = _labels(run, flow, n, class_name)
    drawn = draw_pixels(flow, n, labels=labels, temperature=temperature, seed=seed)
    return drawn, values_of(flow), turns


class Samples:
    """Samples from a run on a table, in chunks; `sample_run` describes the arguments.

    `contexts` is the number of context rows; 1 without a context. `outside` counts those outside
    of the range of the training rows. `at_once` samples are made at
    once: chunks of a multiple of it hold the same samples as one chunk.
    """

    def __init__(
        self,
        folder: Path,
        context: str | None,
        temperature: float,
        decimal: Decimal | None = None,
        device: str | None = None,
    ) -> None:
        self.flow, self.run = load_on(folder, device), read_table_run(folder)
        names = self.run.context_columns
        if bool(names) != (context is not None):
            raise ArgumentError(
                "'context' should "
                + (
                    f"name data with {', '.join(names)}."
                    if names
                    else "be left out: the flow has none."
                )
            )
        reading = self.run.reading(decimal)
        table = None if context is None else finite_table(context, names, [], reading)
        ranges = {} if table is None else stored_ranges(folder)
        self.outside = Outside() if table is None else rows_outside(table, ranges)
        self._given = None if table is None else table.values
        self._temperature = temperature
        self.contexts = 1 if table is None else len(table)
        self.at_once = max(1, ROWS_AT_ONCE // self.contexts)

    def draw(self, n: int, generator: torch.Generator) -> Columns:
        """Returns n samples for each context, by column."""
        given, run = self._given, self.run
        rows = (
            None
            if given is None
            else torch.from_numpy(given).to(self.flow.device, self.flow.dtype)
        )
        sizes = [min(self.at_once, n - start) for start in range(0, n, self.at_once)]
        samples = torch.cat([
            self.flow.sample(size, rows, temperature=self._temperature, generator=generator)
            for size in sizes
        ])
        samples = samples.cpu().numpy()
        if given is None:
            return _by_column(run.columns, samples)
        samples = samples.reshape(-1, samples.shape[-1])
        contexts = _by_column(run.context_columns, np.tile(given, (n, 1)))
        return _by_column(run.columns, samples) | contexts


def check_sampling(n: int, temperature: float, seed: int) -> None:
    """Raises an error for an argument that is out of its range."""
    positive_int("n", n)
    if finite_float("temperature", temperature) < 0:
        raise ArgumentError(f"'temperature' should be 0 or more, got {temperature}.")
    if natural_int("seed", seed) >= 2**63:
        raise ArgumentError(f"'seed' should be below 2**63, got {seed}.")


def write_samples(
    folder: Path,
    n: int,
    out: str,
    *,
    context: str | None = None,
    class_name: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    decimal: Decimal | None = None,
    device: str | None = None,
) -> Written:
    """Writes the samples of `sample_run` or `sample_images` to a file or to standard output.

    More rows than one chunk are sampled and written a chunk at a time, with the same numbers.
    `out` is as for `write_table`; for images as for `check_image_path`.

    Returns:
        A summary.

    Raises:
        ArgumentError: An argument is out of its range or for other data.
    """
    if is_image_run(folder):
        if context is not None:
            raise ArgumentError("'context' should be left out for images: name a class instead.")
        refuse_table_options(decimal=decimal)
        check_image_path(out)
        drawn, values, turns = sample_images(
            folder,
            n,
            class_name=class_name,
            temperature=temperature,
            seed=seed,
            device=device,
        )
        write_images(drawn, out, values=values, turns=turns)
        return Written(n, (), 0)
    check_writable(out, read=context)
    if class_name is not None:
        raise ArgumentError("'class' should be left out: this run is not on images.")
    check_sampling(n, temperature, seed)
    samples = Samples(folder, context, temperature, decimal, device)
    result = _write_rows(samples, n, out, seed)
    return replace(result, outside=samples.outside)


def _write_rows(samples: "Samples", n: int, out: str, seed: int) -> Written:
    """Returns a summary of written samples of rows; many are written in chunks."""
    generator = torch.Generator().manual_seed(seed)
    width = len(samples.run.columns) + len(samples.run.context_columns)
    contexts = samples.contexts
    size = chunk_size(width, samples.at_once * contexts) // contexts
    sizes = [min(size, n - start) for start in range(0, n, size)]
    drawn = (samples.draw(count, generator) for count in sizes)
    with table_writer(out) as writer:
        return write_chunks("sampling", n * contexts, drawn, writer)


def _labels(
    run: ImageRunConfig, flow: Flow, n: int, class_name: str | None
) -> tuple[np.ndarray | None, int]:
    """Returns the class of each sample, and the number of classes that take turns."""
    classes = run.classes_of(flow)
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


def finite_table(data: str, columns: list[str], context: list[str], reading: Reading) -> Table:
    """Returns named columns of some data, or raises an error if a value is not finite."""
    table = load_table(
        data, columns=columns, context=context, decimal=reading.decimal, missing=reading.missing
    )
    require_finite(table, data)
    return table


def _by_column(names: list[str], values: np.ndarray) -> dict[str, Any]:
    return {name: values[:, i] for i, name in enumerate(names)}


def check_image_path(path: str) -> None:
    """Raises an error for a path that `write_images` cannot write, before any work is done.

    It should be a .png or .npy file, or a new folder.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if path == "-" or suffix not in (PICTURE, ARRAY, ""):
        raise ArgumentError(
            "'out' should end in .png for one picture or in .npy for an array, or be a new folder "
            f"for a picture of each sample, got {path!r}."
        )
    if not suffix and os.path.lexists(target):
        raise ArgumentError(f"'out' should be a new folder, {path} is there already.")
    check_place("out", target)


def write_images(images: Pixels, path: str, *, values: int = 256, turns: int = 1) -> None:
    """Writes images to one picture, to a folder of pictures, or to an array.

    The images, (N, channels, height, width), are whole numbers from 0 to `values` - 1. A .png file
    shows all of them in a grid, enlarged to at least 512 pixels; a folder holds one .png file per
    image, not enlarged. Both scale the values from black to white. A .npy file holds the unscaled
    numbers, uint8. Each of `turns` classes that take turns gets its own columns.
    """
    check_image_path(path)
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix == ARRAY:
        buffer = io.BytesIO()
        np.save(buffer, images, allow_pickle=False)
        write_bytes(target, buffer.getvalue())
    elif suffix == PICTURE:
        whole = grid(shown(images, values), columns_for(len(images), turns))
        write_bytes(target, png(enlarged(whole)))
    else:
        digits = len(str(len(images)))
        with atomic_directory(target) as place:
            for number, image in enumerate(shown(images, values), start=1):
                (place / f"{number:0{digits}}.png").write_bytes(png(image))


def columns_for(count: int, turns: int = 1) -> int:
    """Returns the number of images in a row: one column per class, or about a square.

    Example:
        >>> columns_for(64), columns_for(10), columns_for(30, turns=10)
        (8, 4, 10)
    """
    if 1 < turns <= min(count, MOST_IN_TURNS):
        return turns
    return math.ceil(math.sqrt(count))
