"""Compares the gain of a longer training with the gain at the end of a shorter one, for KF506."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables_suite.data import load, names
from benchmarks.tables_suite.default_flow import default_flow, table_of
from kappaflow.diagnosis.checks.training import LAST, last_gain

LONGER = 4.0  # ratio of the time limits of the longer and the shorter training
SHARES = (0.1, LAST)  # shares of the epochs, the last ones, in which the gain is measured


def cut_short(
    *, seconds: float = 15.0, only: tuple[str, ...] = (), file: Path | None = None
) -> None:
    """Train the default on development tables for a time and for four times as long.

    Prints what the last tenth and the last 40 % of the epochs gained on the validation rows, and
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
    lines = []
    print("| table | epochs | stopped | last tenth | last 40 % | four times as long |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for name in only or names("development"):
        short, long = (_trained(name, limit) for limit in (seconds, LONGER * seconds))
        gains = [last_gain(short["nll"], share)[1] for share in SHARES]
        longer = min(short["nll"]) - min(long["nll"])
        lines.append({"table": name, **short, "longer": longer})
        cells = " | ".join(f"{nats:.3f}" for nats in (*gains, longer))
        print(f"| {name} | {len(short['nll'])} | {short['stopped']} | {cells} |", flush=True)
        if file is not None:
            file.write_text(json.dumps(lines, indent=1) + "\n")


def _trained(name: str, seconds: float) -> dict[str, Any]:
    """Returns the validation NLL after each epoch of the default, and why it stopped."""
    parts = load(name)
    train, validation = (table_of(rows, parts.columns) for rows in (parts.train, parts.validation))
    found = default_flow(train, validation, seconds, seed=0)
    nll = [line["validation_nll"] for line in found.history]
    return {
        "nll": [math.inf if value is None else value for value in nll],
        "stopped": found.stopped_because,
    }
