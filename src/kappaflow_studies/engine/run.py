"""Runs a study, or resumes it, and writes its folder."""

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kappaflow._checks import natural_int, positive_int
from kappaflow.errors import ArgumentError, FileError
from kappaflow.locking import locked
from kappaflow.reading import parse_json, read_small
from kappaflow.storage import append_bytes, make_directory, write_bytes
from kappaflow_studies.engine.folder import as_text, checked_folder, write_results
from kappaflow_studies.engine.pool import measured
from kappaflow_studies.engine.presets import settings_of
from kappaflow_studies.engine.report import Reproduced, StudyReport, render_study
from kappaflow_studies.engine.study import Measured, S, Study, frame_of


def key_of(case: Mapping[str, Any]) -> str:
    """Returns a string that identifies a case: its values, in any order."""
    return json.dumps(case, sort_keys=True)


def read_measured(path: Path) -> dict[str, Measured]:
    """Returns the measured cases of a file, keyed by `key_of`; empty if there is no such file."""
    if not path.exists():
        return {}
    try:
        complete_lines, newline, cut_short = read_small(path).rpartition(b"\n")
        if cut_short:
            with path.open("r+b") as file:
                file.truncate(len(complete_lines) + len(newline))
        entries = [parse_json(line) for line in complete_lines.splitlines()]
        cases = [(entry["case"], entry["rows"], entry["time_s"]) for entry in entries]
        return {key_of(measured_case[0]): measured_case for measured_case in cases}
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise FileError(
            f"{path} is damaged: one of its lines is not a measured case. Move the file away to "
            "start over."
        ) from None


CONFIG, CASES, RESULTS = "config.json", "cases.jsonl", "results.parquet"
PACKAGES = ("kappaflow", "torch", "numpy", "scipy", "zuko", "nflows", "normflows", "FrEIA", "POT")


def run_study(
    study: Study[S],
    out: str | Path,
    *,
    preset: str = "minutes",
    config: str | Path | None = None,
    seed: int = 0,
    processes: int | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Reproduced:
    """Returns the report, page and findings of a study, after measuring the missing cases.

    The folder `out` holds config.json (the settings) and cases.jsonl (each case as soon as it is
    measured); at the end also results.parquet (a row for each measurement), figures/ (SVG and
    PNG), report.json and index.html. To resume an interrupted study, run it again.

    The settings are those of a preset, "minutes" or "full", or of the file `config`. So many
    `processes` (by default one per core) measure a case each, on one thread. A progress bar is
    shown by default only on a terminal; `say` receives messages.

    Raises:
        ArgumentError: An argument is wrong, or the folder holds another study.
        FileError: A file cannot be read or written.
        NumericalError: A case failed, or its process was killed. Measured cases are kept.
    """
    settings = settings_of(study, preset, config)
    natural_int("seed", seed)
    workers = _core_count() if processes is None else positive_int("processes", processes)
    cases = list({key_of(case): case for case in study.cases(settings, seed)}.values())
    if not cases:
        raise ArgumentError(
            f"the settings of {study.name} should come to a case, but their lists leave none."
        )
    folder = _folder(checked_folder(out), study.name)
    described = {"experiment": study.name, "seed": seed, "settings": settings.model_dump()}
    with locked(folder):
        write_bytes(folder / CONFIG, (json.dumps(described, indent=2) + "\n").encode())
        entries = read_measured(folder / CASES)
        missing = [case for case in cases if key_of(case) not in entries]
        if missing and len(missing) < len(cases):
            say(f"{len(cases) - len(missing)} of {len(cases)} cases are already measured")
        with _bar(study.name, len(cases), len(cases) - len(missing), visible=progress) as advance:
            for case, rows, time_s in measured(study.measure, missing, processes=workers):
                line = json.dumps({"case": case, "rows": rows, "time_s": time_s}) + "\n"
                append_bytes(folder / CASES, line.encode())
                entries[key_of(case)] = (case, rows, time_s)
                advance()
    results = [entries[key_of(case)] for case in cases]
    frame = frame_of(results)
    report = StudyReport(
        name=study.name,
        title=study.title,
        claim=study.claim,
        findings=study.findings(frame, settings),
        preset=preset if config is None else Path(config).name,
        settings=[(name.replace("_", " "), as_text(value)) for name, value in settings],
        seed=seed,
        cases=len(results),
        time_s=sum(time_s for _, _, time_s in results),
        versions=_versions(),
    )
    return _written(report, frame, folder, say)


def _written(
    report: StudyReport, frame: pl.DataFrame, folder: Path, say: Callable[[str], None]
) -> Reproduced:
    """Returns the result, after writing the measurements, the figures and the page."""
    charts, table = report.findings.charts, BytesIO()
    frame.write_parquet(table)
    write_bytes(folder / RESULTS, table.getvalue())
    return Reproduced(report, write_results(folder, report, render_study(report), charts, say))


def _core_count() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _folder(folder: Path, name: str) -> Path:
    """Returns the folder, created if necessary; refuses one that holds something else."""
    if (folder / CONFIG).exists():
        try:
            experiment = parse_json(read_small(folder / CONFIG)).get("experiment")
        except (ValueError, AttributeError):
            raise FileError(
                f"{folder / CONFIG} cannot be read: 'out' should be a new folder."
            ) from None
        if experiment != name:
            raise ArgumentError(
                f"'out' should be new or a folder of {name}, "
                f"{folder} is one of {experiment or 'a fit'}."
            )
    return make_directory(folder)


def _versions() -> list[tuple[str, str]]:
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return [("versions", ", ".join(versions))]


@contextmanager
def _bar(
    name: str, total: int, completed: int, *, visible: bool | None
) -> Iterator[Callable[[], None]]:
    """Yields a function that advances a progress bar by one."""
    console = Console(stderr=True)
    if not (console.is_terminal if visible is None else visible):
        yield lambda: None
        return
    columns = (TextColumn(name), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=total, completed=completed)
        yield lambda: bar.advance(task)
