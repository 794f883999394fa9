"""kappaflow's default as a density: what `kappaflow.fit_auto` trains in a processor time."""

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

import kappaflow as kf
from benchmarks.tables_suite.data import Parts
from benchmarks.tables_suite.fitted import Fitted
from kappaflow.data import load_table
from kappaflow.training import batch_of, log_prob_of, loop

SAMPLED = 20_000  # samples at a time


def default_density(
    rows: np.ndarray,
    columns: Sequence[str],
    seconds: float,
    seed: int,
    *,
    context: int = 0,
    **options: Any,  # noqa: ANN401
) -> Fitted:
    """Trains the default flow on rows in their own units; the first columns may be context."""
    loop.clock = time.process_time  # all models get the same processor time
    names, frame = columns[:context], pl.DataFrame(rows, schema=list(columns))
    options |= {"max_time_s": seconds, "seed": seed, "progress": False}
    result = kf.fit_auto(frame, context=names, **options)
    flow, exact = result.flow.eval(), copy.deepcopy(result.flow).double().eval()

    def log_prob(rows: np.ndarray) -> np.ndarray:
        table = load_table(pl.DataFrame(rows, schema=list(columns)), context=names)
        return log_prob_of(flow, batch_of(table, flow)).numpy()

    def to_latent(x: Tensor) -> Tensor:
        return exact.bijection(x[:, context:], x[:, :context] if context else None)[0]

    def sample(rows: np.ndarray) -> np.ndarray:
        generator, parts = torch.Generator().manual_seed(seed), []
        for part in torch.as_tensor(rows[:, :context], dtype=torch.float32).split(SAMPLED):
            size, given = ((1, len(part)), None) if not context else ((1,), part)
            parts.append(flow.sample(size, given, generator=generator)[0].double())
        return torch.cat(parts).numpy()

    details = {
        "chosen": result.notes[-1],
        "epochs": len(result.history),
        "stopped_because": result.stopped_because,
        "parameters": sum(weights.numel() for weights in flow.parameters()),
    }
    return Fitted(log_prob, to_latent, details, sample)


def kappaflow_default(parts: Parts, seconds: float, seed: int) -> Fitted:
    """Trains the default flow on rows in their own units, and changes the units afterwards."""
    validation = pl.DataFrame(parts.validation, schema=list(parts.columns))
    found = default_density(parts.train, parts.columns, seconds, seed, validation=validation)
    mean, deviation = parts.train.mean(0), parts.train.std(0)
    to_latent: Any = found.to_latent
    return replace(
        found,
        log_prob=lambda rows: found.log_prob(mean + deviation * rows) + np.log(deviation).sum(),
        to_latent=lambda x: to_latent(torch.as_tensor(mean) + torch.as_tensor(deviation) * x),
    )
