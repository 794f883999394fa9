"""The loss of likelihood by each map of a bounded column to the line, on known distributions."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product, repeat
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit, ndtri

Floats = NDArray[np.float64]
Way = tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]  # z of x, log dz/dx of z
INTERVAL: dict[str, Any] = {
    "uniform": stats.uniform(),
    "Beta(2, 5)": stats.beta(2, 5),
    "Beta(5, 1)": stats.beta(5, 1),
    "Beta(1/2, 1/2)": stats.beta(0.5, 0.5),
    "logit-normal": None,
}
POSITIVE: dict[str, Any] = {
    "log-normal, 2 decades": stats.lognorm(2.0),
    "exponential": stats.expon(),
    "Gamma(1/2)": stats.gamma(0.5),
    "Gamma(5)": stats.gamma(5),
    "half-normal": stats.halfnorm(),
    "Pareto(3/2) - 1": stats.pareto(1.5, loc=-1),
}


class _LogitNormal:
    """A distribution with normal log-odds, with a standard deviation of 2."""

    def ppf(self, u: Floats) -> Floats:
        """Returns quantiles."""
        return expit(2 * ndtri(u))

    def logpdf(self, x: Floats) -> Floats:
        """Returns the logarithm of the density."""
        of_odds: Any = stats.norm(0, 2)
        return of_odds.logpdf(logit(x)) - np.log(x) - np.log1p(-x)


def _softplus_inverse(x: Floats) -> Floats:
    return x + np.log(-np.expm1(-x))


INTERVAL_WAYS: dict[str, Way] = {
    "as it is": (lambda x: x, np.zeros_like),
    "logit": (logit, lambda z: np.logaddexp(0, z) + np.logaddexp(0, -z)),
    "normal quantile": (ndtri, lambda z: 0.5 * z**2 + 0.5 * np.log(2 * np.pi)),
}
POSITIVE_WAYS: dict[str, Way] = {
    "as it is": (lambda x: x, np.zeros_like),
    "softplus inverse": (_softplus_inverse, lambda z: np.logaddexp(0, -z)),
    "logarithm": (np.log, lambda z: -z),
}


def domains(*, rows: int = 10_000, epochs: int = 30, seeds: int = 3, at_once: int = 2) -> None:
    """Train a small spline flow on two independent columns of a distribution, with each map.

    Prints by how many nats per column the flow is worse on new rows than the distribution itself,
    as a mean over seeds.

    Parameters
    ----------
    rows
        Number of training rows, and of test rows.
    epochs
        Number of epochs of each training.
    seeds
        Number of trainings of each kind.
    at_once
        Number of processes, each on one thread.
    """
    parts = (("between two ends", INTERVAL, INTERVAL_WAYS), ("above 0", POSITIVE, POSITIVE_WAYS))
    jobs = [
        (kind, law, way, seed)
        for kind, (_, laws, ways) in enumerate(parts)
        for law, way, seed in product(laws, ways, range(seeds))
    ]
    with ProcessPoolExecutor(at_once) as pool:
        of_all = repeat(rows, len(jobs)), repeat(epochs, len(jobs))
        found = list(pool.map(_excess, *zip(*jobs, strict=True), *of_all))
    excess = dict(zip(jobs, found, strict=True))
    for kind, (title, laws, ways) in enumerate(parts):
        print(f"\n| {title} | {' | '.join(ways)} |\n| --- |{' ---: |' * len(ways)}")
        for law in laws:
            numbers = (mean(excess[kind, law, way, seed] for seed in range(seeds)) for way in ways)
            print(f"| {law} | {' | '.join(f'{number:.4f}' for number in numbers)} |")


def _excess(kind: int, law: str, way: str, seed: int, rows: int, epochs: int) -> float:
    """Returns by how many nats per column a trained flow is worse than the distribution."""
    import torch

    import kappaflow as kf

    torch.set_num_threads(1)
    laws, ways = ((INTERVAL, INTERVAL_WAYS), (POSITIVE, POSITIVE_WAYS))[kind]
    own = laws[law] or _LogitNormal()
    to_line, log_slope = ways[way]
    share = np.random.default_rng(seed).random((2 * rows, 2))
    x = own.ppf(share)
    z = to_line(x)
    train, test = torch.from_numpy(z).float().split(rows)
    torch.manual_seed(seed)
    flow = kf.spline(2, depth=4, hidden=(32, 32), seed=seed)
    kf.fit(flow, train, max_epochs=epochs, learning_rate=5e-3, seed=seed, progress=False)
    with torch.no_grad():
        log_p = flow.log_prob(test).double().numpy() + log_slope(z[rows:]).sum(1)
    return float((own.logpdf(x[rows:]).sum(1) - log_p).mean() / 2)
