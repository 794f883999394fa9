"""Measures the curves of single columns against the densities that the columns come from."""

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

import kappaflow as kf
from benchmarks.lines import Line, write_results
from benchmarks.machine import machine
from benchmarks.processes import console
from benchmarks.suite import KEPT
from benchmarks.verdict_tables import MODES, Rows
from kappaflow.bijections import Gaussianize

Parts = list[tuple[float, Any]]  # shares, and distributions of scipy

NORMAL, UNIFORM = stats.norm, stats.uniform
SPIKE: Parts = [(0.55, NORMAL(-2, 0.7)), (0.4, NORMAL(3)), (0.05, NORMAL(0.5, 0.01))]
BETA, EXPONENTIAL, LOG_NORMAL = stats.beta(0.5, 0.5), stats.expon(), stats.lognorm(1.0)
PLAIN = {
    "normal": NORMAL(), "logistic": stats.logistic(), "Gumbel": stats.gumbel_r(),
    "skew normal": stats.skewnorm(5), "gamma(2)": stats.gamma(2), "Laplace": stats.laplace(),
    "t(3)": stats.t(3), "t(1.5)": stats.t(1.5), "Cauchy": stats.cauchy(),
    "exponential": EXPONENTIAL, "exponential, above 0": EXPONENTIAL,
    "log-normal": LOG_NORMAL, "log-normal, above 0": LOG_NORMAL,
    "uniform": UNIFORM(), "uniform, from 0 to 1": UNIFORM(),
    "beta(0.5, 0.5)": BETA, "beta(0.5, 0.5), from 0 to 1": BETA,
}  # fmt: skip
BOUNDS = {"above 0": "positive", "from 0 to 1": "0,1"}  # by how a name ends
COLUMNS: dict[str, Parts] = {
    **{name: [(1.0, law)] for name, law in PLAIN.items()},
    "two modes": [(0.5, NORMAL(-2, 0.5)), (0.5, NORMAL(2, 0.5))],
    "two modes and a spike": SPIKE,
    "five modes": [(share, NORMAL(mean, width)) for share, mean, width in MODES],
    "claw": [(0.5, NORMAL()), *((0.1, NORMAL(k / 2 - 1, 0.1)) for k in range(5))],
    "two widths": [(0.7, NORMAL()), (0.3, NORMAL(0, 0.1))],
    "a gap": [(0.5, UNIFORM(0, 1)), (0.5, UNIFORM(2, 1))],
    "line, 5 %": [(0.95, UNIFORM(0, 200)), (0.05, NORMAL(91.2, 0.05))],
    "line, 1 %": [(0.99, NORMAL()), (0.01, NORMAL(0.7, 0.001))],
}
ROWS = 500, 2_000, 20_000
STRATA = 2_000  # of the probability on either side of the median of each part


def columns(
    *,
    name: str = "curves",
    seeds: int = 5,
    results: Path = KEPT,
) -> None:
    """Measure the curves of single columns against the densities that the columns come from.

    Parameters
    ----------
    name
        What to call these results; those of other names stay in the file.
    seeds
        Tables of each density and number of rows.
    results
        Folder of the file of results.
    """
    torch.set_num_threads(1)
    lines: list[Line] = []
    for column in COLUMNS:
        for number in ROWS:
            fits = [measured(column, number, seed) for seed in range(seeds)]
            line = {key: float(np.mean([fit[key] for fit in fits])) for key in fits[0]}
            spread = float(np.std([fit["kl"] for fit in fits]) / np.sqrt(seeds))
            lines.append({"column": column, "rows": number, **line, "kl_error": spread})
            console.print(f"{column}, {number:,} rows: {line['kl']:.4f} ± {spread:.4f} nats")
    file = results / "columns.json"
    kept = json.loads(file.read_text("utf-8")) if file.exists() else {}
    write_results(file, kept | {name: {"machine": machine(), "lines": lines}})


def measured(column: str, number: int, seed: int) -> Line:
    """Returns the divergence in nats of a curve fitted to rows, its time, bins and slopes."""
    parts, bounds = COLUMNS[column], BOUNDS.get(column.split(", ")[-1])
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(number, [share for share, _ in parts])
    drawn = [part.rvs(k, random_state=rng) for k, (_, part) in zip(counts, parts, strict=True)]
    x = torch.from_numpy(rng.permutation(np.concatenate(drawn))[:, None])
    flow = kf.spline(1, bounds=bounds and [bounds], start={"start": "gaussianize"})
    flow = flow.double().eval()
    begun = time.process_time()
    flow.standardization.fit(x)
    seconds = time.process_time() - begun
    points, shares, log_p = _strata(column)
    with torch.no_grad():
        log_q = flow.log_prob(torch.from_numpy(points[:, None])).numpy()
        layers: list[Any] = list(flow.chain())
        before = [isinstance(layer, Gaussianize) for layer in layers].index(True)
        for layer in layers[:before]:
            x = layer(x)[0]
        log_slope = layers[before](x)[1]
    return {
        "kl": float(shares @ (log_p - log_q)),
        "seconds": seconds,
        "bins": float((layers[before].knots.diff() > 0).sum()),
        "slopes": float((log_slope.max() - log_slope.min()).exp()),
    }


@cache
def _strata(column: str) -> tuple[Rows, Rows, Rows]:
    """Returns quantiles of the parts of a mixture, their probabilities and log-densities."""
    parts = COLUMNS[column]
    half = np.append(0.0, np.geomspace(1e-7, 0.5, STRATA))
    ends = np.append(half, 1 - half[-2::-1])
    middles, widths = (ends[1:] + ends[:-1]) / 2, np.diff(ends)
    points = np.concatenate([part.ppf(middles) for _, part in parts])
    shares = np.concatenate([share * widths for share, _ in parts])
    logs = [np.log(share) + part.logpdf(points) for share, part in parts]
    return points, shares, np.logaddexp.reduce(logs, 0)
