"""The effect of the start of a flow: one model from each start, on development tables."""

from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.lines import append_line, read_lines
from benchmarks.processes import console
from benchmarks.suite import KEPT
from benchmarks.tables import markdown

NARROW: dict[str, Any] = {"partition": "random-half", "memory": "store"}
SPLINE = ("spline", {"depth": 8, "hidden": (64, 64), **NARROW})
AFFINE = ("real_nvp", {"depth": 32, "hidden": (96, 96), **NARROW})
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "affine, identity": (AFFINE[0], {**AFFINE[1], "start": "identity"}),
    "affine, whiten": (AFFINE[0], {**AFFINE[1], "start": "whiten"}),
    "affine, gaussianize": (AFFINE[0], {**AFFINE[1], "start": "gaussianize"}),
    "spline, identity": (SPLINE[0], {**SPLINE[1], "start": "identity"}),
    "spline, whiten": (SPLINE[0], {**SPLINE[1], "start": "whiten"}),
    "spline, gaussianize": (SPLINE[0], {**SPLINE[1], "start": "gaussianize"}),
    "spline, whiten-gaussianize": (SPLINE[0], {**SPLINE[1], "start": "whiten-gaussianize"}),
}
TABLES = ("segment", "prison", "crime", "firms", "magic", "patches")
DROPOUT = {"segment": 0.1, "prison": 0.3, "crime": 0.3}
ELSEWHERE = 0.05


def starts(
    *,
    seconds: float = 15.0,
    only: list[str] | None = None,
    file: Path = KEPT / "starts.jsonl",
) -> None:
    """Train affine and spline couplings from each start, for the same processor time.

    Parameters
    ----------
    seconds
        Processor time of each training.
    only
        Tables to use instead of all.
    file
        File of results; trainings in the file are not repeated.
    """
    done = read_lines(file)[0]
    have = {(line["table"], line["model"], line["seconds"]) for line in done}
    for table, model in product(only or TABLES, MODELS):
        if (table, model, seconds) not in have:
            line = trained(table, model, seconds)
            append_line(file, line)
            done.append(line)
            console.print(f"{table}, {model}: {line['test']:.3f} nats")
    console.print(starts_table(done, seconds), markup=False, soft_wrap=True)


def trained(table: str, model: str, seconds: float) -> dict[str, Any]:
    """Returns the results of one training, on one thread."""
    import torch

    from benchmarks.tables_suite.data import load
    from kappaflow.data import load_table
    from kappaflow.flows.standardization import standardization_log_det as log_det
    from kappaflow.runs.recipes import RECIPES
    from kappaflow.training import batch_of, checked_settings, fit_split, log_prob_of, loop

    torch.set_num_threads(1)
    loop.clock = process_time
    parts = load(table)
    train, validation, test = (
        load_table(rows) for rows in (parts.train, parts.validation, parts.test)
    )
    recipe, arguments = MODELS[model]
    torch.manual_seed(0)
    dropout = DROPOUT.get(table, ELSEWHERE)
    flow = RECIPES[recipe](len(train.columns), dropout=dropout, **arguments)
    settings = checked_settings(max_time_s=seconds, learning_rate=5e-3)
    start = process_time()
    result = fit_split(flow, train, validation, settings, progress=False)
    return {
        "table": table,
        "model": model,
        "seconds": seconds,
        "dropout": dropout,
        "epochs": len(result.history),
        "time_s": round(process_time() - start, 1),
        "validation": result.validation_nll + log_det(flow),
        "test": -log_prob_of(flow, batch_of(test, flow)).mean().item() + log_det(flow),
    }


def starts_table(lines: list[dict[str, Any]], seconds: float) -> str:
    """Returns test nats by table and start."""
    found = {(line["table"], line["model"]): line for line in lines if line["seconds"] == seconds}
    tables = [name for name in TABLES if any(table == name for table, _ in found)]
    rows = [[model, *(_nats(found.get((table, model))) for table in tables)] for model in MODELS]
    return markdown(["couplings, start", *tables], rows)


def _nats(line: dict[str, Any] | None) -> str:
    return "" if line is None else f"{line['test']:.2f}"
