"""The command that compares flows of other libraries with their conversions."""

import json
from dataclasses import asdict
from typing import Literal, get_args

from benchmarks.converting_rows import CONVERTED, ORIGINAL, present
from benchmarks.lines import Line, write_results
from benchmarks.peak import ENVIRONMENT
from benchmarks.presets import PresetName
from benchmarks.processes import Job, run
from benchmarks.row import Shape
from benchmarks.suite import KEPT, JsonFile

FEATURES = (16, 64)
DEPTHS = (8, 32)
BATCH = 512
Part = Literal["times", "memory", "errors"]
PARTS = get_args(Part)
REPETITIONS: dict[PresetName, int] = {"minutes": 15, "full": 101}


def converting(
    *,
    preset: PresetName = "minutes",
    features: list[int] | None = None,
    depths: list[int] | None = None,
    rows: list[str] | None = None,
    parts: list[Part] | None = None,
    repetitions: int | None = None,
    file: JsonFile = KEPT / "converting.json",
) -> None:
    """Measure time and memory of training steps of other libraries' flows, and of conversions.

    The original and the converted flow take turns in one process, on one thread of torch. The
    memory of each is measured in a separate process. Errors of log_prob are errors of float32.

    Parameters
    ----------
    preset
        "minutes" (15 repetitions of each time) or "full" (101).
    features
        Numbers of features instead of 16 and 64.
    depths
        Numbers of couplings instead of 8 and 32.
    rows
        Measure only these rows; the other lines of the file stay unchanged.
    parts
        Measure only these parts: "times", "memory" or "errors" (of log_prob in float32).
    repetitions
        Number of repetitions of each time, instead of the preset's.
    file
        File of results.
    """
    shapes = [Shape(d, BATCH, n) for n in features or FEATURES for d in depths or DEPTHS]
    chosen = [row for row in present() if not rows or row in rows]
    places = [(row, asdict(shape)) for shape in shapes for row in chosen]
    count = repetitions or REPETITIONS[preset]
    jobs = [
        Job("converting_times", {"row": row, "shape": shape, "repetitions": count}, row)
        for row, shape in places
    ]
    jobs += [
        Job("converting_memory", {"row": row, "shape": shape, "kind": kind}, row, ENVIRONMENT)
        for row, shape in places
        for kind in (ORIGINAL, CONVERTED)
    ]
    jobs += [Job("converting_errors", {"row": row, "shape": shape}, row) for row, shape in places]
    jobs = [job for job in jobs if not parts or _part(job) in parts]
    done = run(jobs, threads=1)
    lines: list[Line] = [
        {"part": _part(job), **job.arguments, **one["result"]}
        for job, one in zip(jobs, done, strict=True)
        if one
    ]
    if (rows or parts) and file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))["lines"]
        renewed = {(row, part) for row in chosen for part in parts or PARTS}
        lines = [line for line in before if (line["row"], line["part"]) not in renewed] + lines
    found = [one for one in done if one]
    whole = not (features or depths or repetitions)
    results = {
        "preset": preset if whole else None,
        "machine": found[0]["machine"] if found else None,
        "rows": present(),
        "lines": lines,
    }
    write_results(file, results)


def _part(job: Job) -> str:
    return job.task.removeprefix("converting_")
