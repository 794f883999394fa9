"""`Goodness`: all comparisons of a flow with held-out rows, and what they say in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from kappaflow.flows import Flow
from kappaflow.goodness.calibration import Calibration, calibrate
from kappaflow.goodness.deviation import LEVELS, Deviation, Level, worst_level
from kappaflow.goodness.inputs import Inputs
from kappaflow.goodness.pooled import Pooled
from kappaflow.goodness.two_sample import TwoSample, compare_samples

SHOWN = 2  # deviations in a verdict
LOCAL = 0.25  # most of the rows and samples in a region that a verdict warns of
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
        listed = [one for part in parts for one in part]
        return tuple(sorted(listed, key=_importance))

    @property
    def sentences(self) -> list[str]:
        """What matters to a user first, in one or two sentences."""
        result, deviations = self.two_sample, self.deviations
        rows = f"{result.rows:,} held-out rows"
        if self.level == "good":
            at = ", also at each context" if self.calibration else ""
            return [
                f"Samples match {rows} in all columns and pairs tested{at}, and a classifier "
                "cannot separate them."
            ]
        shown = _shown(deviations)
        texts = [one.sentence for one in shown]
        if self.level == "care":
            return ["Use this flow with care.", *texts]
        first = shown[0]
        where = first.place if max(first.share, first.expected) <= LOCAL else ""
        start = f"Do not use this flow for {where}." if where else "Do not use this flow yet."
        return [start, *texts]

    @property
    def resolution(self) -> str:
        """The smallest deviations that would have been seen, as a sentence."""
        result = self.two_sample
        share, nats = 100 * result.smallest_share, result.smallest_nats
        return (
            f"With {result.rows:,} held-out rows, a line with less than {share:.2g} % of the rows "
            f"or a smooth deviation of less than {nats:.2g} nats would not show."
        )


def goodness_of(flow: Flow, inputs: Inputs, seed: int = 0) -> tuple[Goodness, Pooled]:
    """Returns the comparisons of a flow of a table with held-out rows, and what was compared."""
    conditional = inputs.context is not None
    two_sample, both = compare_samples(flow, inputs, int(conditional), seed)
    if not conditional:
        return Goodness(two_sample), both
    return Goodness(two_sample, calibrate(flow, inputs, 1 + 3, seed=seed)), both


def _importance(deviation: Deviation) -> tuple[int, bool, float]:
    level = LEVELS.index(deviation.level)
    nats = deviation.nats * (1 if len(deviation.columns) == 1 else 1 / SIMPLER)
    return (-level, not (deviation.columns or deviation.place), -nats)


def _shown(deviations: Sequence[Deviation]) -> list[Deviation]:
    """Returns the deviations of a verdict, at most one on the same columns."""
    shown: list[Deviation] = []
    for one in deviations:
        overlap = any({*one.columns} & {*other.columns} for other in shown)
        if not overlap and len(shown) < SHOWN:
            shown.append(one)
    return shown
