"""The commands of the suite; each writes one JSON file."""

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from benchmarks.lines import write_results
from benchmarks.presets import PRESETS, Pair, PresetName
from benchmarks.processes import Job, console, run

if TYPE_CHECKING:
    from benchmarks.row import Row

KEPT = Path(__file__).parent / "results"  # committed results; long runs resume from them
JsonFile = Annotated[Path, Parameter(name="--json")]


def speed(
    *,
    preset: PresetName = "minutes",
    groups: list[str] | None = None,
    depths: list[int] | None = None,
    batches: list[int] | None = None,
    repetitions: int | None = None,
    threads: int | None = None,
    file: JsonFile = KEPT / "speed.json",
) -> None:
    """Time training steps, forward and backward, log_prob and sampling of all rows.

    Parameters
    ----------
    preset
        Name of the grid.
    groups
        Groups of rows, each timed in one process: kappaflow, any module, zuko, zuko with SiLU,
        normflows, nflows, FrEIA.
    depths
        Depths instead of the preset's; even numbers.
    batches
        Batch sizes instead of the preset's.
    repetitions
        Number of repetitions instead of the preset's time limit.
    threads
        Number of threads of torch; torch's default if left out.
    file
        File of results.
    """
    chosen, rows = PRESETS[preset], _present_rows("speed", groups)
    budget: dict[str, Any] = {"seconds": chosen.seconds}
    if repetitions is not None:
        budget |= {"at_least": repetitions, "at_most": repetitions}
    jobs = [
        Job(
            "speed",
            {"rows": names, "depth": depth, "batch": batch, "budget": budget},
            f"{group}, depth {depth}, batch {batch}",
            environment,
        )
        for depth, batch in _pairs(chosen.speed, depths, batches)
        for group, (names, environment) in _by_group(rows).items()
    ]
    found = run(jobs, threads=threads)
    for name, row in _all_timed(found):
        if "error" in row:
            console.print(f"{name}: {row['error']}", markup=False, soft_wrap=True)
    lines = [
        {"group": job.label.rsplit(", depth")[0], **_place(job), "rows": done["result"]}
        for job, done in zip(jobs, found, strict=True)
        if done
    ]
    own = depths or batches or repetitions
    _write(file, None if own else preset, _described(rows), lines, found)


def memory(
    *,
    preset: PresetName = "minutes",
    groups: list[str] | None = None,
    depths: list[int] | None = None,
    batches: list[int] | None = None,
    repeats: int | None = None,
    threads: int | None = None,
    file: JsonFile = KEPT / "memory.json",
) -> None:
    """Measure the resident memory of a training step, each figure in new processes.

    Parameters
    ----------
    preset
        Name of the grid.
    groups
        Groups of rows: kappaflow, any module, zuko, normflows, nflows, FrEIA.
    depths
        Depths instead of the preset's; even numbers.
    batches
        Batch sizes instead of the preset's.
    repeats
        Number of processes for each figure, instead of the preset's.
    threads
        Number of threads of torch; torch's default if left out.
    file
        File of results.
    """
    from benchmarks.peak import ENVIRONMENT

    chosen, rows = PRESETS[preset], _present_rows("memory", groups)
    places = [(row, pair) for pair in _pairs(chosen.memory, depths, batches) for row in rows]
    if not (depths or batches):
        ours = [row for row in rows if row.package == "kappaflow"]
        places += [(row, pair) for pair in chosen.own_memory for row in ours]
    jobs = [
        Job(
            "memory",
            {"rows": [row.name], "depth": depth, "batch": batch},
            f"{row.name}, depth {depth}, batch {batch}",
            ENVIRONMENT,
        )
        for row, (depth, batch) in places
        for _ in range(repeats or chosen.repeats)
    ]
    found = run(jobs, threads=threads, at_once=2)
    own = depths or batches or repeats
    _write(file, None if own else preset, _described(rows), _medians(jobs, found), found)


def numerics(
    *,
    preset: PresetName = "minutes",
    groups: list[str] | None = None,
    depths: list[int] | None = None,
    threads: int | None = None,
    file: JsonFile = KEPT / "numerics.json",
) -> None:
    """Measure finite shares, round trips and condition numbers at default initialization.

    Parameters
    ----------
    preset
        Name of the grid of depths.
    groups
        Groups of rows: kappaflow, any module, zuko, normflows, nflows, FrEIA.
    depths
        Depths instead of the preset's; even numbers.
    threads
        Number of threads of torch; torch's default if left out.
    file
        File of results.
    """
    chosen, rows = PRESETS[preset], _present_rows("numerics", groups)
    jobs = []
    for row in rows:
        own = chosen.own_depths if row.package == "kappaflow" else ()
        of_row = depths or [*chosen.depths, *own]
        arguments = {"rows": [row.name], "depths": of_row, "batch": 512}
        jobs.append(Job("numerics", arguments, row.name))
    found = run(jobs, threads=threads, at_once=2)
    lines = [
        {"row": job.label, **line}
        for job, done in zip(jobs, found, strict=True)
        for line in (done["result"] if done else [])
    ]
    _write(file, None if depths else preset, _described(rows), lines, found)


def gradients(
    *,
    depth: int | None = None,
    threads: int | None = None,
    file: JsonFile = KEPT / "gradients.json",
) -> None:
    """Compare float32 gradients of each memory mode with float64, by condition number.

    Parameters
    ----------
    depth
        Number of couplings, instead of the default.
    threads
        Number of threads of torch; torch's default if left out.
    file
        File of results.
    """
    from benchmarks.gradients import SETTINGS, SHAPE

    job = Job("gradients", {"settings": SETTINGS, "depth": depth}, "gradients")
    found = run([job], threads=threads)
    results = found[0]["result"] if found[0] else []
    lines = [{"depth": depth or SHAPE.depth, **line} for line in results]
    _write(file, None, {}, lines, found)


def spectra(
    *,
    preset: PresetName = "minutes",
    dimensions: list[int] | None = None,
    matrix_free: list[int] | None = None,
    file: JsonFile = KEPT / "spectra.json",
) -> None:
    """Measure sigma_max and sigma_min at one point in float32: times, errors, the 1e13 case.

    The reference values come from dense Jacobians in float64, with sigma_min from the inverse map.
    The dense float32 method takes both ends from one forward Jacobian, as a naive user would.
    Times are processor times on one thread.

    Parameters
    ----------
    preset
        Name of the dimensions; a float64 reference of 3072 dimensions ("full") takes a minute.
    dimensions
        Dimensions for both methods, instead of the preset's.
    matrix_free
        Dimensions for the matrix-free method alone, instead of 12288.
    file
        File of results.
    """
    chosen = dimensions or list(PRESETS[preset].dimensions)
    arguments = {"dimensions": chosen, "matrix_free": matrix_free or [12288]}
    found = run([Job("spectra", arguments, "spectra")], threads=1)
    lines = found[0]["result"] if found[0] else []
    own = dimensions or matrix_free
    _write(file, None if own else preset, {}, lines, found)


def everything(
    *,
    preset: PresetName = "minutes",
    threads: int | None = None,
    folder: Path = KEPT,
) -> None:
    """Run all measurements of the suite; `write-page` turns the results into a page.

    Parameters
    ----------
    preset
        "minutes" (little more than depth 128, batch 512) or "full" (the grid: one or two hours).
    threads
        Number of threads of torch; torch's default if left out.
    folder
        Folder of the files of results.
    """
    speed(preset=preset, threads=threads, file=folder / "speed.json")
    memory(preset=preset, threads=threads, file=folder / "memory.json")
    numerics(preset=preset, threads=threads, file=folder / "numerics.json")
    gradients(threads=threads, file=folder / "gradients.json")
    spectra(preset=preset, file=folder / "spectra.json")


def _present_rows(task: str, groups: list[str] | None) -> "list[Row]":
    """Returns the rows of a task and of groups whose library is installed."""
    from benchmarks.rows import all_rows, installed

    rows = [row for row in all_rows() if task in row.measures]
    return installed([row for row in rows if groups is None or row.group in groups])


def _all_timed(found: list[dict[str, Any] | None]) -> "Iterable[tuple[str, dict[str, Any]]]":
    return (item for done in found if done for item in done["result"].items())


def _described(rows: "Iterable[Row]") -> dict[str, str]:
    return {row.name: row.description for row in rows}


def _by_group(rows: "Iterable[Row]") -> dict[str, tuple[list[str], dict[str, str]]]:
    """Returns the names of the rows of each group, and their common environment."""
    groups: dict[str, tuple[list[str], dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row.group, ([], dict(row.environment)))[0].append(row.name)
    return groups


def _pairs(
    preset: tuple[Pair, ...], depths: list[int] | None, batches: list[int] | None
) -> list[Pair]:
    """Returns the pairs (depth, batch) of the preset, or the given ones."""
    depths = depths or sorted({depth for depth, _ in preset})
    batches = batches or sorted({batch for _, batch in preset})
    return [(depth, batch) for batch in batches for depth in depths]


def _place(job: Job) -> dict[str, int]:
    return {"depth": job.arguments["depth"], "batch": job.arguments["batch"]}


def _medians(jobs: list[Job], found: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Returns a line for each row and place: the median of its processes, and all values."""
    lines: dict[str, dict[str, Any]] = {}
    for job, done in zip(jobs, found, strict=True):
        if done:
            start = {"row": job.arguments["rows"][0], **_place(job), "found": []}
            lines.setdefault(job.label, start)["found"].append(done["result"])
    for line in lines.values():
        for key in ("peak_bytes", "kept_bytes"):
            line[key] = median(one[key] for one in line["found"])
    return list(lines.values())


def _write(
    path: Path,
    preset: str | None,
    descriptions: dict[str, str],
    lines: list[dict[str, Any]],
    found: list[dict[str, Any] | None],
) -> None:
    """Writes the results."""
    machines = [done["machine"] for done in found if done]
    text = {
        "preset": preset,
        "machine": machines[0] if machines else None,
        "descriptions": descriptions,
        "lines": lines,
    }
    write_results(path, text)
