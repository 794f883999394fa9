"""The rules of a race of models: who stays after a round, who wins, and the choice."""

import math
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from kappaflow.data import Table
from kappaflow.data.domains import Domains
from kappaflow.flows import Flow
from kappaflow.runs.candidate import Candidate
from kappaflow.runs.recipes import ModelConfig
from kappaflow.training import Settings
from kappaflow.training.measure import mean, standard_error

CERTAIN = 2.0  # standard errors by which a model is worse that is eliminated
TIED = 0.01  # most nats between two models of which the better conditioned one wins
MOST_RATIO = 0.5  # of the gain of a doubling of the training to that of the one before


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

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.recipe, self.arguments, self.learning_rate)

    def build(self, table: Table, domains: Domains, seed: int) -> Flow:
        """Returns a new flow of the model for a table, with the domains of its columns."""
        return self.candidate.build(table, domains, seed)

    def settings(self, base: Settings) -> Settings:
        """Returns the settings with which the model that was chosen is trained."""
        return self.candidate.settings_over(base)

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


@dataclass(frozen=True, eq=False)
class Standing:
    """The figures of a model after its training so far, by which the rules of a race decide.

    Attributes:
        entry: Its number among the models of the race.
        round: The last round that it took part in, from 1; 0 before the first.
        step: Number of steps so far.
        seconds: Processor time of its training so far.
        nll: The best validation NLL so far, in nats; infinite where none is finite.
        gains: By how many nats the second quarter and the second half of the steps lowered it.
        steps: Number of steps of a whole training.
        max_time_s: Time limit of a whole training in seconds.
        scores: log p of the validation rows on standardized columns, by the best weights; empty
            before the first round.
        weights: Weights of the validation rows; None if all count equally.
        condition: The 95 % condition number on validation rows, where it was measured.
    """

    entry: int
    candidate: Candidate
    round: int
    step: int
    seconds: float
    nll: float
    gains: tuple[float, float]
    steps: int
    max_time_s: float
    scores: Tensor
    weights: Tensor | None = None
    condition: float | None = None

    @property
    def step_s(self) -> float:
        """Processor time for each step so far."""
        return self.seconds / max(1, self.step)

    @property
    def most_gain(self) -> float:
        """The nats that the training still gains if each doubling gains as much as the last."""
        by_time = self.max_time_s / max(self.seconds, 1e-9)
        by_steps = self.steps / max(1, self.step)
        return self.gains[1] * math.log2(max(2.0, min(by_time, by_steps)))

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


def compared(standings: list[Standing], most: int) -> tuple[list[Standing], list[Standing]]:
    """Returns the models that stay in a race and those that leave it, each the best first.

    A model leaves if it is worse than the best by more than two standard errors of the difference,
    row by row, and by more than it can gain if no doubling of its training gains more than the
    last. Of the others, the `most` with the best forecasts stay.
    """
    best, *others = sorted(standings, key=lambda standing: standing.nll)
    stay, leave = [best], list[Standing]()
    for standing in others:
        is_worse = math.isinf(standing.nll)
        if not is_worse:
            gap = best.scores - standing.scores
            least = max(CERTAIN * standard_error(gap, best.weights), standing.most_gain)
            is_worse = mean(gap, best.weights) > least
        (leave if is_worse else stay).append(standing)
    kept = sorted(stay, key=lambda standing: standing.forecast)[:most]
    leave += [standing for standing in stay if standing not in kept]
    return [r for r in stay if r in kept], sorted(leave, key=lambda standing: standing.nll)


def as_good_as_the_best(ranked: list[Standing]) -> list[Standing]:
    """Returns the best model and those that are as good as it.

    The best is the one with the lowest forecast. Others in the last round are as good if it is
    ahead by no more than one standard error of the difference and 0.01 nats.
    """
    last = [s for s in ranked if s.round == ranked[0].round and not math.isinf(s.nll)]
    if not last:
        return ranked[:1]
    best, weights = min(last, key=lambda standing: standing.forecast), ranked[0].weights
    results = [best]
    for standing in last:
        error = standard_error(best.scores - standing.scores, weights)
        if standing is not best and standing.forecast - best.forecast <= min(error, TIED):
            results.append(standing)
    return results


def with_winner_first(ranked: list[Standing], tied: list[Standing]) -> list[Standing]:
    """Returns the models with the best conditioned one of `tied` first."""
    winner = min(tied, key=lambda standing: standing.condition or math.inf)
    conditions = {standing.entry: standing.condition for standing in tied}
    others = [
        replace(standing, condition=conditions.get(standing.entry))
        for standing in ranked
        if standing.entry != winner.entry
    ]
    return [winner, *others]


def trials_of(ranked: list[Standing]) -> tuple[Trial, ...]:
    """Returns a trial for each model, compared row by row with the first one."""
    best, weights = ranked[0].scores, ranked[0].weights
    results = []
    for standing in ranked:
        if math.isinf(standing.nll):
            continue
        difference = best - standing.scores
        results.append(
            Trial(
                **standing.candidate._asdict(),
                round=standing.round,
                steps=standing.step,
                seconds=round(standing.seconds, 2),
                nll=mean(difference - best, weights),
                behind=mean(difference, weights),
                error=standard_error(difference, weights),
                condition=standing.condition,
            )
        )
    return tuple(results)
