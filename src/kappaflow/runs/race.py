"""The race of a model search: models in training, who wins a round, and the choice."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from kappaflow.data import Table
from kappaflow.data.domains import Domains
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow
from kappaflow.flows.rows import name_columns
from kappaflow.flows.standardization import standardization_log_det
from kappaflow.runs.recipes import ModelConfig, build_flow, with_bounds
from kappaflow.training import Settings, batch_of, log_prob_of, loop
from kappaflow.training.batches import fit_standardization
from kappaflow.training.distributed import make_engine
from kappaflow.training.loop import Start, Training, copied
from kappaflow.training.maximum_likelihood import MaximumLikelihood
from kappaflow.training.measure import conditioning_figures, mean, standard_error
from kappaflow.training.progress import Bar
from kappaflow.training.session import TrainingState
from kappaflow.training.settings import OVERFIT_DECAY

RISE = 100  # steps over which the learning rate rises
ROUNDS, LEAST_STEPS = 4, 20  # most rounds of a race; fewest steps of a model in one
CERTAIN = 2.0  # standard errors by which a model is worse that is eliminated
TIED = 0.01  # most nats between two models of which the better conditioned one wins
MOST_RATIO = 0.5  # of the gain of a doubling of the training to that of the one before
DECAY = 0.1  # weight decay of autoregressive layers before that
Starts = dict[str, dict[str, Tensor]]  # states of fitted layers, by the kinds of layers until them


class Candidate(NamedTuple):
    """A model that may race: its recipe, its arguments and its highest learning rate."""

    recipe: str
    arguments: dict[str, Any]
    learning_rate: float


def settings_of(model: Candidate, base: Settings) -> Settings:
    """Returns the settings with which a model is trained, in its race and after it."""
    update: dict[str, Any] = {"learning_rate": model.learning_rate, "cooldown": True}
    # Weight decay would move the components of a mixture, too.
    if base.overfit_decay is None and model.arguments.get("components", 1) == 1:
        update["overfit_decay"] = OVERFIT_DECAY
    if base.weight_decay == Settings().weight_decay and model.recipe == "autoregressive":
        update["weight_decay"] = DECAY
    return base.model_copy(update=update)


class Trial(BaseModel):
    """The result of a model in its race."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    arguments: dict[str, Any]
    learning_rate: float
    round: int  # the last round that it took part in, from 1
    steps: int
    seconds: float  # processor time of its training
    nll: float  # mean negative log-likelihood of validation rows, in nats on standardized columns
    # Mean difference to the winner on the same rows, in nats; below 0 for a model that is better
    # so far
    behind: float
    error: float  # standard error of that difference
    condition: float | None = None  # the 95 % condition number, if it decided between two models

    def __str__(self) -> str:
        a = self.arguments
        kinds = {"real_nvp": "affine couplings", "autoregressive": "autoregressive layers"}
        layers = kinds.get(self.recipe, self.recipe + " couplings")
        text = f"{a['depth']} {layers if a['depth'] > 1 else layers.removesuffix('s')} of "
        text += f"{'x'.join(map(str, a['hidden']))}, start {a['start']}, dropout {a['dropout']:g}"
        count = a.get("components", 1)
        return text if count == 1 else f"{text}, base a mixture of {count} normals"


class ModelChoice(BaseModel):
    """The model that a search chose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    arguments: dict[str, Any]
    learning_rate: float
    trials: tuple[Trial, ...] = ()  # all of them, the best first
    seconds: float = 0.0
    reason: str | None = None  # why there was no race, if there was none
    left_out: int = 0  # models for which the time of the search was too short

    @property
    def model(self) -> ModelConfig:
        return ModelConfig(self.recipe, dict(self.arguments))

    def build(self, table: Table, domains: Domains, seed: int) -> Flow:
        """Returns a new flow of the model for a table, with the domains of its columns."""
        return build_flow(with_bounds(self.model, domains, table), table, seed)

    def settings(self, base: Settings) -> Settings:
        """Returns the settings with which the model that was chosen is trained."""
        return settings_of(Candidate(self.recipe, self.arguments, self.learning_rate), base)

    def rows(self) -> list[tuple[str, int, int, float, float, float]]:
        """Returns a row for each trial, as a report shows it."""
        return [
            (str(trial), trial.round, trial.steps, trial.nll, trial.behind, trial.error)
            for trial in self.trials
        ]

    def __str__(self) -> str:
        if not self.trials:
            return f"model: {self.recipe}, without a search: {self.reason}"
        best, *others = self.trials
        text = (
            f"chose {best}: after a search of {self.seconds:.0f} s it has {best.nll:.3f} nats on "
            "validation rows"
        )
        if others:
            second = others[0]
            if best.condition is not None and second.condition is not None:
                text += (
                    f", as good as {second} up to one standard error "
                    f"({second.behind:+.3f} ± {second.error:.3f})"
                )
                numbers = f"{best.condition:.3g}", f"{second.condition:.3g}"
                if numbers[0] != numbers[1]:
                    text += ", and better conditioned: {}, not {}".format(*numbers)
            elif second.behind < 0:
                text += (
                    f", {-second.behind:.3f} ± {second.error:.3f} behind {second}, and gains more"
                )
            else:
                text += f", {second.behind:.3f} ± {second.error:.3f} better than {second}"
        if self.left_out:
            text += f"; there was no time to try {self.left_out} more"
        return text


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
        starts: Starts,
    ) -> None:
        self.recipe, self.arguments, self.learning_rate = candidate
        settings = settings_of(candidate, settings)
        engine = make_engine(flow, device, settings.precision)
        name_columns(flow, train.columns, train.context_columns)
        rows, self.held_out = batch_of(train, flow), batch_of(validation, flow)
        layers = [*flow.standardization.fitted_layers()]
        kinds = [type(layer).__name__ for layer in layers]
        fitted = {" ".join(kinds[: i + 1]): layer for i, layer in enumerate(layers)}
        for kind in fitted.keys() & starts.keys():  # fitted to the same rows
            fitted[kind].load_state_dict(starts[kind])
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            fit_standardization(flow, rows)
        starts.update((kind, copied(layer.state_dict())) for kind, layer in fitted.items())
        objective = MaximumLikelihood(flow, rows, self.held_out, settings, engine)
        self.training = Training(objective, settings, engine)
        self.seconds, self.round, self.failed = 0.0, 0, False
        self.gains = math.inf, math.inf  # of the second quarter and of the second half
        self.course = list[tuple[int, float]]()  # steps and the best NLL so far, by epoch
        self._scores: tuple[int, Tensor] | None = None  # and the step of their weights
        self.condition: float | None = None

    def race(self, seconds: float, last: float, end: float = math.inf) -> None:
        """Trains for some processor time, to a step, and until the clock reads `end`, at most.

        Stops after `patience` epochs without improvement too. Takes at least one step before
        `last`.
        """
        started, progress = time.process_time(), self.training.progress

        def is_over() -> bool:
            late = time.process_time() >= started + seconds or loop.clock() >= end
            return progress.step >= last or late

        patience = self.training.objective.patience
        self.training.start_clock()
        try:
            while progress.step < last and progress.epoch - progress.best_epoch < patience:
                self.training.run_epoch(self._rate, is_over)
                self.course.append((self.step, progress.best_nll))
                if is_over():
                    break
        except NumericalError:
            self.failed = True
        self.seconds += time.process_time() - started
        self.gains = self._gain(0.25, 0.5), self._gain(0.5, 1.0)

    def _gain(self, before: float, after: float) -> float:
        """Returns by how many nats the NLL fell from one share of the steps to another.

        It is interpolated between ends of epochs, linearly in the logarithm of the step.
        """
        course = [(step, nll) for step, nll in self.course if math.isfinite(nll)]
        if not course or course[0][0] > before * self.step:
            return math.inf
        steps, values = np.array(course).T
        first, last = np.interp(
            np.log([before, after]) + math.log(self.step), np.log(steps), values
        )
        return float(first - last)

    def _rate(self) -> float:
        """Returns the learning rate of the next step: a linear rise, then the highest."""
        return self.learning_rate * min(1.0, (self.step + 1) / RISE)

    @property
    def step(self) -> int:
        """The number of steps so far."""
        return self.training.progress.step

    @property
    def step_s(self) -> float:
        """Processor time for each step so far."""
        return self.seconds / max(1, self.step)

    @property
    def nll(self) -> float:
        """The best validation NLL so far; infinite where none is finite."""
        best = self.training.progress.best_nll
        return math.inf if self.failed or not math.isfinite(best) else best

    @property
    def gain(self) -> float:
        """The nats by which the second half of the training so far lowered the NLL."""
        return self.gains[1]

    @property
    def most_gain(self) -> float:
        """The nats that the training still gains if each doubling gains as much as the last."""
        settings, steps = self.training.settings, self.training.objective.steps
        seconds = min(settings.max_time_s or math.inf, steps * self.step_s)
        return self.gain * math.log2(max(2.0, seconds / max(self.seconds, 1e-9)))

    @property
    def forecast(self) -> float:
        """The NLL after twice the training.

        That gains less than the doubling before, by the ratio of the last two gains, which is
        taken as a half at most. While the ratio is not known, no gain is counted.
        """
        before, last = self.gains
        if not (math.isfinite(before) and math.isfinite(last) and before > 0):
            return self.nll
        ratio = min(MOST_RATIO, max(0.0, last / before))
        return self.nll - last * ratio

    @property
    def weights(self) -> Tensor | None:
        """Weights of the validation rows; None if all count equally."""
        return None if self.held_out.weights is None else self.held_out.weights.cpu()

    def scores(self) -> Tensor:
        """Returns log p of the validation rows on standardized columns, by the best weights."""
        if self._scores is None or self._scores[0] != self.step:
            with self._best_weights() as flow:
                log_prob = log_prob_of(flow, self.held_out) - standardization_log_det(flow)
            self._scores = self.step, log_prob
        return self._scores[1]

    def measure_condition(self) -> None:
        """Measures the 95 % condition number on validation rows, of the best weights."""
        with self._best_weights() as flow:
            self.condition = conditioning_figures(flow, self.held_out)["condition_number_p95"]

    @contextmanager
    def _best_weights(self) -> Iterator[Flow]:
        flow = self.training.flow
        before = {name: value.clone() for name, value in flow.state_dict().items()}
        self.training.load_best()
        flow.eval()
        try:
            yield flow
        finally:
            flow.load_state_dict(before)


class Stopwatch:
    """Measures elapsed seconds, and the processor's share of them on a busy machine."""

    def __init__(self) -> None:
        self.started, self._processor = loop.clock(), time.process_time()

    @property
    def seconds(self) -> float:
        return loop.clock() - self.started

    @property
    def processor_share(self) -> float:
        """Processor time per second; above 1 with several threads."""
        return (time.process_time() - self._processor) / max(self.seconds, 1e-9)


def raced(racers: list[Racer], end: float, steps: float, share: float, show: Bar) -> list[Racer]:
    """Returns all models, the best first; rounds eliminate the worst.

    Those leave that are certainly worse, and those with the worst forecasts, so that two or
    three are left for the last round.

    All models in a round are trained for the same processor time. How much it is follows from the
    time left until the clock reads `end`, and from the processor's share in the round before
    (`share` before the first). `steps` limits the steps of all models together. The race ends
    early with one model left.
    """
    out, entrants = list[Racer](), len(racers)
    of_a_round = LEAST_STEPS * len(racers) * max(racer.step_s for racer in racers)
    rounds = min(ROUNDS, max(1, int(share * (end - loop.clock()) / of_a_round)))
    for number in range(rounds):
        left = end - loop.clock()
        if number and (left <= 0 or len(racers) == 1):
            break
        show(number / rounds, f"round {number + 1} of at most {rounds}: {len(racers)} models")
        watch, turns = Stopwatch(), (rounds - number) * len(racers)
        before = sum(racer.step for racer in racers)
        for racer in racers:
            racer.race(share * max(0.0, left) / turns, racer.step + steps / turns, end)
            racer.round += 1
        steps -= sum(racer.step for racer in racers) - before
        share = watch.processor_share
        most = max(2, math.ceil(entrants ** (1 - (number + 1) / rounds)))
        racers, behind = _compared(racers, most if number + 1 < rounds else entrants)
        out = behind + out
    return racers + out


def _compared(racers: list[Racer], most: int) -> tuple[list[Racer], list[Racer]]:
    """Returns the models that stay in a race and those that leave it, each the best first.

    A model leaves if it is worse than the best by more than two standard errors of the difference,
    row by row, and by more than it can gain if no doubling of its training gains more than the
    last. Of the others, the `most` with the best forecasts stay.
    """
    best, *others = sorted(racers, key=lambda racer: racer.nll)
    stay, leave = [best], list[Racer]()
    for racer in others:
        is_worse = math.isinf(racer.nll)
        if not is_worse:
            gap = best.scores() - racer.scores()
            least = max(CERTAIN * standard_error(gap, best.weights), racer.most_gain)
            is_worse = mean(gap, best.weights) > least
        (leave if is_worse else stay).append(racer)
    kept = sorted(stay, key=lambda racer: racer.forecast)[:most]
    leave += [racer for racer in stay if racer not in kept]
    return [r for r in stay if r in kept], sorted(leave, key=lambda racer: racer.nll)


def preferred(ranked: list[Racer]) -> list[Racer]:
    """Returns the models with the winner first.

    The best is the one with the lowest forecast. Of the models in the last round that are as good
    as it, up to one standard error of the difference and 0.01 nats, the best conditioned wins.
    """
    last = [
        trial for trial in ranked if trial.round == ranked[0].round and not math.isinf(trial.nll)
    ]
    if len(last) < 2:
        return ranked
    best, weights = min(last, key=lambda racer: racer.forecast), ranked[0].weights
    tied = [best]
    for racer in last:
        error = standard_error(best.scores() - racer.scores(), weights)
        if racer is not best and racer.forecast - best.forecast <= min(error, TIED):
            tied.append(racer)
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
                steps=racer.step,
                seconds=round(racer.seconds, 2),
                nll=mean(difference - best, weights),
                behind=mean(difference, weights),
                error=standard_error(difference, weights),
                condition=racer.condition,
            )
        )
    return tuple(results)


def state_of(winner: Racer, seconds: float, others: int) -> TrainingState:
    """Returns the state from which the winner continues; time and `others` steps count as used."""
    training = winner.training
    progress = training.progress
    progress.time_s = seconds
    training.start = Start(progress.epoch, progress.step, seconds, others)
    return training.state(), training.plain_progress(), training.history
