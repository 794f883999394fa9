"""The process started by `benchmarks.processes`: it runs one measurement.

It reads a job as JSON from standard input, and writes the result as the last line of output.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import factoring
from benchmarks.gradients import SEEDS, SHAPE, gradient_errors
from benchmarks.images_digits import digits_of
from benchmarks.images_rows import image_rows
from benchmarks.lines import append_machine
from benchmarks.machine import machine
from benchmarks.numerics import numerics_of
from benchmarks.peak import peak_of_step
from benchmarks.reaching import curve_of
from benchmarks.row import ImageShape, Row, Shape
from benchmarks.rows import all_rows
from benchmarks.score_rows import score_rows
from benchmarks.spectra import spectra_lines
from benchmarks.splines import memory_at, times_at
from benchmarks.timing import Budget, time_group, time_images


def speed(rows: list[str], depth: int, batch: int, budget: dict[str, Any]) -> dict[str, Any]:
    """Returns the times of the rows of a group."""
    return time_group([_row(name) for name in rows], Shape(depth, batch), Budget(**budget))


def train_step(rows: list[str], shape: dict[str, Any], budget: dict[str, Any]) -> dict[str, Any]:
    """Returns the times of training steps of the rows of a group."""
    found = [_row(name) for name in rows]
    return time_group(found, _shape(shape), Budget(**budget), ("train_step",))


def memory(rows: list[str], depth: int, batch: int) -> dict[str, Any]:
    """Returns the resident memory of one step of one row."""
    return peak_of_step(_row(rows[0]), Shape(depth, batch))


def numerics(rows: list[str], depths: list[int], batch: int) -> list[dict[str, Any]]:
    """Returns the numerics of one row at each depth."""
    return [
        {"depth": depth, **numerics_of(_row(rows[0]), Shape(depth, batch))} for depth in depths
    ]


def gradients(settings: list[tuple[float, float]], depth: int | None) -> list[dict[str, Any]]:
    """Returns the gradient errors of the memory modes at each setting, for several seeds."""
    shape = SHAPE if depth is None else Shape(depth, SHAPE.batch)
    return [
        gradient_errors(*setting, shape, seed=seed)
        for setting in settings
        for seed in range(SEEDS)
    ]


def factor(file: str, **arguments: Any) -> None:  # noqa: ANN401
    """Appends a line to a file for each draw of a goal."""
    append_machine(Path(file), machine())
    factoring.take_draws(**arguments, file=Path(file))


def reaching(row: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Returns the validation likelihood of one row over the time of its training."""
    return curve_of(_row(row), **settings)


def image_speed(rows: list[str], shape: dict[str, Any], budget: dict[str, Any]) -> dict[str, Any]:
    """Returns the times of the rows of images."""
    return time_images([_image_row(name) for name in rows], _image_shape(shape), Budget(**budget))


def image_memory(row: str, shape: dict[str, Any]) -> dict[str, Any]:
    """Returns the resident memory of one step of one row of images."""
    return peak_of_step(_image_row(row), _image_shape(shape))


def image_digits(row: str, seed: int, seconds: float, shape: dict[str, Any]) -> dict[str, Any]:
    """Returns the results of one row of images on the digits."""
    return digits_of(_image_row(row), seed, seconds, _image_shape(shape))


TASKS: dict[str, Callable[..., Any]] = {
    "speed": speed,
    "train_step": train_step,
    "reaching": reaching,
    "memory": memory,
    "numerics": numerics,
    "gradients": gradients,
    "spectra": spectra_lines,
    "factor": factor,
    "image_speed": image_speed,
    "image_memory": image_memory,
    "image_digits": image_digits,
    "score_rows": score_rows,
    "spline_times": times_at,
    "spline_memory": memory_at,
}


def main() -> None:
    """Runs the job and prints its result with a description of the machine."""
    job = json.load(sys.stdin)
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    result = TASKS[job["task"]](**job["arguments"])
    print()  # a library may have printed an incomplete line
    print(json.dumps({"result": result, "machine": machine()}))


def _row(name: str) -> Row:
    return next(row for row in all_rows() if row.name == name)


def _shape(shape: dict[str, Any]) -> Shape:
    return Shape(**{**shape, "hidden": tuple(shape["hidden"])})


def _image_row(name: str) -> Row:
    return next(row for row in image_rows() if row.name == name)


def _image_shape(shape: dict[str, Any]) -> ImageShape:
    return ImageShape(**{**shape, "image": tuple(shape["image"])})


if __name__ == "__main__":
    main()
