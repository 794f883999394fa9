"""kappaflow and its peers on tables of known density, in the units of the tables."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import StackTransform, biject_to, constraints

from benchmarks.tables_suite.data import Parts
from benchmarks.tables_suite.fitted import Fitted
from benchmarks.tables_suite.ours import default_density
from benchmarks.tables_suite.peers import PEERS
from benchmarks.tables_suite.report import OURS
from benchmarks.verdict import names
from benchmarks.verdict_tables import Rows, VerdictTable
from kappaflow.domains import interval

TRAINED = 0.9  # of the rows; the others validate


def bounded_by(known: VerdictTable, columns: list[str]) -> StackTransform:
    """Returns the map to a table from logarithms of columns with one bound, logits with two."""
    limits: list[Any] = [constraints.real] * len(columns)
    for text in known.options.get("bounds", ()):
        name, bound = text.split("=")
        domain = interval("bounds", bound)
        if domain is None or domain.circular:
            continue
        low, high = domain.low, domain.high
        limits[columns.index(name)] = (
            constraints.less_than(high)
            if low is None
            else constraints.greater_than(low)
            if high is None
            else constraints.interval(low, high)
        )
    return StackTransform([biject_to(limit) for limit in limits], 1)


def fit(name: str, known: VerdictTable, rows: Rows, seconds: float, seed: int) -> Fitted:
    """Trains a model. A peer, which standardizes its rows, gets columns without bounds."""
    columns, k = names(rows), known.context
    if name == OURS:
        return default_density(rows, columns, seconds, seed, context=k, **known.options)
    rows = rows.copy()
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (len(rows), len(known.whole)))
    rows[:, known.whole] += noise
    bounded: Any = bounded_by(known, columns)
    free = bounded.inv(torch.as_tensor(rows)).numpy()
    train, validation = np.split(free, [round(TRAINED * len(rows))])
    mean, deviation = torch.as_tensor(train.mean(0)), torch.as_tensor(train.std(0))
    fitted = PEERS[name](Parts(train, validation, validation, tuple(columns), k), seconds, seed)
    own_latent, own_sample = fitted.to_latent, fitted.sample

    def standardized(x: Tensor) -> Tensor:
        return (bounded.inv(x) - mean) / deviation

    def log_prob(fresh: Rows) -> Rows:
        x = torch.as_tensor(fresh)
        log_det = bounded.log_abs_det_jacobian(bounded.inv(x), x) + deviation.log()
        return fitted.log_prob(standardized(x).numpy()) - log_det[:, k:].sum(1).numpy()

    def sample(fresh: Rows) -> Rows:
        z = standardized(torch.as_tensor(fresh)).numpy()
        z[:, k:] = own_sample(z) if own_sample else np.nan
        return bounded(mean + deviation * torch.as_tensor(z))[:, k:].numpy()

    return replace(
        fitted,
        log_prob=log_prob,
        to_latent=own_latent and (lambda x: own_latent(standardized(x))),
        sample=own_sample and sample,
    )
