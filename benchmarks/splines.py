"""The command that compares spline couplings of several libraries: time and memory."""

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.floor import coupling_floor
from benchmarks.lines import Line, write_results
from benchmarks.names import FLOOR, QUANTITIES
from benchmarks.peak import ENVIRONMENT, peak_of_step
from benchmarks.processes import Job, console, run
from benchmarks.rows import installed
from benchmarks.splines_rows import SplineNetworks, spline_rows
from benchmarks.suite import KEPT, JsonFile
from benchmarks.tables import markdown, text_table
from benchmarks.timing import Budget, floor_subject, flow_subjects, times_of

DEPTH, BATCH, FEATURES = 8, 512, 16
WIDTHS = (64, 128)


def splines(
    *,
    widths: Sequence[int] = WIDTHS,
    repetitions: int = 21,
    depth: int = DEPTH,
    batch: int = BATCH,
    file: JsonFile = KEPT / "splines.json",
) -> None:
    """Compare flows of spline couplings of 16 features with zuko and nflows: time and memory.

    All rows take turns in one process, on one thread of torch. The memory of each is measured in
    a separate process.

    Parameters
    ----------
    widths
        Widths of the two hidden layers of the conditioners.
    repetitions
        Number of repetitions of each time.
    depth
        Number of couplings.
    batch
        Points per step.
    file
        File of results.
    """
    rows = installed(spline_rows())
    shapes = [{"depth": depth, "batch": batch, "width": width} for width in widths]
    names = [row.name for row in rows]
    jobs = [
        Job(
            "spline_times",
            {"rows": names, "repetitions": repetitions, **shape},
            f"{shape['width']} wide",
        )
        for shape in shapes
    ]
    jobs += [
        Job("spline_memory", {"row": name, **shape}, name, ENVIRONMENT)
        for shape in shapes
        for name in names
    ]
    done = run(jobs, threads=1)
    lines: list[Line] = [
        {**job.arguments, "part": job.task.removeprefix("spline_"), "found": one["result"]}
        for job, one in zip(jobs, done, strict=True)
        if one
    ]
    found = [one for one in done if one]
    results = {
        "machine": found[0]["machine"] if found else None,
        "descriptions": {row.name: row.description for row in rows},
        "lines": lines,
    }
    write_results(file, results)
    for table in splines_values(results)["tables"].values():
        console.print(table, markup=False, soft_wrap=True)


def shape_of(depth: int, batch: int, width: int) -> SplineNetworks:
    """Returns the shape of the rows at a place."""
    return SplineNetworks(depth, batch, FEATURES, (width, width))


def times_at(
    rows: Sequence[str], depth: int, batch: int, width: int, repetitions: int
) -> dict[str, Any]:
    """Returns times and paired ratios of the rows, in turn with the conditioners alone."""
    torch.manual_seed(0)
    shape, found = shape_of(depth, batch, width), {FLOOR: {}}
    subjects = [floor_subject(coupling_floor(shape), found[FLOOR])]
    subjects += flow_subjects([row for row in spline_rows() if row.name in rows], shape, found)
    budget = Budget(at_least=repetitions, at_most=repetitions)
    return times_of(subjects, QUANTITIES, budget, found)


def memory_at(row: str, depth: int, batch: int, width: int) -> dict[str, int]:
    """Returns the resident memory of a step of one row."""
    (chosen,) = (one for one in spline_rows() if one.name == row)
    return peak_of_step(chosen, shape_of(depth, batch, width))


def splines_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the page."""
    lines = results["lines"]
    times = {line["width"]: line for line in lines if line["part"] == "times"}
    peaks = {
        (line["width"], line["row"]): line["found"]["peak_bytes"]
        for line in lines
        if line["part"] == "memory"
    }
    first = next(iter(times.values()))
    return {
        "tables": {width: _table(width, line["found"], peaks) for width, line in times.items()},
        "depth": first["depth"],
        "batch": first["batch"],
        "repetitions": first["repetitions"],
        "features": FEATURES,
        "rows": text_table(["row", "what it is"], results["descriptions"].items()),
    }


def _table(width: int, rows: dict[str, Any], peaks: dict[tuple[int, str], int]) -> str:
    """Returns times, their ratios to zuko's couplings, and peaks of memory."""
    head = ["", "parameters"]
    for name in ("training step", "log_prob", "sample"):
        head += [f"{name} [ms]", "/ zuko"]
    cells = []
    for name in sorted(rows, key=lambda name: name == FLOOR):
        row = rows[name]
        line = [name, f"{row['parameters']:,}" if "parameters" in row else ""]
        for quantity in ("train_step", "log_prob", "sample"):
            figures = row.get(quantity, {})
            ratio = figures.get("to_zuko")
            line += [
                f"{figures['median_ms']:.1f}" if figures else "",
                "" if ratio is None else f"{ratio:.2f}",
            ]
        peak = peaks.get((width, name))
        cells.append([*line, "" if peak is None else f"{peak / 1e6:.1f}"])
    return markdown([*head, "peak [MB]"], cells)
