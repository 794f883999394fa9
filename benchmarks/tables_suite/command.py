"""The command that compares density estimators on real tables at equal processor time."""

import datetime
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter

from benchmarks.lines import Line, append_line, append_machine, read_lines, write_results
from benchmarks.machine import machine
from benchmarks.processes import ROOT, console
from benchmarks.suite import KEPT
from benchmarks.tables_suite import data
from benchmarks.tables_suite.report import OURS, key_of, npz_of, summary, tables_text

CACHE = ROOT / "runs/tables"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
Names = list[str] | None
MODELS = (  # in the order in which they are trained on each table; see peers.py
    OURS,
    *("Gaussian", "mixture", "zuko NSF, fair", "zuko MAF, fair"),
    *("zuko NSF coupling, fair", "zuko RealNVP, fair", "zuko NSF, tutorial"),
    *("zuko MAF, tutorial", "zuko NSF coupling, tutorial", "zuko RealNVP, tutorial"),
)


@dataclass(frozen=True)
class Suite:
    """Tables, and how models are measured on them.

    Attributes:
        name: Of the files of results.
        parts: The names of the tables of each part.
        models: In the order in which they are trained on each table.
        measure: Trains a model and returns a line, whose `test` is a mean in nats.
        summary: Returns the comparison of lines of one length of training.
        text: Returns a comparison as text.
        applies: Whether a model can be trained on a table.
    """

    name: str
    parts: dict[str, tuple[str, ...]]
    models: tuple[str, ...]
    measure: Callable[[Line, Path], Line]
    summary: Callable[[Iterable[Line], Path, float], dict[str, Any] | None]
    text: Callable[[dict[str, Any]], str]
    applies: Callable[[str, str], bool] = lambda model, table: True


def tables(
    *,
    part: Literal["development", "known", "judged"] = "development",
    seconds: float = 60.0,
    seeds: int = 1,
    only: Names = None,
    models: Names = None,
    again: Names = None,
    at_once: int = 1,
    show: Annotated[bool, Parameter(name="--print")] = False,
    blind: bool = False,
    results: Path = KEPT,
    cache: Path = CACHE,
    suite: Annotated[Suite | None, Parameter(parse=False)] = None,
) -> None:
    """Compare densities on real tables: kappaflow's default, flows of zuko, Gaussian mixtures.

    Every model gets the same rows and the same processor time on one thread, any tuning or search
    included. How much a processor does in a second depends on other work on it, so models to be
    compared should be trained in one run on a machine at rest. One line for each training goes to
    the file of results; trainings that are in the file are not repeated. Then the comparison is
    printed and written next to it, for `write-page`.

    Parameters
    ----------
    part
        Tables to choose models on ("development", or "known" for known densities), or "judged".
        Each use of the judged tables is logged.
    seconds
        Processor time of each training.
    seeds
        Trainings of each model on each table. A seed decides weights and batches, not the split.
    only
        Train on these tables instead of all in the part.
    models
        Train these models instead of all.
    again
        Train these models again although the file has their results.
    at_once
        Trainings side by side, each on one thread.
    show
        Print the comparison of the results that are there, without training.
    blind
        Train peers without showing any result; this is not a look at the judged tables.
    results
        Folder of the files of results.
    cache
        Folder of the log-likelihoods of all test rows, which paired differences need.
    """
    suite = suite or REAL
    _check("part", [part], tuple(suite.parts))
    names = suite.parts[part]
    _check("only", only, names)
    _check("models", models, suite.models)
    _check("again", again, suite.models)
    if blind and (show or models is None or OURS in models):
        raise SystemExit("'blind' trains peers only: name them with --models.")
    if part == "judged" and not blind:
        compared = "results so far" if show else f"training {models or 'all models'}"
        compared = f"{suite.name}: {compared}, {seconds:g} s, {seeds} seeds"
        log_look(results / "judged-looks.jsonl", compared)
    file = results / f"{suite.name}-{part}.jsonl"
    if not show:
        os.environ |= ONE_THREAD  # of the processes that train, before numpy is loaded there
        jobs = [  # all models of a table in turn, so that a processor that slows down is fair
            {"table": table, "model": model, "seed": seed, "seconds": seconds}
            for seed, table, model in product(
                range(seeds), only or names, models or again or suite.models
            )
            if suite.applies(model, table)
        ]
        append_machine(file, {**machine(), "threads": 1})
        train_missing(suite.measure, jobs, file, cache, at_once, set(again or ()), blind=blind)
    if blind:
        return
    lines, machines = read_lines(file)
    found = suite.summary(lines, cache, seconds)
    if found is None:
        raise SystemExit(f"{file} has no results of {seconds:g} seconds.")
    comparison = file.with_name(f"{file.stem}-{seconds:g}.json")  # one for each length of training
    write_results(comparison, {"machine": machines[-1], **found})
    console.print(suite.text(found), markup=False, soft_wrap=True)


def _check(name: str, given: list[str] | None, known: tuple[str, ...]) -> None:
    for one in given or ():
        if one not in known:
            raise SystemExit(f"'{name}' should be among {', '.join(known)}; got {one!r}.")


def log_look(file: Path, compared: str) -> None:
    """Appends to the log that the judged tables are used: when, with which code, for what."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    append_line(
        file, {"date": now, "commit": commit.stdout.strip() or "unknown", "compared": compared}
    )


def train_missing(
    measure: Callable[[Line, Path], Line],
    jobs: list[Line],
    file: Path,
    cache: Path,
    at_once: int,
    again: set[str],
    *,
    blind: bool = False,
) -> None:
    """Trains what the file has no result of, and appends one line for each training."""
    have = {key_of(line) for line in read_lines(file)[0] if line["model"] not in again}
    missing = [job for job in jobs if key_of(job) not in have]
    for line in _measured(measure, missing, cache, at_once):
        append_line(file, line)
        nll = "not finite" if line["test"] is None else f"{line['test']:.3f} nats"
        shown = "trained" if blind else nll
        console.print(
            f"{line['table']}, {line['model']}: {shown}, {line['processor_s']:.0f} s", markup=False
        )


def _measured(
    measure: Callable[[Line, Path], Line], jobs: list[Line], cache: Path, at_once: int
) -> Iterator[Line]:
    # A fork of a process in which torch has run can wait for ever for threads it does not have.
    with ProcessPoolExecutor(
        at_once, mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        yield from pool.map(measure, jobs, [cache] * len(jobs))


def measured(job: Line, cache: Path) -> Line:
    """Trains one model on one table and measures it on the test rows."""
    from benchmarks.tables_suite.fitted import condition_numbers, standardized

    parts, fit = data.load(job["table"]), _fitter(job["model"])
    rows = standardized(parts).test
    fitted, times = timed(lambda: fit(parts, job["seconds"], job["seed"]))
    return {
        **job,
        "rows": len(parts.train),
        "columns": len(parts.columns),
        **scored(job, cache, fitted.log_prob(rows), condition_numbers(fitted, rows)),
        **times,
        **fitted.details,
    }


def timed(fit: Callable[[], Any]) -> tuple[Any, Line]:
    """Returns what a fit on one thread returns, and its times."""
    import torch

    torch.set_num_threads(1)
    processor, wall = time.process_time(), time.perf_counter()
    fitted = fit()
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    return fitted, {"processor_s": round(processor, 1), "wall_s": round(wall, 1)}


def scored(job: Line, cache: Path, log_p: Any, conditions: Any, truth: Any = 0.0) -> Line:  # noqa: ANN401
    """Returns how far log p is below the truth on average, and condition numbers.

    The cache gets log p of each row.
    """
    import numpy as np

    path = npz_of(cache, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, log_p=log_p.astype(np.float32))
    nats = truth - log_p
    finite = bool(np.isfinite(nats).all())
    return {
        "test": float(nats.mean()) if finite else None,
        "test_error": float(nats.std(ddof=1)) / len(nats) ** 0.5 if finite else None,
        "not_finite_rows": int((~np.isfinite(nats)).sum()),
        "condition_median": _quantile(conditions, 0.5),
        "condition_p95": _quantile(conditions, 0.95),
    }


def _quantile(values: Any, level: float) -> float | None:  # noqa: ANN401
    """Returns a quantile, None where there are no values or it is not finite."""
    import numpy as np

    if values is None:
        return None
    found = float(np.quantile(values, level, method="higher"))
    return found if np.isfinite(found) else None


def _fitter(model: str) -> Any:  # noqa: ANN401
    """Returns the function that fits a model; its imports are not part of the measured time."""
    if model == OURS:
        from benchmarks.tables_suite.ours import kappaflow_default

        return kappaflow_default
    from benchmarks.tables_suite.peers import PEERS

    return PEERS[model]


_PARTS = {part: data.names(part) for part in get_args(data.Part)}
REAL = Suite("tables", _PARTS, MODELS, measured, summary, tables_text)
