"""The race of a model search: models in training, who wins a round, and what is stored of it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from kappaflow.data import Table
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow
from kappaflow.flows.rows import name_columns
from kappaflow.training import Settings, batch_of, log_prob_of, standardization_log_det
from kappaflow.training.batches import fit_standardization
from kappaflow.training.distributed import make_engine
from kappaflow.training.loop import Training
from kappaflow.training.measure import conditioning_figures, mean, standard_error
from kappaflow.training.session import State

Candidate = tuple[str, dict[str, Any], float]  # recipe, arguments, highest learning rate


class Trial(BaseModel):
    """The result of a model in its race.

    Attributes:
        round: The last round that it took part in, from 1.
        seconds: Processor time of its training.
        nll: Mean negative log-likelihood of validation rows, in nats on standardized columns.
        behind: Mean difference to the winner on the same rows, in nats; below 0 for a model that
            is better than the winner, by no more than one standard error.
        error: Standard error of that difference.
        condition: The 95 % condition number, if it decided between two models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    arguments: dict[str, Any]
    learning_rate: float
    round: int
    steps: int
    seconds: float
    nll: float
    behind: float
    error: float
    condition: float | None = None

    def __str__(self) -> str:
        a = self.arguments
        kind = {"real_nvp": "affine", "spline": "spline"}.get(self.recipe, self.recipe)
        text = f"{a['depth']} {kind} couplings of {'x'.join(map(str, a['hidden']))}"
        text += f", start {a['start']}, dropout {a['dropout']:g}"
        count = a.get("components", 1)
        return text if count == 1 else f"{text}, base a mixture of {count} normals"


class Racer:
    """A model in a race, in training."""

    def __init__(
        self,
        candidate: Candidate,
        flow: Flow,
        train: Table,
        validation: Table,
        settings: Settings,
        device: str | torch.device | None,
    ) -> None:
        self.recipe, self.arguments, self.learning_rate = candidate
        settings = settings.model_copy(update={"learning_rate": self.learning_rate})
        engine = make_engine(flow, device, settings.precision)
        name_columns(flow, train.columns, train.context_columns)
        rows, self.held_out = batch_of(train, flow), batch_of(validation, flow)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            fit_standardization(flow, rows)
        self.training = Training(flow, rows, self.held_out, settings, engine)
        self.seconds, self.round, self.failed = 0.0, 0, False
        self.condition: float | None = None

    def race(self, seconds: float, steps: float = math.inf) -> None:
        """Trains for this much more processor time, and for at most this many steps."""
        started = time.process_time()
        try:
            self.training.race(seconds, steps)
        except NumericalError:
            self.failed = True
        self.seconds += time.process_time() - started
        self.round += 1

    @property
    def step_s(self) -> float:
        """Seconds for each step so far."""
        return self.seconds / max(1, self.training.progress.step)

    @property
    def nll(self) -> float:
        """The best validation NLL so far; infinite where none is finite."""
        best = self.training.progress.best_nll
        return math.inf if self.failed or not math.isfinite(best) else best

    @property
    def weights(self) -> Tensor | None:
        """Weights of the validation rows; None if all count equally."""
        return None if self.held_out.weights is None else self.held_out.weights.cpu()

    def scores(self) -> Tensor:
        """Returns log p of the validation rows on standardized columns, by the best weights."""
        with self._best_weights() as flow:
            return log_prob_of(flow, self.held_out) - standardization_log_det(flow)

    def measure_condition(self) -> None:
        """Measures the 95 % condition number on validation rows, of the best weights."""
        with self._best_weights() as flow:
            self.condition = conditioning_figures(flow, self.held_out)["condition_number_p95"]

    @contextmanager
    def _best_weights(self) -> Iterator[Flow]:
        flow = self.training.flow
        held = {name: value.clone() for name, value in flow.state_dict().items()}
        self.training.load_best()
        flow.eval()
        try:
            yield flow
        finally:
            flow.load_state_dict(held)


def raced(
    racers: list[Racer], seconds: float, steps: float, show: Callable[[str], None]
) -> list[Racer]:
    """Returns all models, the best first; each round eliminates the worse half."""
    out: list[Racer] = []
    rounds = max(1, math.ceil(math.log2(len(racers))))
    for number in range(rounds):
        show(f"round {number + 1} of {rounds}: {len(racers)} models")
        share = rounds * len(racers)
        for racer in racers:
            racer.race(max(0.0, seconds) / share, steps / share)
        racers = sorted(racers, key=lambda racer: racer.nll)
        keep = max(1, math.ceil(len(racers) / 2))
        racers, out = racers[:keep], racers[keep:] + out
    return racers + out


def preferred(ranked: list[Racer]) -> list[Racer]:
    """Returns the models with the winner first.

    Of the models in the last round that are as good as the best, up to one standard error of the
    difference, the best conditioned wins.
    """
    last = [one for one in ranked if one.round == ranked[0].round and not math.isinf(one.nll)]
    if len(last) < 2:
        return ranked
    best = last[0].scores()
    behind = [(one, best - one.scores()) for one in last]
    weights = ranked[0].weights
    tied = [one for one, gap in behind if mean(gap, weights) <= standard_error(gap, weights)]
    for racer in tied if len(tied) > 1 else ():
        racer.measure_condition()
    winner = min(tied, key=lambda racer: racer.condition or math.inf)
    return [winner, *(racer for racer in ranked if racer is not winner)]


def trials_of(ranked: list[Racer]) -> tuple[Trial, ...]:
    """Returns a trial for each model, compared row by row with the first one."""
    best, weights = ranked[0].scores(), ranked[0].weights
    results = []
    for racer in ranked:
        if math.isinf(racer.nll):
            continue
        difference = best - racer.scores()
        results.append(
            Trial(
                recipe=racer.recipe,
                arguments=racer.arguments,
                learning_rate=racer.learning_rate,
                round=racer.round,
                steps=racer.training.progress.step,
                seconds=round(racer.seconds, 2),
                nll=mean(difference - best, weights),
                behind=mean(difference, weights),
                error=standard_error(difference, weights),
                condition=racer.condition,
            )
        )
    return tuple(results)


def state_of(winner: Racer, seconds: float, others: int) -> State:
    """Returns the state from which the winner continues; time and `others` steps count as used."""
    training = winner.training
    progress = training.progress
    progress.start_step, progress.start_epoch = progress.step, progress.epoch
    progress.start_s = progress.time_s = seconds
    progress.steps_of_others = others
    return training.state(), training.plain_progress(), training.history
