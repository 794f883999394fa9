"""The models of a race in training, each on one of the ranks."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kappaflow.data import Table
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow
from kappaflow.flows.rows import name_columns
from kappaflow.flows.standardization import standardization_log_det
from kappaflow.ranks import alone, rank, ranks
from kappaflow.runs.candidate import Candidate
from kappaflow.runs.race import Standing, compared
from kappaflow.training import Settings, batch_of, log_prob_of, loop
from kappaflow.training.batches import fit_standardization
from kappaflow.training.collectives import from_each_rank, from_rank_zero
from kappaflow.training.distributed import make_engine
from kappaflow.training.loop import Start, Training, copied
from kappaflow.training.maximum_likelihood import MaximumLikelihood
from kappaflow.training.measure import conditioning_figures
from kappaflow.training.progress import Bar
from kappaflow.training.session import TrainingState

RISE = 100  # steps over which the learning rate rises
ROUNDS, LEAST_STEPS = 4, 20  # most rounds of a race; fewest steps of a model in one
Starts = dict[str, dict[str, Tensor]]  # states of fitted layers, by the kinds of layers until them
Entrant = tuple[int, Candidate]  # with its number among the models of the race


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


@dataclass
class Course:
    """What a race remembers of a model's training so far."""

    round: int = 0  # the last that it took part in, from 1
    seconds: float = 0.0  # processor time
    failed: bool = False
    best: list[tuple[int, float]] = field(default_factory=list)  # steps and lowest NLL, by epoch
    condition: float | None = None


RacerState = tuple[TrainingState, Course]


class Racer:
    """A model in a race, in training on this rank.

    `starts` holds the layers that other models have fitted to the same rows. `state` is what
    another rank returned by `state`.
    """

    def __init__(
        self,
        candidate: Candidate,
        flow: Flow,
        train: Table,
        validation: Table,
        settings: Settings,
        device: str | torch.device | None,
        starts: Starts,
        state: RacerState | None = None,
    ) -> None:
        self.candidate = candidate
        settings = candidate.settings_over(settings)
        engine = make_engine(flow, device, settings.precision)
        name_columns(flow, train.columns, train.context_columns)
        rows, self.held_out = batch_of(train, flow), batch_of(validation, flow)
        layers = [*flow.standardization.fitted_layers()]
        kinds = [type(layer).__name__ for layer in layers]
        fitted = {" ".join(kinds[: i + 1]): layer for i, layer in enumerate(layers)}
        for kind in fitted.keys() & starts.keys():
            fitted[kind].load_state_dict(starts[kind])
        if state is not None:
            flow.load_state_dict(state[0][0]["flow"])
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            fit_standardization(flow, rows)
        starts.update((kind, copied(layer.state_dict())) for kind, layer in fitted.items())
        objective = MaximumLikelihood(flow, rows, self.held_out, settings, engine)
        self.training, self.course = Training(objective, settings, engine), Course()
        if state is not None:
            self.training.restore(*state[0])
            self.course = state[1]

    def state(self) -> RacerState:
        """Returns all that another rank needs to continue, with its tensors on the CPU."""
        groups = {
            group: {name: tensor.cpu() for name, tensor in tensors.items()}
            for group, tensors in self.training.state().items()
        }
        training = groups, self.training.plain_progress(), self.training.history
        return training, self.course

    def race(self, seconds: float, last: float, end: float) -> None:
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
                self.course.best.append((progress.step, progress.best_nll))
                if is_over():
                    break
        except NumericalError:
            self.course.failed = True
        self.course.seconds += time.process_time() - started

    def measure_condition(self) -> None:
        """Measures the 95 % condition number on validation rows, of the best weights."""
        with self._best_weights() as flow:
            figures = conditioning_figures(flow, self.held_out)
        self.course.condition = figures["condition_number_p95"]

    def standing(self, entry: int) -> Standing:
        """Returns the figures by which the rules of the race decide."""
        progress, settings, course = self.training.progress, self.training.settings, self.course
        is_finite = not course.failed and math.isfinite(progress.best_nll)
        weights = self.held_out.weights
        return Standing(
            entry=entry,
            candidate=self.candidate,
            round=course.round,
            step=progress.step,
            seconds=course.seconds,
            nll=progress.best_nll if is_finite else math.inf,
            gains=(gain(course.best, 0.25, 0.5), gain(course.best, 0.5, 1.0)),
            steps=self.training.objective.steps,
            max_time_s=settings.max_time_s or math.inf,
            scores=self._scores() if is_finite and course.round else torch.empty(0),
            weights=None if weights is None else weights.cpu(),
            condition=course.condition,
        )

    def _rate(self) -> float:
        """Returns the learning rate of the next step: a linear rise, then the highest."""
        return self.candidate.learning_rate * min(1.0, (self.training.progress.step + 1) / RISE)

    def _scores(self) -> Tensor:
        """Returns log p of the validation rows on standardized columns, by the best weights."""
        with self._best_weights() as flow:
            return log_prob_of(flow, self.held_out) - standardization_log_det(flow)

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


def gain(best: list[tuple[int, float]], before: float, after: float) -> float:
    """Returns by how many nats the NLL fell from one share of the steps to another.

    `best` has steps and the lowest NLL so far at ends of epochs, between which the NLL is taken as
    linear in the logarithm of the step. Infinite if nothing was measured early enough.
    """
    course = [(step, nll) for step, nll in best if math.isfinite(nll)]
    if not course or course[0][0] > before * best[-1][0]:
        return math.inf
    steps, values = np.array(course).T
    first, last = np.interp(np.log([before, after]) + math.log(steps[-1]), np.log(steps), values)
    return float(first - last)


class Racers:
    """The models of a race, dealt to the ranks.

    `build` returns a model in training, new or in a state in which another rank left it; None if
    it cannot be built. Each rank calls each method with the same arguments.
    """

    def __init__(self, build: Callable[[Candidate, RacerState | None], Racer | None]) -> None:
        self._build = build
        self._own = dict[int, Racer]()
        self._of_others = dict[int, RacerState]()
        self.processor_share = 1.0  # processor time per second of this rank when it worked last

    def each(self, models: Sequence[Entrant], work: Callable[[Racer], None]) -> list[Standing]:
        """Returns the standings of models, each of which has done some work on one of the ranks.

        A model that cannot be built has none.
        """
        own = models[rank() :: ranks()]
        results = {
            standing.entry: (standing, state)
            for outcome in from_each_rank(lambda: self._turn(own, work))
            for standing, state in outcome
        }
        for entry in results.keys() - dict(own).keys():
            self._own.pop(entry, None)
            self._of_others[entry] = results[entry][1]
        return [results[entry][0] for entry, _ in models if entry in results]

    def _turn(
        self, models: Sequence[Entrant], work: Callable[[Racer], None]
    ) -> list[tuple[Standing, RacerState]]:
        """Returns the standings and the states of this rank's models after their work."""
        watch, results = Stopwatch(), []
        with alone():
            for entry, candidate in models:
                state = self._of_others.pop(entry, None)
                racer = self._own.get(entry) or self._build(candidate, state)
                if racer is not None:
                    work(racer)
                    self._own[entry] = racer
                    results.append((racer.standing(entry), racer.state()))
        self.processor_share = watch.processor_share
        return results

    def start_of(self, winner: Standing, seconds: float, others: int) -> TrainingState:
        """Returns the state from which the winner continues.

        The time of the search and `others`, the steps of the other models, count as used.
        """
        racer = self._own.get(winner.entry)
        state = self._of_others[winner.entry] if racer is None else racer.state()
        groups, progress, history = state[0]
        start = Start(progress["epoch"], progress["step"], seconds, others)
        return groups, progress | {"time_s": seconds} | asdict(start), history


def raced(
    racers: Racers, standings: list[Standing], end: float, steps: float, show: Bar
) -> list[Standing]:
    """Returns all models, the best first; rounds eliminate the worst.

    Those leave that are certainly worse, and those with the worst forecasts, so that two or
    three are left for the last round.

    All models in a round are trained for the same processor time. How much it is follows from the
    time left until the clock reads `end`, from the number of ranks, and from the processor's share
    in the round before. `steps` limits the steps of all models together. The race ends early with
    one model left.
    """
    out, entrants = list[Standing](), len(standings)
    of_a_round = LEAST_STEPS * _turns(entrants) * max(standing.step_s for standing in standings)

    def clock() -> tuple[float, float]:
        return max(0.0, end - loop.clock()), racers.processor_share

    left, share = from_rank_zero(clock)
    most_rounds = min(share * left / of_a_round, steps / (LEAST_STEPS * entrants))
    rounds = min(ROUNDS, max(1, int(most_rounds)))
    for number in range(rounds):
        if number:
            left, share = from_rank_zero(clock)
            if not left or len(standings) == 1:
                break
        show(number / rounds, f"round {number + 1} of at most {rounds}: {len(standings)} models")
        train = partial(
            _train,
            seconds=share * left / ((rounds - number) * _turns(len(standings))),
            steps=steps / ((rounds - number) * len(standings)),
            end=end,
        )
        before = sum(standing.step for standing in standings)
        standings = racers.each([(s.entry, s.candidate) for s in standings], train)
        steps -= sum(standing.step for standing in standings) - before
        most = max(2, math.ceil(entrants ** (1 - (number + 1) / rounds)))
        most = most if number + 1 < rounds else entrants
        standings, behind = from_rank_zero(partial(compared, standings, most))
        out = behind + out
    return standings + out


def _turns(models: int) -> int:
    """Returns how many models the busiest rank trains."""
    return math.ceil(models / ranks())


def _train(racer: Racer, seconds: float, steps: float, end: float) -> None:
    racer.race(seconds, racer.training.progress.step + steps, end)
    racer.course.round += 1
