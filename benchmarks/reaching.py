"""Training to a given likelihood: flows of one shape, by each library, on real tables."""

import itertools
import math
from pathlib import Path
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Annotated, Any

import torch
from cyclopts import Parameter

from benchmarks.lines import write_results
from benchmarks.processes import Job, run
from benchmarks.suite import KEPT
from benchmarks.tables import markdown

if TYPE_CHECKING:
    from benchmarks.row import Row

TABLES = ("magic", "firms", "patches", "colors")
ROWS = ("kappaflow, recompute", "kappaflow, store", "zuko", "normflows", "FrEIA")
DEPTH, BATCH, HIDDEN, RATE = 12, 512, (128, 128), 1e-3
LOOKS = 60  # at the validation rows, evenly spaced in time
VALIDATED = 4096  # rows, at most
Curve = list[tuple[float, float | None]]  # seconds, and the NLL in nats or None if not finite
JsonFile = Annotated[Path, Parameter(name="--json")]


def reaching(
    *,
    seconds: float = 30.0,
    seeds: int = 2,
    tables: list[str] | None = None,
    rows: list[str] | None = None,
    at_once: int = 2,
    file: JsonFile = KEPT / "reaching.json",
) -> None:
    """Train a flow of each library on real tables, and note the validation NLL over the time.

    All have 12 affine couplings with two hidden layers of 128, batches of 512 rows and Adam with a
    rate of 0.001. Only the time of training steps counts, in seconds of one processor.

    Parameters
    ----------
    seconds
        Time of each training.
    seeds
        Number of trainings of each row on each table.
    tables
        Names of development tables of the suite.
    rows
        Names of rows.
    at_once
        Number of trainings at a time, one processor each.
    file
        File of results.
    """
    if rows and (ROWS[0] not in rows or all(map(_ours, rows))):
        raise SystemExit(f"'rows' should have {ROWS[0]!r} and a row of another library.")
    jobs = [
        Job(
            "reaching",
            {"row": row, "table": table, "seconds": seconds, "seed": seed},
            f"{row} on {table}, seed {seed}",
        )
        for table in tables or TABLES
        for seed in range(seeds)
        for row in rows or ROWS
    ]
    found = run(jobs, threads=1, at_once=at_once)
    lines = [
        {**job.arguments, **done["result"]} for job, done in zip(jobs, found, strict=True) if done
    ]
    machines = [done["machine"] for done in found if done]
    results = {"machine": machines[0] if machines else None, "seconds": seconds, "lines": lines}
    write_results(file, results)


def curve_of(row: "Row", table: str, seconds: float, seed: int) -> dict[str, Any]:
    """Returns the curve of a training: [seconds in steps, NLL of validation rows] at each look."""
    from benchmarks.row import Shape
    from benchmarks.tables_suite.data import load
    from benchmarks.tables_suite.fitted import standardized

    parts = standardized(load(table))
    train, held_out = (
        torch.as_tensor(rows, dtype=torch.float32)
        for rows in (parts.train, parts.validation[:VALIDATED])
    )
    torch.manual_seed(seed)
    model = row.build(Shape(DEPTH, BATCH, train.shape[1], HIDDEN))
    adam = torch.optim.Adam(model.module.parameters(), lr=RATE, fused=True)
    batches = (rows for _ in itertools.count() for rows in torch.randperm(len(train)).split(BATCH))
    curve: Curve = []
    spent, steps = 0.0, 0
    while not curve or spent < seconds:
        model.module.eval()
        with torch.no_grad():
            nll = -model.log_prob(held_out).double().mean().item()
        curve.append((round(spent, 4), round(nll, 5) if math.isfinite(nll) else None))
        model.module.train()
        start, enough = process_time(), seconds * len(curve) / LOOKS - spent
        while process_time() - start < enough:
            loss = -model.log_prob(train[next(batches)]).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            steps += 1
        spent += process_time() - start
    return {"curve": curve, "steps": steps, "features": train.shape[1], "rows": len(train)}


def reaching_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the page: a table for each of two goals, and the steps a second.

    The goals of a seed on a table are the NLL that every library reached, and the lowest NLL that
    the best of the other libraries reached. Times are medians of the seeds.
    """
    lines = results["lines"]
    head = [row for row in ROWS if _of(lines, row=row)]
    ratios: dict[str, list[float]] = {"every": [], "best": []}
    tables: dict[str, list[list[str]]] = {"every": [], "best": []}
    for name in dict.fromkeys(line["table"] for line in lines):
        here = _of(lines, table=name)
        first = f"{name} ({here[0]['rows']:,} x {here[0]['features']})"
        seeds = [_of(here, seed=seed) for seed in dict.fromkeys(line["seed"] for line in here)]
        for kind in ratios:
            goals = [_goal(kind, each) for each in seeds]
            reached = [
                {line["row"]: _time_to(line["curve"], goal) for line in each}
                for each, goal in zip(seeds, goals, strict=True)
            ]
            ours = median(each[ROWS[0]] for each in reached)
            faster = median(_times_faster(each) for each in reached)
            ratios[kind].append(faster if math.isfinite(ours) else 0.0)
            of_row = (median(each.get(row, math.inf) for each in reached) for row in head)
            cells = (f"{time:.1f}" if math.isfinite(time) else "not" for time in of_row)
            ratio = ratio_text(ratios[kind][-1])
            tables[kind].append([first, f"{median(goals):.3f}", *cells, ratio])
    steps = {row: median(line["steps"] for line in _of(lines, row=row)) for row in head}
    titles = ["", "goal [nats]", *(f"{row} [s]" for row in head), "times faster"]
    per_second = [f"{steps[row] / results['seconds']:.0f}" for row in head]
    return {
        "tables": {kind: markdown(titles, rows) for kind, rows in tables.items()},
        "steps": markdown(["", *head], [["steps a second", *per_second]]),
        "ratios": ratios,
        "seconds": results["seconds"],
    }


def ratio_text(ratio: float) -> str:
    """Returns a ratio of times as text: "not" where kappaflow did not reach a goal."""
    return f"{ratio:.1f}" if ratio else "not"


def _goal(kind: str, lines: list[dict[str, Any]]) -> float:
    lowest = {line["row"]: _lowest(line["curve"]) for line in lines}
    if kind == "every":
        return max(nll for nll in lowest.values() if math.isfinite(nll))
    return min(nll for row, nll in lowest.items() if not _ours(row))


def _times_faster(times: dict[str, float]) -> float:
    """Returns the time of the fastest other library over that of the first row of kappaflow."""
    return min(time for row, time in times.items() if not _ours(row)) / times[ROWS[0]]


def _ours(row: str) -> bool:
    return row.startswith("kappaflow")


def _of(lines: list[dict[str, Any]], **wanted: str) -> list[dict[str, Any]]:
    return [line for line in lines if all(line[key] == value for key, value in wanted.items())]


def _lowest(curve: Curve) -> float:
    return min((nll for _, nll in curve if nll is not None), default=math.inf)


def _time_to(curve: Curve, goal: float) -> float:
    """Returns the first time at which the NLL is at most the goal; inf if it never is."""
    return next((t for t, nll in curve if nll is not None and nll <= goal), math.inf)
