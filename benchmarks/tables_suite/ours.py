"""kappaflow's default as a density of standardized rows."""

import copy

import numpy as np
import torch

from benchmarks.tables_suite.data import Parts
from benchmarks.tables_suite.default_flow import default_flow, table_of
from benchmarks.tables_suite.fitted import Fitted
from kappaflow.training import batch_of, log_prob_of


def kappaflow_default(parts: Parts, seconds: float, seed: int) -> Fitted:
    """Trains the default flow on rows in their own units, and changes the units afterwards."""
    train, validation = (table_of(rows, parts.columns) for rows in (parts.train, parts.validation))
    found = default_flow(train, validation, seconds, seed)
    flow, exact = found.flow, copy.deepcopy(found.flow).double().eval()
    mean, deviation = parts.train.mean(0), parts.train.std(0)

    def log_prob(rows: np.ndarray) -> np.ndarray:
        original = table_of(mean + deviation * rows, parts.columns)
        return log_prob_of(flow, batch_of(original, flow)).numpy() + np.log(deviation).sum()

    def to_latent(x: torch.Tensor) -> torch.Tensor:
        return exact.bijection(torch.as_tensor(mean) + torch.as_tensor(deviation) * x)[0]

    details = {
        "chosen": found.chosen,
        "steps": found.steps,
        "parameters": sum(weights.numel() for weights in flow.parameters()),
    }
    return Fitted(log_prob, to_latent, details)
