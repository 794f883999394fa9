"""`Goodness`: all comparisons of a flow with held-out rows, and what they say in sentences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from kappaflow.data.table import Grid
from kappaflow.flows import Flow
from kappaflow.goodness.calibration import Calibration, calibrate
from kappaflow.goodness.deviation import LEVELS, Deviation, Level, worst_level
from kappaflow.goodness.inputs import Inputs, Rows
from kappaflow.goodness.scan import FloatArray
from kappaflow.goodness.two_sample import TwoSample, compare_samples

SHOWN = 2  # deviations in a verdict
LOCAL = 0.25  # most of the rows and samples in a region that a verdict warns of
GROUPS = 3  # of tests of `two_sample` with a context: columns, pairs, scores
SIMPLER = 1.5  # times the divergence that a pair shows, to be named instead of a column


@dataclass(frozen=True)
class Goodness:
    """How well samples of a flow match held-out rows; `calibration` is for conditional flows."""

    two_sample: TwoSample
    calibration: Calibration | None = None

    @property
    def level(self) -> Level:
        """The worst level of both comparisons."""
        parts = [self.two_sample, self.calibration]
        return worst_level([part.level for part in parts if part is not None])

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """All significant deviations, the worst first; those that name a region before others."""
        parts = [part.deviations for part in (self.two_sample, self.calibration) if part]
        return tuple(sorted((entry for part in parts for entry in part), key=_importance))

    @property
    def relevant(self) -> tuple[Deviation, ...]:
        """The deviations that are not negligible; all of them if they only matter together."""
        severe = tuple(entry for entry in self.deviations if entry.level != "good")
        return severe or self.deviations

    @property
    def headline(self) -> str:
        """What to do, as a sentence."""
        if self.level == "good":
            return self._match
        if self.level == "care":
            return "Use this flow with care."
        first, *_ = self.shown
        if first.test == "pit" or first.peak:
            return f"Do not use this flow for {first.place}."
        is_small = max(first.share, first.expected) <= LOCAL
        if first.is_located and is_small and first.nats >= self.two_sample.nats / 3:
            return (
                f"Do not use this flow for {first.place}: too {first.few} samples are there, "
                f"{first.counts}."
            )
        return "Do not use this flow."

    @property
    def _match(self) -> str:
        """The headline of a flow whose samples match."""
        where = " in all columns and pairs tested" if len(self.two_sample.marginals) > 1 else ""
        where = f"{where}, also at each context" if self.calibration else where
        end = ", and a classifier cannot separate them"
        if self.deviations:
            end = ", up to negligible differences"
        return f"Samples match {self.two_sample.rows:,} held-out rows{where}{end}."

    @property
    def sentences(self) -> list[str]:
        """What matters to a user first: the headline, and the deviations that it does not name."""
        headline, shown = self.headline, self.shown
        named = bool(shown) and shown[0].counts in headline
        return [headline, *(entry.sentence for entry in shown[named:])]

    @property
    def shown(self) -> list[Deviation]:
        """The deviations of a verdict: the worst ones, at most one for each column."""
        shown: list[Deviation] = []
        for entry in self.relevant if self.level != "good" else ():
            overlap = any({*entry.columns} & {*other.columns} for other in shown)
            if not overlap and len(shown) < SHOWN:
                shown.append(entry)
        return shown

    @property
    def limits(self) -> list[str]:
        """What was not compared, and the smallest deviations that would have been seen."""
        not_checked = "; ".join(self.two_sample.not_checked)
        return [self.resolution, *([f"Not checked: {not_checked}."] if not_checked else [])]

    @property
    def resolution(self) -> str:
        """The smallest deviations that would have been seen, and what they do not bound."""
        result = self.two_sample
        smallest = 100 * result.smallest_share, result.smallest_nats
        share, nats = (float(f"{value:.2g}") for value in smallest)
        return (
            f"With {result.rows:,} held-out rows, these tests see a line with {share:g} % of the "
            f"rows, or a smooth deviation of one column by {nats:g} nats. This is not a bound on "
            "the divergence: how several columns depend on each other can be off by more."
        )


Match = Callable[[Flow, Tensor, Tensor | None], Goodness]


def matcher(
    *,
    train: Rows | None = None,
    weights: FloatArray | None = None,
    train_weights: FloatArray | None = None,
    columns: Sequence[str] = (),
    context_columns: Sequence[str] = (),
    grids: Mapping[str, Grid] | None = None,
) -> Match:
    """Returns a function that compares a flow with rows, which have noise on some grids."""

    def match(flow: Flow, x: Tensor, context: Tensor | None) -> Goodness:
        names = tuple(columns), tuple(context_columns), train_weights
        return goodness_of(flow, Inputs(x, context, train, weights, *names, grids or {}))

    return match


def goodness_of(flow: Flow, inputs: Inputs, seed: int = 0) -> Goodness:
    """Returns the comparisons of a flow of a table with held-out rows."""
    conditional = inputs.context is not None
    two_sample = compare_samples(flow, inputs, int(conditional), seed)
    if not conditional:
        return Goodness(two_sample)
    return Goodness(two_sample, calibrate(flow, inputs, 1 + GROUPS, seed=seed))


def _importance(deviation: Deviation) -> tuple[int, bool, float]:
    level = LEVELS.index(deviation.level)
    nats = deviation.nats * (1 if len(deviation.columns) == 1 else 1 / SIMPLER)
    return (-level, not (deviation.is_located or deviation.test == "pit"), -nats)
