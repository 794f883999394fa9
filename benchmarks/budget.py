"""Condition budgets on MAGIC: whether flows keep them, and their cost, at several depths."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from benchmarks.lines import Line, write_results
from benchmarks.suite import KEPT, JsonFile
from benchmarks.tables import markdown

Many = Parameter(consume_multiple=True)
DEPTHS, BUDGETS = (8, 32, 128), (1e2, 1e3, 1e4)
HEAD = ("depth", "budget", "validation 95 %", "test 95 %", "test NLL, nats", "cost, nats")


def budget(
    *,
    depths: Annotated[list[int] | None, Many] = None,
    budgets: Annotated[list[float] | None, Many] = None,
    epochs: int = 60,
    out: Path = Path("runs/budget"),
    file: JsonFile = KEPT / "budget.json",
) -> None:
    """Train `kappaflow tradeoff magic` at each depth, and print the results.

    An interrupted run resumes, and a finished one is not trained again. The file of results is
    written after each depth.

    Parameters
    ----------
    depths
        Numbers of couplings (8, 32, 128).
    budgets
        Condition budgets (100, 1000, 10000); one flow is trained without a budget.
    epochs
        Number of epochs of each training.
    out
        Folder of the run folders.
    file
        File of results.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # must be set before torch is imported
    from benchmarks.machine import machine

    lines: list[Line] = []
    for depth in depths or DEPTHS:
        lines += _of_depth(depth, budgets or BUDGETS, epochs, out / f"depth-{depth}")
        write_results(file, {"machine": machine(), "epochs": epochs, "lines": lines})
    print(table(lines))


def table(lines: list[Line]) -> str:
    """Returns the results as a table of the page."""
    return markdown(HEAD, [_row(line) for line in lines])


def _of_depth(depth: int, budgets: Sequence[float], epochs: int, out: Path) -> list[Line]:
    """Returns a line for each budget at a depth."""
    from kappaflow.runs import ModelConfig, TableConfig
    from kappaflow.runs.recipes import LEARNING_RATE, with_defaults
    from kappaflow.training import read_result
    from kappaflow_studies.condition_budget.measure import trade_off

    report = trade_off(
        TableConfig("magic"),
        with_defaults(ModelConfig("real_nvp", {"depth": depth})),
        budgets,
        out,
        say=lambda text: print(f"depth {depth}, {text}", flush=True),
        max_epochs=epochs,
        learning_rate=LEARNING_RATE,
    )
    found = []
    for flow in report.flows:
        line: Line = {"depth": depth, **flow.model_dump(exclude={"folder"})}
        if flow.failed is None:
            result = read_result(out / flow.folder)
            best = result["history"][result["best_epoch"] - 1]
            line["best_epoch"] = result["best_epoch"]
            line["validation_p95"] = best["condition_number_p95"]
        found.append(line)
    return found


def _row(line: Line) -> list[str]:
    asked = "none" if line["budget"] is None else f"{line['budget']:g}"
    if line["failed"]:
        return [str(line["depth"]), asked, "none kept it", "", "", ""]
    return [
        str(line["depth"]),
        asked,
        f"{line['validation_p95']:.4g}",
        f"{line['condition_number_p95']:.4g}",
        f"{line['nll']:.3f} ± {line['standard_error']:.3f}",
        "" if line["budget"] is None else f"{line['cost']:.3f} ± {line['cost_error']:.3f}",
    ]
