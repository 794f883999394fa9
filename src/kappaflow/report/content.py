"""Data model of a report, from which report.json and the page are written."""

from typing import Generic, Literal, TypeVar

from kappaflow.conditioning import ProfileQuantiles
from kappaflow.diagnosis.depth_gains import GainFigures
from kappaflow.goodness import Calibration, TwoSample
from kappaflow.goodness.corner import Corner
from kappaflow.goodness.given import GivenDensity
from kappaflow.report.result import Result
from kappaflow.results import Part

C = TypeVar("C", bound=Part)


class About(Part):
    """The data, the model and its training."""

    title: str
    # Facts about the data, (label, value): source, rows, columns, split
    data: list[tuple[str, str]]
    model: list[tuple[str, str]]  # facts about the model: recipe, depth, partition, parameters
    # Facts about the training: epochs, time, reason for stopping, settings, versions
    training: list[tuple[str, str]]
    by_validation: bool = False  # whether the held-out rows or images decided which epoch to keep
    # The candidates of a model search, best first: name, rounds, steps, validation NLL in nats on
    # standardized columns, its difference from the best, and the standard error of that difference
    trials: list[tuple[str, int, int, float, float, float]] = []
    finished_at: str = ""  # when the training ended, in ISO 8601; empty if unknown
    # The command that trained the flow; "from Python" without one; empty if unknown
    command: str = ""
    fingerprint: str = ""  # SHA-256 of the data, in hex; empty if unknown

    def held_out(self, name: str) -> str:
        """Returns which rows or images this report is about; `name` is such as "rows"."""
        if self.by_validation:
            return f"{name} for validation, which decided which epoch to keep"
        return f"{name} that the training never used"


class WorstRow(Part):
    """A test row, named as "line 17" or "row 16", with its values and its log-density in nats."""

    name: str
    values: list[float]
    log_prob: float
    # The column whose value is farthest from the mean of the training rows, the value, and its
    # distance in standard deviations; None if unknown
    unusual: tuple[str, float, float] | None = None


class WorstRows(Part):
    """Some test rows with their values."""

    # Names of the columns, with the context last; only the first few of many columns
    columns: list[str]
    left_out: int  # number of columns that are not shown
    rows: list[WorstRow]


class Latent(Part):
    """Latents of held-out rows: a histogram of all coordinates, compared with the base.

    With a base other than N(0, 1), each coordinate is first standardized with samples of the base.
    """

    edges: list[float]
    density: list[float]
    normal: list[float]  # density of the base in each bin
    coordinates: list[tuple[float, float]]  # mean and standard deviation of each latent coordinate
    beyond_four: float  # share of coordinates beyond 4 standard deviations
    base: str = "N(0, 1)"
    base_beyond_four: float = 6.3e-5  # the same share for the base


class ScoreDensities(Part):
    """Histograms of log_prob of the rows of a `Separation`."""

    edges: list[float]
    density_in: list[float]
    density_out: list[float]


class TableCharts(Part):
    """What only the page of a table draws, and result.json does not have."""

    worst_rows: WorstRows | None = None  # the test rows with the lowest density
    scores: list[ScoreDensities] = []  # histograms for each of the separations
    latent: Latent
    # The comparison of samples with held-out rows; None if it was not made
    two_sample: TwoSample | None = None
    corner: Corner | None = None  # its columns, two at a time
    # The ranks of held-out rows among samples; None for a flow without a context
    calibration: Calibration | None = None
    gains: GainFigures | None = None  # what each layer gains; None if no Gaussian can be fitted
    # The first columns at three contexts; empty for a flow without a context
    given: list[GivenDensity] = []


class Report(Part, Generic[C]):
    """The content of a report: all figures, and what only its page draws."""

    format: Literal[2] = 2
    about: About
    result: Result
    curves: list[dict[str, float | int | str | None]]  # the lines of metrics.jsonl, one per epoch
    best_epoch: int  # the epoch whose weights were kept
    profile: ProfileQuantiles
    charts: C  # what only one kind of data has, such as `TableCharts`
