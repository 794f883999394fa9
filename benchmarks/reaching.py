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
ROWS = ("kappaflow, recompute", "kappaflow, store", "zuko", "normflows", "nflows", "FrEIA")
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
    """Returns the values for the page.

    On each table the goal is the lowest NLL that the best of the other libraries validated in its
    time, the median of its seeds.
    """
    lines, head = results["lines"], [row for row in ROWS if _of(results["lines"], row=row)]
    table, ratios = [], []
    for name in dict.fromkeys(line["table"] for line in lines):
        here = _of(lines, table=name)
        lowest = {
            row: median(_lowest(line["curve"]) for line in _of(here, row=row)) for row in head
        }
        peers = {row: nll for row, nll in lowest.items() if not row.startswith("kappaflow")}
        best = min(peers, key=lambda row: peers[row])
        goal = peers[best]
        times = {
            row: median(_time_to(line["curve"], goal) for line in _of(here, row=row))
            for row in head
        }
        theirs = min(time for row, time in times.items() if row in peers)
        ratio = theirs / times["kappaflow, recompute"]
        ratios.append(ratio)
        first = here[0]
        table.append([
            f"{name} ({first['rows']:,} x {first['features']})",
            f"{goal:.3f}",
            *(f"{times[row]:.1f}" if math.isfinite(times[row]) else "not" for row in head),
            f"{ratio:.1f}",
        ])
    steps = {row: median(line["steps"] for line in _of(lines, row=row)) for row in head}
    titles = ["", "goal [nats]", *(f"{row} [s]" for row in head), "times faster"]
    per_second = [f"{steps[row] / results['seconds']:.0f}" for row in head]
    return {
        "table": markdown(titles, table),
        "steps": markdown(["", *head], [["steps a second", *per_second]]),
        "ratios": ratios,
        "seconds": results["seconds"],
    }


def _of(lines: list[dict[str, Any]], **wanted: str) -> list[dict[str, Any]]:
    return [line for line in lines if all(line[key] == value for key, value in wanted.items())]


def _lowest(curve: Curve) -> float:
    return min((nll for _, nll in curve if nll is not None), default=math.inf)


def _time_to(curve: Curve, goal: float) -> float:
    """Returns the first time at which the NLL is at most the goal; inf if it never is."""
    return next((t for t, nll in curve if nll is not None and nll <= goal), math.inf)
