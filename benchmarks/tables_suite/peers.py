"""The densities that kappaflow is compared with: flows of zuko and normflows, and mixtures.

Nothing of kappaflow takes part in their training.
"""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from time import process_time
from typing import Any

import numpy as np
import torch
import zuko
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from benchmarks.tables_suite.conditional import MixtureGiven, boosted
from benchmarks.tables_suite.data import Parts
from benchmarks.tables_suite.fitted import Fitted, in_chunks, in_float64, standardized

Peer = Callable[[Parts, float, int], Fitted]
Size = tuple[int, int]  # number of transformations, width of the two hidden layers
TUNING_SHARE = 0.25  # of the time goes to the choice of a learning rate and a size
RATES = (1e-3, 3e-3, 1e-2)
VALIDATED = 4096  # rows, at most
VALIDATIONS = 40  # in the time of a training, evenly spaced
AVERAGE = 0.999  # largest decay of the moving average of the weights
CLIP_NORM = 5.0
WARMUP = 0.05
RESTARTS = 4
COMPONENTS = (1, 2, 4, 8, 16, 32, 64, 128)
MIXTURE_ROWS = 20_000  # at most, for the choice among mixtures
MIXTURE_SEARCH = 0.6  # of the time, where there are more rows
FLOORS = (1e-6, 1e-4)  # added to the variances of a mixture of standardized columns
NARROW = 1e-9


class RowDensity(nn.Module):
    """A flow of zuko as the density of the columns of rows after their context."""

    def __init__(self, flow: Any, context: int) -> None:  # noqa: ANN401
        super().__init__()
        self.flow: Any = flow
        self.context = context

    def given(self, rows: Tensor) -> Any:  # noqa: ANN401
        """Returns the distribution given the context of rows."""
        return self.flow(rows[:, : self.context] if self.context else None)

    def forward(self, rows: Tensor) -> Tensor:
        """Returns log p of rows."""
        return self.given(rows).log_prob(rows[:, self.context :])

    def to_latent(self, rows: Tensor) -> Tensor:
        """Returns the latent of rows."""
        return self.given(rows).transform(rows[:, self.context :])

    def sample(self, rows: Tensor) -> Tensor:
        """Returns as many samples as rows, at their context."""
        return self.given(rows).sample(() if self.context else (len(rows),))


class NormflowsSplines(RowDensity):
    """Autoregressive splines of normflows, each after a linear layer, as in its examples."""

    def __init__(self, size: Size, parts: Parts) -> None:
        nf, layers = import_module("normflows"), []
        (transforms, width), context = size, parts.context
        columns = parts.train.shape[1] - context
        for _ in range(transforms):
            spline = nf.flows.AutoregressiveRationalQuadraticSpline
            layers.append(spline(columns, 1, width, context or None, tail_bound=5))
            layers += [nf.flows.LULinearPermute(columns)] if columns > 1 else []
        base = nf.distributions.DiagGaussian(columns, trainable=False)
        super().__init__(nf.ConditionalNormalizingFlow(base, layers), context)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns columns and their context."""
        return rows[:, self.context :], rows[:, : self.context] if self.context else None

    def forward(self, rows: Tensor) -> Tensor:
        """Returns log p of rows."""
        return self.flow.log_prob(*self.split(rows))

    def to_latent(self, rows: Tensor) -> Tensor:
        """Returns the latent of rows."""
        return self.flow.inverse(*self.split(rows))

    def sample(self, rows: Tensor) -> Tensor:
        """Returns as many samples as rows, at their context."""
        return self.flow.sample(len(rows), self.split(rows)[1])[0]


@dataclass(frozen=True)
class Family:
    """A kind of flow in zuko.

    Attributes:
        kind: Name of its class in `zuko.flows`.
        sizes: Two sizes to choose from; zuko's own default is three of 64.
        options: Further arguments of the class.
    """

    kind: str
    sizes: tuple[Size, Size]
    options: tuple[tuple[str, Any], ...] = ()

    def build(self, size: Size, parts: Parts) -> RowDensity:
        """Returns a new flow for a table."""
        transforms, width = size
        options = {"transforms": transforms, "hidden_features": (width, width)}
        kind, columns = getattr(zuko.flows, self.kind), parts.train.shape[1] - parts.context
        flow = kind(columns, parts.context, **options, **dict(self.options))
        return RowDensity(flow, parts.context)


FAMILIES = {
    "zuko NSF": Family("NSF", ((3, 64), (5, 128))),
    "zuko MAF": Family("MAF", ((3, 64), (6, 128))),
    "zuko NSF coupling": Family("NSF", ((4, 64), (8, 128)), (("passes", 2),)),
    "zuko RealNVP": Family("RealNVP", ((6, 64), (12, 128))),
}
Build = Callable[[Size, Parts], "RowDensity"]


@dataclass(frozen=True)
class Plan:
    """How a flow is trained.

    Attributes:
        learning_rate: The highest one.
        batch: Rows a step.
        tutorial: Adam at a constant rate, as in zuko's tutorials. Otherwise AdamW with warmup,
            a cosine schedule that ends with the time, clipped gradients, averaged weights.
    """

    learning_rate: float
    batch: int
    tutorial: bool


@dataclass
class Outcome:
    """What a training came to.

    Attributes:
        flow: With the weights that validated best.
        validation: Mean negative log-likelihood of validation rows; inf if never finite.
        steps: Steps, of all restarts together.
        restarts: How often the training became non-finite.
    """

    flow: RowDensity
    validation: float
    steps: int
    restarts: int


def zuko_flow(family: str, recipe: str, parts: Parts, seconds: float, seed: int) -> Fitted:
    """Trains a flow of zuko."""
    kind = FAMILIES[family]
    return trained_flow(kind.build, kind.sizes, recipe, parts, seconds, seed)


def trained_flow(
    build: Build,
    sizes: tuple[Size, Size],
    recipe: str,
    parts: Parts,
    seconds: float,
    seed: int,
) -> Fitted:
    """Trains a flow by a recipe, which is "fair" or "tutorial"."""
    start = process_time()
    size, plan, tuned = (3, 64), Plan(1e-3, 256, tutorial=True), {}
    if recipe == "fair":
        tuned = _tuned(build, sizes, parts, TUNING_SHARE * seconds, seed)
        size, rate = min(tuned, key=lambda choice: tuned[choice].validation)
        plan = Plan(rate, 512, tutorial=False)
    left = seconds - (process_time() - start)
    final = _train(build, size, plan, parts, left, seed)
    found = min((final, *tuned.values()), key=lambda one: one.validation)
    flow = found.flow.eval()
    exact: Any = in_float64(flow)
    details = {
        "transforms": size[0],
        "width": size[1],
        "learning_rate": plan.learning_rate,
        "tuning": {
            f"{depth} of {width} at {rate:g}": _finite(one.validation)
            for ((depth, width), rate), one in tuned.items()
        },
        "from_tuning": found is not final,
        "steps": found.steps,
        "restarts": found.restarts,
        "validation": _finite(found.validation),
        "parameters": sum(weights.numel() for weights in flow.parameters()),
    }
    return Fitted(
        lambda rows: in_chunks(flow, rows),
        exact.to_latent,
        details,
        lambda rows: in_chunks(flow.sample, rows),
    )


def _tuned(
    build: Build, sizes: tuple[Size, Size], parts: Parts, seconds: float, seed: int
) -> dict[tuple[Size, float], Outcome]:
    """Returns short trainings of equal time, by size and learning rate."""
    choices = list(product(sizes, RATES))
    start, found = process_time(), {}
    for number, (size, rate) in enumerate(choices):
        left = seconds - (process_time() - start)
        plan = Plan(rate, 512, tutorial=False)
        found[size, rate] = _train(build, size, plan, parts, left / (len(choices) - number), seed)
    return found


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _train(
    build: Build, size: Size, plan: Plan, parts: Parts, seconds: float, seed: int
) -> Outcome:
    """Returns the best weights within the time, at a lower rate again after non-finite steps."""
    start, best, steps = process_time(), None, 0
    for restarts in range(RESTARTS + 1):
        left = seconds - (process_time() - start)
        if best is not None and left <= 0:
            break
        found, finite = _train_once(build, size, plan, parts, left, seed)
        steps += found.steps
        if best is None or found.validation < best.validation:
            best = found
        best.steps, best.restarts = steps, restarts
        if finite:
            break
        plan = Plan(plan.learning_rate / 3, plan.batch, plan.tutorial)
    if best is None:
        raise ValueError(f"'seconds' should be above 0, got {seconds}.")
    return best


def _train_once(
    build: Build, size: Size, plan: Plan, parts: Parts, seconds: float, seed: int
) -> tuple[Outcome, bool]:
    """Returns the best weights of a training, and whether it stayed finite."""
    start = process_time()
    torch.manual_seed(seed)
    flow = build(size, parts)
    average = copy.deepcopy(flow)
    rows = torch.as_tensor(parts.train, dtype=torch.float32)
    held_out = parts.validation[:VALIDATED]
    optimizer = (torch.optim.Adam if plan.tutorial else torch.optim.AdamW)(
        flow.parameters(), lr=plan.learning_rate
    )
    best, best_score, step, looks = copy.deepcopy(flow), math.inf, 0, 0
    batches = _batches(len(rows), plan.batch)
    while True:
        done = min((process_time() - start) / seconds, 1.0) if seconds > 0 else 1.0
        if done * VALIDATIONS >= looks or done == 1:
            looks = math.floor(done * VALIDATIONS) + 1
            kept = flow if plan.tutorial else average
            score = _validation(kept, held_out)
            if score < best_score:
                best_score = score
                best.load_state_dict(kept.state_dict())
        if done == 1:
            return Outcome(best, best_score, step, 0), True
        if not plan.tutorial:
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * _schedule(done)
        loss = -flow(rows[next(batches)]).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            flow.parameters(), math.inf if plan.tutorial else CLIP_NORM
        )
        if not bool(torch.isfinite(loss)) or not bool(torch.isfinite(norm)):
            return Outcome(best, best_score, step, 0), False
        optimizer.step()
        step += 1
        _update(average, flow, step)


def _batches(rows: int, size: int) -> Any:  # noqa: ANN401
    """Yields batches of row numbers for ever, in a new order in every epoch."""
    while True:
        yield from torch.randperm(rows).split(size)


def _schedule(done: float) -> float:
    """Returns the share of the highest learning rate: a linear rise, then half a cosine."""
    return min(done / WARMUP, 1.0) * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def _update(average: nn.Module, flow: nn.Module, step: int) -> None:
    decay = min(AVERAGE, (1 + step) / (10 + step))
    for mean, weights in zip(average.parameters(), flow.parameters(), strict=True):
        mean.lerp_(weights, 1 - decay)


def _validation(flow: nn.Module, rows: np.ndarray) -> float:
    """Returns the mean negative log-likelihood, inf where it is not finite."""
    nll = -float(in_chunks(flow, rows).mean())
    return nll if math.isfinite(nll) else math.inf


def gaussian(parts: Parts, seconds: float, seed: int) -> Fitted:
    """Returns the Gaussian with the mean and the covariance of the training rows."""
    model = GaussianMixture(1, reg_covar=0).fit(parts.train)
    size = parts.train.shape[1]
    return Fitted(model.score_samples, None, {"parameters": size + size * (size + 1) // 2})


def mixture(validated: bool, parts: Parts, seconds: float, seed: int) -> Fitted:
    """Fits mixtures of Gaussians with full covariances, and keeps the one with the lowest BIC.

    Validated are also ones with narrower components, and what validates best is kept.

    Each number of components gets a share of the time in proportion to it, since that is how the
    cost grows; what a converged fit leaves goes to the larger ones. Of many rows, the choice is
    made on some, and the chosen mixture is then fitted to all.
    """
    start, rows = process_time(), parts.train
    some = rows[:MIXTURE_ROWS]
    searching = seconds if len(some) == len(rows) else MIXTURE_SEARCH * seconds
    choices = [
        (number, floor)
        for number, floor in product(COMPONENTS, (NARROW, *FLOORS) if validated else FLOORS)
        if number <= len(some) // 2
    ]
    best, best_score, tried = None, math.inf, {}
    for place, (number, floor) in enumerate(choices):
        now = process_time()
        left = start + searching - now
        if best is not None and left < 0.02 * searching:
            break
        share = left * number / sum(other for other, _ in choices[place:])
        model = GaussianMixture(
            number, reg_covar=floor, random_state=seed, warm_start=True, max_iter=4
        )
        _iterate(model, some, now + share)
        score = -model.score(parts.validation) if validated else _bic(model, some, len(rows))
        tried[f"{number} at {floor:g}"] = round(score, 3)
        if best is None or score < best_score:
            best, best_score = model, score
    if best is None:
        raise ValueError("no mixture could be fitted.")
    if len(some) < len(rows):
        before = process_time()
        best.score(some)
        step = (
            6 * (process_time() - before) * len(rows) / len(some)
        )  # an E, an M and a last E step
        best.set_params(max_iter=1)
        if process_time() + step < start + seconds:
            _iterate(best, rows, start + seconds)
    details = {
        "components": best.n_components,
        "reg_covar": best.reg_covar,
        "converged": bool(best.converged_),
        "tried": tried,
    }
    density = MixtureGiven(best, parts.context)
    return Fitted(density.log_prob, None, details, lambda rows: density.sample(rows, seed))


def _bic(model: GaussianMixture, some: np.ndarray, rows: int) -> float:
    """Returns the BIC of all rows, where the likelihood of some stands for that of all."""
    fitted = -2 * model.score(some) * rows
    penalty = model.bic(some) + 2 * model.score(some) * len(some)
    return fitted + penalty * math.log(rows) / math.log(len(some))


def _iterate(model: GaussianMixture, rows: np.ndarray, until: float) -> None:
    """Fits until it converges, or until the processor time of this process reaches a limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(100):
            before = process_time()
            model.fit(rows)
            now = process_time()
            if model.converged_ or now + (now - before) > until:
                break


def _peer(fit: Callable[..., Fitted], *arguments: object) -> Peer:
    """Returns a function of a table in its own units, which standardizes it first."""

    def fitted(parts: Parts, seconds: float, seed: int) -> Fitted:
        return fit(*arguments, standardized(parts), seconds, seed)

    return fitted


PEERS: dict[str, Peer] = {
    "Gaussian": _peer(gaussian),
    "mixture": _peer(mixture, False),
    "mixture, validated": _peer(mixture, True),
    "boosted": _peer(boosted),
    "normflows NSF, fair": _peer(trained_flow, NormflowsSplines, ((3, 64), (5, 128)), "fair"),
    **{
        f"{family}, {recipe}": _peer(zuko_flow, family, recipe)
        for family, recipe in product(FAMILIES, ("fair", "tutorial"))
    },
}
