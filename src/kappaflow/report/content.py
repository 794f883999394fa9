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
    """The data, the model and its training.

    Attributes:
        data: Facts about the data, (label, value): source, rows, columns, split.
        model: Facts about the model: recipe, depth, partition, parameters.
        training: Facts about the training: epochs, time, reason for stopping, settings, versions.
        by_validation: Whether the held-out rows or images decided which epoch to keep.
        trials: The candidates of a model search, best first: name, rounds, steps, validation NLL
            in nats on standardized columns, its difference from the best, and the standard error
            of that difference.
        finished_at: When the training ended, in ISO 8601; empty if unknown.
        command: The command that trained the flow; "from Python" without one; empty if unknown.
        fingerprint: SHA-256 of the data, in hex; empty if unknown.
    """

    title: str
    data: list[tuple[str, str]]
    model: list[tuple[str, str]]
    training: list[tuple[str, str]]
    by_validation: bool = False
    trials: list[tuple[str, int, int, float, float, float]] = []
    finished_at: str = ""
    command: str = ""
    fingerprint: str = ""

    def held_out(self, name: str) -> str:
        """Returns which rows or images this report is about; `name` is such as "rows"."""
        if self.by_validation:
            return f"{name} for validation, which decided which epoch to keep"
        return f"{name} that the training never used"


class WorstRow(Part):
    """A test row, named as "line 17" or "row 16", with its values and its log-density in nats.

    Attributes:
        unusual: The column whose value is farthest from the mean of the training rows, the value,
            and its distance in standard deviations; None if unknown.
    """

    name: str
    values: list[float]
    log_prob: float
    unusual: tuple[str, float, float] | None = None


class WorstRows(Part):
    """Some test rows with their values.

    Attributes:
        columns: Names of the columns, with the context last; only the first few of many columns.
        left_out: Number of columns that are not shown.
    """

    columns: list[str]
    left_out: int
    rows: list[WorstRow]


class Latent(Part):
    """Latents of held-out rows: a histogram of all coordinates, compared with the base.

    With a base other than N(0, 1), each coordinate is first standardized with samples of the base.

    Attributes:
        normal: Density of the base in each bin.
        coordinates: Mean and standard deviation of each latent coordinate.
        beyond_four: Share of coordinates beyond 4 standard deviations.
        base_beyond_four: The same share for the base.
    """

    edges: list[float]
    density: list[float]
    normal: list[float]
    coordinates: list[tuple[float, float]]
    beyond_four: float
    base: str = "N(0, 1)"
    base_beyond_four: float = 6.3e-5


class ScoreDensities(Part):
    """Histograms of log_prob of the rows of a `Separation`."""

    edges: list[float]
    density_in: list[float]
    density_out: list[float]


class TableCharts(Part):
    """What only the page of a table draws, and result.json does not have.

    Attributes:
        worst_rows: The test rows with the lowest density.
        scores: Histograms for each of the separations.
        two_sample: The comparison of samples with held-out rows; None if it was not made.
        corner: Its columns, two at a time.
        calibration: The ranks of held-out rows among samples; None for a flow without a context.
        gains: What each layer gains; None if no Gaussian can be fitted.
        given: The first columns at three contexts; empty for a flow without a context.
    """

    worst_rows: WorstRows | None = None
    scores: list[ScoreDensities] = []
    latent: Latent
    two_sample: TwoSample | None = None
    corner: Corner | None = None
    calibration: Calibration | None = None
    gains: GainFigures | None = None
    given: list[GivenDensity] = []


class Report(Part, Generic[C]):
    """The content of a report: all figures, and what only its page draws.

    Attributes:
        curves: The lines of metrics.jsonl, one per epoch.
        best_epoch: The epoch whose weights were kept.
        charts: What only one kind of data has, such as `TableCharts`.
    """

    format: Literal[2] = 2
    about: About
    result: Result
    curves: list[dict[str, float | int | str | None]]
    best_epoch: int
    profile: ProfileQuantiles
    charts: C
