"""kappaflow's default as a density of standardized rows."""

import copy

import numpy as np
import polars as pl
import torch

from benchmarks.tables_suite.data import Parts
from benchmarks.tables_suite.default_flow import default_flow
from benchmarks.tables_suite.fitted import Fitted
from kappaflow.data import Table, load_table
from kappaflow.training import batch_of, log_prob_of


def kappaflow_default(parts: Parts, seconds: float, seed: int) -> Fitted:
    """Trains the default flow on rows in their own units, and changes the units afterwards.

    Args:
        parts: Rows in their own units; test rows are not used.
        seconds: Limit for model selection and training together.
        seed: Of weights and batches.

    Returns:
        The density of rows standardized by the training rows.
    """

    def table(rows: np.ndarray) -> Table:
        columns = dict(zip(parts.columns, rows.T, strict=True))
        return load_table(pl.DataFrame(columns))

    found = default_flow(table(parts.train), table(parts.validation), seconds, seed)
    flow, exact = found.flow, copy.deepcopy(found.flow).double().eval()
    mean, deviation = parts.train.mean(0), parts.train.std(0)

    def log_prob(rows: np.ndarray) -> np.ndarray:
        original = table(mean + deviation * rows)
        return log_prob_of(flow, batch_of(original, flow)).numpy() + np.log(deviation).sum()

    def to_latent(x: torch.Tensor) -> torch.Tensor:
        return exact.bijection(torch.as_tensor(mean) + torch.as_tensor(deviation) * x)[0]

    details = {
        "chosen": found.chosen,
        "steps": found.steps,
        "parameters": sum(weights.numel() for weights in flow.parameters()),
    }
    return Fitted(log_prob, to_latent, details)
