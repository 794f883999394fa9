"""The ten tasks of sbibm (Lueckmann et al. 2021): priors and simulators, written again here.

Observations and reference posteriors are read from the files of the package sbibm, which is never
imported, because it needs many old packages.
"""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.distributions import Distribution, Independent, LogNormal, MultivariateNormal, Uniform

AT_ONCE = 50  # simulations in one system of differential equations
POPULATION = 1e6


@dataclass(frozen=True)
class Task:
    """A prior, a simulator, and the files of the package."""

    folder: str  # of the package
    prior: Distribution  # of the parameters theta (N, D)
    simulate: Callable[[Tensor], Tensor]  # from theta to x (N, C), by the generator of torch
    bound: tuple[float, float] | str | None = None  # of every parameter, as for `fit_auto`
    suffix: str = ""  # of the names of files with an observation

    def simulations(self, rows: int, seed: int) -> tuple[Tensor, Tensor]:
        """Returns theta (N, D) from the prior and x (N, C)."""
        torch.manual_seed(seed)
        theta = self.prior.sample((rows,))
        return theta, self.simulate(theta).float()

    def observation(self, number: int) -> Tensor:
        """Returns observation 1 to 10, (1, C)."""
        return self._read(number, f"observation{self.suffix}.csv")

    def reference(self, number: int) -> Tensor:
        """Returns 10,000 samples of the posterior of an observation, (10000, D)."""
        return self._read(number, "reference_posterior_samples.csv.bz2")

    def _read(self, number: int, name: str) -> Tensor:
        path = package_folder() / "tasks" / self.folder / f"files/num_observation_{number}" / name
        rows = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2, dtype=np.float32)
        return torch.from_numpy(rows)


def package_folder() -> Path:
    """Returns the folder of the package sbibm."""
    spec = importlib.util.find_spec("sbibm")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "sbibm, which has the references, is missing: pip install --no-deps sbibm"
        )
    return Path(spec.submodule_search_locations[0])


def _uniform(features: int, end: float) -> Distribution:
    return Independent(Uniform(torch.full((features,), -end), torch.full((features,), end)), 1)


def _log_normal(location: list[float], scale: list[float]) -> Distribution:
    return Independent(LogNormal(torch.tensor(location), torch.tensor(scale)), 1)


def _gaussian_linear(theta: Tensor) -> Tensor:
    return theta + math.sqrt(0.1) * torch.randn_like(theta)


def _gaussian_mixture(theta: Tensor) -> Tensor:
    scale = torch.tensor([1.0, 0.1])[torch.randint(2, (len(theta), 1))]
    return theta + scale * torch.randn_like(theta)


def _two_moons(theta: Tensor) -> Tensor:
    angle, radius = math.pi * (torch.rand(len(theta)) - 0.5), 0.1 + 0.01 * torch.randn(len(theta))
    moon = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)
    a, b = theta.T
    return moon + torch.stack([-(a + b).abs(), b - a], 1) / math.sqrt(2)


def _slcp(theta: Tensor) -> Tensor:
    """Draws four points with a mean and a covariance that depend on five parameters."""
    scale, correlation = theta[:, None, 2:4] ** 2, theta[:, None, 4].tanh()
    a, b = torch.randn(2, len(theta), 4)
    noise = torch.stack([a, correlation * a + (1 - correlation**2).sqrt() * b], -1)
    return (theta[:, None, :2] + scale * noise).flatten(1)


def _slcp_distractors(theta: Tensor) -> Tensor:
    """Adds a mixture of 20 Student distributions in 92 columns, and shuffles the columns."""
    random = np.random.RandomState(42)  # the package has the same numbers in a file
    location = np.array([15 * random.normal(size=92) for _ in range(20)])
    scale = [
        np.tril(random.normal(size=(92, 92))) + np.diag(np.exp(random.normal(size=92)))
        for _ in range(20)
    ]
    x, noise, which = _slcp(theta), torch.randn(len(theta), 92), torch.randint(20, (len(theta),))
    noise /= (-torch.rand(len(theta), 1).log()).sqrt()  # 2 degrees of freedom
    for number in range(20):
        noise[which == number] @= 3 * torch.tensor(scale[number].T, dtype=torch.float32)
    noise += torch.tensor(location, dtype=torch.float32)[which]
    return torch.cat([x, noise], 1)[:, torch.tensor(random.permutation(100))]


def _design() -> Tensor:
    """Returns ones and a white noise with nine delays, (100, 10)."""
    stimulus = np.random.RandomState(42).randn(100)
    delayed = [np.r_[np.zeros(delay), stimulus[: 100 - delay]] for delay in range(9)]
    return torch.tensor(np.stack([np.ones(100), *delayed], 1), dtype=torch.float32)


def _spikes(theta: Tensor) -> Tensor:
    return torch.bernoulli((theta @ _design().T).sigmoid())


def _smooth_filters() -> Distribution:
    differences = torch.eye(9) - torch.diag(torch.ones(8), -1)
    roughness = differences @ differences + torch.diag((torch.arange(9.0) / 9) ** 0.5)
    precision = torch.block_diag(torch.tensor([[0.5]]), roughness.T @ roughness)
    return MultivariateNormal(torch.zeros(10), precision_matrix=precision)


def _solutions(
    change: Callable[[np.ndarray, np.ndarray], list[np.ndarray]],
    start: tuple[float, float],
    times: np.ndarray,
    theta: Tensor,
) -> Tensor:
    """Returns solutions of two differential equations at times, (N, 2, times)."""

    def derivative(_: float, state: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # in a step that is then refused
            return np.concatenate(change(state.reshape(2, -1), parameters))

    results = []
    for rows in theta.double().split(AT_ONCE):
        span, begin = (0, times[-1]), np.repeat(start, len(rows))
        solved = solve_ivp(
            derivative, span, begin, args=(rows.numpy().T,), t_eval=times, rtol=1e-5
        )
        results.append(solved.y.reshape(2, len(rows), len(times)))
    return torch.tensor(np.concatenate(results, 1)).transpose(0, 1)


def _sir(theta: Tensor) -> Tensor:
    """Returns the number of infected people among 1,000, every 17 days."""

    def change(state: np.ndarray, parameters: np.ndarray) -> list[np.ndarray]:
        (healthy, ill), (contact, recovery) = state, parameters
        new = contact * healthy * ill / POPULATION
        return [-new, new - recovery * ill]

    ill = _solutions(change, (POPULATION - 1, 1.0), 17.0 * np.arange(10), theta)[:, 1]
    return torch.binomial(torch.full_like(ill, 1000.0), (ill / POPULATION).clamp(0, 1))


def _lotka_volterra(theta: Tensor) -> Tensor:
    """Returns two populations every 2.1 days; the equations are those of their logarithms."""

    def change(state: np.ndarray, parameters: np.ndarray) -> list[np.ndarray]:
        (prey, predators), (a, b, c, d) = np.exp(state), parameters
        return [a - b * predators, d * prey - c]

    log = _solutions(change, (math.log(30.0), 0.0), 2.1 * np.arange(10), theta).flatten(1)
    return (log.clamp(math.log(1e-10), math.log(1e4)) + 0.1 * torch.randn_like(log)).exp()


NORMAL = MultivariateNormal(torch.zeros(10), 0.1 * torch.eye(10))
RATES = _log_normal([math.log(0.4), math.log(0.125)], [0.5, 0.2])
GROWTH = _log_normal([-0.125, -3.0] * 2, [0.5] * 4)
SQUARE, WIDE, CUBE, BOX = _uniform(2, 1.0), _uniform(2, 10.0), _uniform(5, 3.0), _uniform(10, 1.0)
GLM = "bernoulli_glm"
TASKS: dict[str, Task] = {
    "gaussian_linear": Task("gaussian_linear", NORMAL, _gaussian_linear),
    "gaussian_linear_uniform": Task("gaussian_linear_uniform", BOX, _gaussian_linear, (-1, 1)),
    "slcp": Task("slcp", CUBE, _slcp, (-3, 3)),
    "slcp_distractors": Task("slcp", CUBE, _slcp_distractors, (-3, 3), "_distractors"),
    "bernoulli_glm": Task(GLM, _smooth_filters(), lambda theta: _spikes(theta) @ _design()),
    "bernoulli_glm_raw": Task(GLM, _smooth_filters(), _spikes, suffix="_raw"),
    "gaussian_mixture": Task("gaussian_mixture", WIDE, _gaussian_mixture, (-10, 10)),
    "two_moons": Task("two_moons", SQUARE, _two_moons, (-1, 1)),
    "sir": Task("sir", RATES, _sir, "positive"),
    "lotka_volterra": Task("lotka_volterra", GROWTH, _lotka_volterra, "positive"),
}
