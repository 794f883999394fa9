"""The command that measures Glows of images: time and memory of a step, digits learned."""

import importlib.util
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.lines import Line, grouped, write_results
from benchmarks.presets import PresetName
from benchmarks.processes import Job, console, run
from benchmarks.suite import KEPT, JsonFile

if TYPE_CHECKING:
    from benchmarks.row import ImageShape, Row

Part = Literal["speed", "memory", "digits"]
PARTS: tuple[Part, ...] = ("speed", "memory", "digits")
SEEDS = 3


@dataclass(frozen=True)
class ImagePreset:
    """The amount of measurement.

    Attributes:
        seconds: Time for each quantity of all rows together.
        repeats: Number of processes for each memory figure; the median counts.
        digits_s: Processor time of a training.
    """

    seconds: float
    repeats: int
    digits_s: float


IMAGE_PRESETS: dict[PresetName, ImagePreset] = {
    "minutes": ImagePreset(seconds=30.0, repeats=1, digits_s=60.0),
    "full": ImagePreset(seconds=150.0, repeats=3, digits_s=600.0),
}


def images(
    *,
    preset: PresetName = "minutes",
    parts: list[Part] | None = None,
    rows: list[str] | None = None,
    repetitions: int | None = None,
    seconds: float | None = None,
    seeds: int = SEEDS,
    batch: int | None = None,
    steps: int | None = None,
    hidden: int | None = None,
    threads: int = 2,
    file: JsonFile = KEPT / "images.json",
) -> None:
    """Measure Glows: time and memory at 3 x 32 x 32 images, and training on digits.

    The times of all rows are measured in turn in one process. Memory and trainings have separate
    processes. Parts and rows that are not measured keep their results in the file if the machine
    and the versions are the same.

    Parameters
    ----------
    preset
        "minutes" (60 processor-seconds per training, 15 minutes in total) or "full" (600).
    parts
        Parts: speed, memory, digits; all by default.
    rows
        Names of rows; all by default.
    repetitions
        Number of repetitions of each time, instead of the preset's time limit.
    seconds
        Processor time of a training on the digits, instead of the preset's.
    seeds
        Trainings of each row.
    batch
        Images per step, for the times and for the digits.
    steps
        Steps in each level, for the times and for the digits.
    hidden
        Channels of the networks, for the times and for the digits.
    threads
        Number of threads of torch for time and memory; trainings have one.
    file
        File of results.
    """
    from benchmarks.images_digits import SHAPE
    from benchmarks.images_rows import image_rows
    from benchmarks.row import ImageShape
    from benchmarks.rows import installed

    chosen, wanted = IMAGE_PRESETS[preset], parts or list(PARTS)
    own = {"batch": batch, "steps": steps, "hidden": hidden}
    own = {name: value for name, value in own.items() if value is not None}
    present = installed([row for row in image_rows() if rows is None or row.name in rows])
    found: list[dict[str, Any] | None] = []
    lines: list[Line] = []
    jobs: dict[Part, list[Job]] = {
        "speed": _speed(present, replace(ImageShape(), **own), chosen, repetitions),
        "memory": _memory(present, replace(ImageShape(), **own), chosen),
        "digits": _digits(present, replace(SHAPE, **own), seconds or chosen.digits_s, seeds),
    }
    for part in wanted:
        done = run(jobs[part], threads=1 if part == "digits" else threads)
        found += done
        lines += _lines(part, jobs[part], done)
    whole = not (own or rows or parts or repetitions or seconds) and seeds == SEEDS
    _write(file, preset if whole else None, present, lines, found)


def _speed(
    rows: "list[Row]", shape: "ImageShape", chosen: ImagePreset, repetitions: int | None
) -> list[Job]:
    budget: dict[str, Any] = {"seconds": chosen.seconds, "at_least": 11}
    if repetitions is not None:
        budget |= {"at_least": repetitions, "at_most": repetitions}
    arguments = {"rows": [row.name for row in rows], "shape": asdict(shape), "budget": budget}
    return [Job("image_speed", arguments, "all rows in turn")]


def _memory(rows: "list[Row]", shape: "ImageShape", chosen: ImagePreset) -> list[Job]:
    from benchmarks.peak import ENVIRONMENT

    return [
        Job(
            "image_memory",
            {"row": row.name, "shape": asdict(shape)},
            f"{row.name}, memory",
            ENVIRONMENT,
        )
        for row in rows
        for _ in range(chosen.repeats)
    ]


def _digits(rows: "list[Row]", shape: "ImageShape", seconds: float, seeds: int) -> list[Job]:
    """Returns the trainings, with the rows in turn: our fastest memory mode, and no FrEIA."""
    if importlib.util.find_spec("sklearn") is None:
        console.print("scikit-learn is not installed, its digits are left out", markup=False)
        return []
    trained = [row for row in rows if "digits" in row.measures]
    return [
        Job(
            "image_digits",
            {"row": row.name, "seed": seed, "seconds": seconds, "shape": asdict(shape)},
            f"{row.name}, digits, seed {seed}",
        )
        for seed in range(seeds)
        for row in trained
    ]


def _lines(part: Part, jobs: list[Job], found: list[dict[str, Any] | None]) -> list[Line]:
    """Returns a line for each job that ran; for memory, one per row with the median."""
    lines = [
        {"part": part, **{k: v for k, v in job.arguments.items() if k not in ("rows", "budget")}}
        | ({"rows": done["result"]} if part == "speed" else done["result"])
        for job, done in zip(jobs, found, strict=True)
        if done
    ]
    if part != "memory":
        return lines
    return [
        same[0] | {key: median(line[key] for line in same) for key in ("peak_bytes", "kept_bytes")}
        for same in grouped(lines, ("row",)).values()
    ]


def _write(
    path: Path,
    preset: str | None,
    rows: "Iterable[Row]",
    lines: list[Line],
    found: list[dict[str, Any] | None],
) -> None:
    """Writes the results into the file, and keeps its other lines."""
    machines = [done["machine"] for done in found if done]
    machine = machines[0] if machines else None
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept = old["lines"] if old and _same(old["machine"], machine) else []
    measured = {_key(line) for line in lines}
    kept = [line for line in kept if _key(line) not in measured]
    described = old.get("rows", {}) if kept else {}
    results = {
        "preset": None if kept else preset,
        "machine": machine,
        "rows": described | {row.name: row.description for row in rows},
        "lines": kept + lines,
    }
    write_results(path, results)


def _same(one: Line | None, other: Line | None) -> bool:
    """Returns whether two machines differ at most in the settings of their allocators."""
    pair = [
        {k: v for k, v in (m or {}).items() if k not in ("environment", "threads")}
        for m in (one, other)
    ]
    return pair[0] == pair[1]


def _key(line: Line) -> tuple[Any, ...]:
    return line["part"], line.get("row"), line.get("seed")
