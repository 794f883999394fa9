"""Compares the gain of a longer training with the gain at the end of a shorter one, for KF506."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.tables_suite.data import load, names
from kappaflow.data import Table, load_table
from kappaflow.runs.model_search import ModelSearch, search_model
from kappaflow.runs.recipes import build_flow
from kappaflow.training import checked_settings, fit_split, loop

LONGER = 4.0  # times the time limit of the shorter training
SHARES = (0.1, 0.5)  # of the epochs, at the end, in which the gain is measured


def cut_short(
    *, seconds: float = 15.0, only: tuple[str, ...] = (), file: Path | None = None
) -> None:
    """Train the default on development tables for a time and for four times as long.

    Prints what the last tenth and the last half of the epochs gained on the validation rows, and
    what the longer training gained over the shorter one, in nats per row.

    Parameters
    ----------
    seconds
        Processor time of the shorter training.
    only
        Train on these tables instead of all development tables.
    file
        Write the lines to this JSON file too.
    """
    torch.set_num_threads(1)
    loop.clock = time.process_time
    lines = []
    print("| table | epochs | stopped | last tenth | last half | four times as long |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for name in only or names("development"):
        short, long = (_trained(name, limit) for limit in (seconds, LONGER * seconds))
        gains = [gain(short["nll"], share) for share in SHARES]
        longer = min(short["nll"]) - min(long["nll"])
        lines.append({"table": name, **short, "gains": gains, "longer": longer})
        cells = " | ".join(f"{nats:.3f}" for nats in (*gains, longer))
        print(f"| {name} | {len(short['nll'])} | {short['stopped']} | {cells} |", flush=True)
        if file is not None:
            file.write_text(json.dumps(lines, indent=1) + "\n")


def _trained(name: str, seconds: float) -> dict[str, Any]:
    """Returns the validation NLL after each epoch of the default, and why it stopped."""
    parts = load(name)

    def table(rows: np.ndarray) -> Table:
        return load_table(pl.DataFrame(dict(zip(parts.columns, rows.T, strict=True))))

    train, validation = table(parts.train), table(parts.validation)
    settings = checked_settings(seed=0, max_time_s=seconds)
    choice, start = search_model(train, validation, ModelSearch(), settings, progress=False)
    flow, settings = build_flow(choice.model, train, 0), choice.settings(settings)
    result = fit_split(flow, train, validation, settings, progress=False, start=start)
    nll = [line["validation_nll"] for line in result.history]
    return {
        "nll": [math.inf if value is None else value for value in nll],
        "stopped": result.stopped_because,
    }


def gain(nll: list[float], share: float) -> float:
    """Returns by how much the NLL fell in the last share of the epochs, in nats."""
    last = max(1, round(share * len(nll)))
    return min(nll[:-last], default=math.inf) - min(nll)
