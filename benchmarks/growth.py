"""How the time of a training step grows with depth, width, batch size and features."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from benchmarks.lines import write_results
from benchmarks.names import FLOOR
from benchmarks.processes import Job, run
from benchmarks.row import Shape
from benchmarks.rows import all_rows, installed
from benchmarks.suite import KEPT
from kappaflow.report.charts import Chart, Panel, Series

CENTER = Shape(depth=16, batch=512, features=16, hidden=(64, 64))
# A figure for each: title of its axis, and the values in place of those of CENTER.
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "depth": ("depth (couplings)", (4, 16, 64, 256)),
    "width": ("width of the hidden layers", (32, 64, 128, 256)),
    "batch": ("batch (rows)", (128, 512, 2048, 8192)),
    "features": ("features", (4, 16, 64, 256)),
}
# The rows and their tones, which are colors by number.
SHOWN = {"kappaflow, recompute": 0, "zuko": 1, "normflows": 2, "nflows": 3, "FrEIA": 5, FLOOR: 7}
JsonFile = Annotated[Path, Parameter(name="--json")]


def growth(
    *, seconds: float = 1.5, threads: int | None = None, file: JsonFile = KEPT / "growth.json"
) -> None:
    """Time training steps over depth, width, batch size and features, one at a time.

    Parameters
    ----------
    seconds
        Time for the rows of a library at one shape.
    threads
        Number of threads of torch; torch's default if left out.
    file
        File of results.
    """
    rows = installed([row for row in all_rows() if row.name in SHOWN])
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row.name)
    shapes = list(dict.fromkeys(shape for axis in AXES for _, shape in along(axis)))
    jobs = [
        Job(
            "train_step",
            {"rows": names, "shape": vars(shape), "budget": {"seconds": seconds}},
            f"{group}, depth {shape.depth}, batch {shape.batch}, {shape.features} features",
        )
        for shape in shapes
        for group, names in groups.items()
    ]
    found = run(jobs, threads=threads)
    lines = [
        {**job.arguments["shape"], "row": name, **row}
        for job, done in zip(jobs, found, strict=True)
        for name, row in (done["result"] if done else {}).items()
    ]
    machines = [done["machine"] for done in found if done]
    write_results(file, {"machine": machines[0] if machines else None, "lines": lines})


def along(axis: str) -> list[tuple[int, Shape]]:
    """Returns the values of one axis of the figures, and the shapes."""
    return [
        (
            value,
            replace(CENTER, hidden=(value, value))
            if axis == "width"
            else replace(CENTER, **{axis: value}),
        )
        for value in AXES[axis][1]
    ]


def growth_chart(results: dict[str, Any]) -> Chart:
    """Returns a panel for each axis: the time of a training step of each library."""
    times: dict[tuple[Any, ...], float] = {}
    for line in results["lines"]:
        if "train_step" in line:
            times.setdefault(_key(line, line["row"]), line["train_step"]["median_ms"])
    names = [name for name in SHOWN if any(key[0] == name for key in times)]
    panels = [
        Panel(
            x=title,
            y="training step [ms]",
            x_log=True,
            y_log=True,
            series=[
                _series(name, [(v, times.get(_key(vars(s), name))) for v, s in along(axis)])
                for name in names
            ],
        )
        for axis, (title, values) in AXES.items()
    ]
    caption = (
        f"Otherwise depth {CENTER.depth}, two hidden layers of {CENTER.hidden[0]}, batch "
        f"{CENTER.batch}, {CENTER.features} features. Medians of times in turn."
    )
    return Chart(
        name="benchmarks-growth",
        title="How the time of a training step grows",
        caption=caption,
        panels=panels,
        columns=2,
    )


def _key(shape: dict[str, Any], name: str) -> tuple[Any, ...]:
    return (name, shape["depth"], shape["batch"], shape["features"], *shape["hidden"])


def _series(name: str, points: list[tuple[int, float | None]]) -> Series:
    return Series(
        name="networks alone" if name == FLOOR else name.split(",")[0],
        x=[float(value) for value, _ in points],
        y=[time for _, time in points],
        tone=SHOWN[name],
        kind="dotted" if name == FLOOR else "line",
    )
