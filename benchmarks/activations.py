"""Trains autoregressive layers with several activations and weight decays on known densities."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kappaflow as kf
from benchmarks.known import FRESH, rows_of
from benchmarks.known_tables import TABLES
from benchmarks.lines import Line, write_results
from benchmarks.machine import machine
from benchmarks.processes import console
from benchmarks.suite import KEPT
from kappaflow.training import loop
from kappaflow.training.settings import LEARNING_RATE, OVERFIT_DECAY

NAMES = "chain 4, 2,000 rows", "chain 8, 12,800 rows", "bent 8", "squares", "wide and moving"
VARIANTS: dict[str, tuple[str, float]] = {
    "relu": ("relu", 1e-4),
    "silu": ("silu", 1e-4),
    "silu, decay 0.1": ("silu", 0.1),
    "silu, decay 0.3": ("silu", 0.3),
}
SHAPES = {"3 layers": (3, "gaussianize"), "1 layer": (1, "identity")}


def activations(*, seconds: float = 60.0, seed: int = 0, results: Path = KEPT) -> None:
    """Train autoregressive layers with several activations and weight decays, without a search.

    Parameters
    ----------
    seconds
        Limit of the processor time of a training; most end by patience before it.
    seed
        Of the rows, the weights and the batches.
    results
        Folder of the file of results.
    """
    torch.set_num_threads(1)
    loop.clock = time.process_time
    lines: list[Line] = []
    for table in NAMES:
        for shape in SHAPES:
            for variant in VARIANTS:
                line = measured(table, shape, variant, seconds, seed)
                lines.append(line)
                console.print(f"{table}, {shape}, {variant}: {line['kl']:.3f} nats")
    write_results(results / "activations.json", {"machine": machine(), "lines": lines})


def measured(name: str, shape: str, variant: str, seconds: float, seed: int) -> Line:
    """Returns the divergence in nats of one training, its processor time and its end."""
    table, (depth, start), (activation, decay) = TABLES[name], SHAPES[shape], VARIANTS[variant]
    rows, fresh = rows_of(name, "rows", table.rows, seed), rows_of(name, "fresh rows", FRESH)
    k = table.context
    torch.manual_seed(seed)
    flow = kf.autoregressive(
        rows.shape[1] - k, depth=depth, hidden=(96, 96), context_features=k,
        start={"start": start}, network={"activation": activation},
    )  # fmt: skip
    begun = time.process_time()
    data: Any = (rows[:, k:], rows[:, :k]) if k else rows
    result = kf.fit(
        flow, data, max_time_s=seconds, seed=seed, learning_rate=LEARNING_RATE,
        weight_decay=decay, overfit_decay=OVERFIT_DECAY, cooldown=True, progress=False,
    )  # fmt: skip
    with torch.no_grad():
        x = torch.from_numpy(fresh).float()
        log_q = result.flow.eval().log_prob(x[:, k:], *([x[:, :k]] if k else [])).double().numpy()
    difference = table.density.log_prob(fresh) - log_q
    return {
        "table": name,
        "shape": shape,
        "variant": variant,
        "kl": float(difference.mean()),
        "error": float(difference.std() / np.sqrt(len(fresh))),
        "processor_s": round(time.process_time() - begun, 1),
        "ended": result.stopped_because,
    }
