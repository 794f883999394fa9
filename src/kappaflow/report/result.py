"""`Result`: the figures of a run, which result.json, report.json, `--json` and the page have."""

from collections.abc import Sequence
from typing import Any, Literal

from kappaflow.conditioning import ProfileQuantiles
from kappaflow.diagnosis import Comparison
from kappaflow.finding import Finding
from kappaflow.flows import Flow, padding_in
from kappaflow.goodness import Level
from kappaflow.results import Part

TABLE = "table"


class Likelihood(Part):
    """Negative log-likelihood of held-out rows or images, in nats for each."""

    name: str  # name of the set of rows: "test", "test, rows on a point mass", ...
    rows: int  # number of rows or images
    nll: float  # mean, in the units of the data
    # Mean on standardized columns, for comparison; None for images
    nll_standardized: float | None = None
    standard_error: float  # standard error of the means
    # Quantiles by name, "median", "p95", ...: of the standardized NLL of rows, and of the bits per
    # dimension of images, or of their nats if there are no bits
    quantiles: dict[str, float]
    # Mean in bits per number of an image; None for rows and for flows that treat pixels as real
    # numbers
    bits_per_dimension: float | None = None
    bits_standard_error: float | None = None


class Weighted(Part):
    """Importance-weighted negative log-likelihood of held-out rows of a padded flow."""

    draws: int  # samples of the padding for each row
    rows: int
    nll: float  # mean in nats per row, in the units of the data
    nll_standardized: float  # mean on standardized columns
    standard_error: float  # standard error of both means, over the rows
    monte_carlo_error: float  # error of both means from the samples of the padding


class AddedPadding(Part):
    """Padding features added to each row; see `kappaflow.flows.padding.Padding`."""

    features: int
    description: str
    # Whether the NLL is an upper bound on average. If not, it belongs to the joint density of a
    # row and its padding, and is not a likelihood of the row.
    has_density: bool
    weighted: Weighted | None = None  # a tighter estimate of the NLL; None if there is none

    @classmethod
    def of(cls, flow: Flow, weighted: Weighted | None = None) -> "AddedPadding | None":
        """Returns the padding of a flow; None if it has none."""
        padding = padding_in(flow.augment)
        if padding is None:
            return None
        return cls(
            features=padding.features,
            description=padding.description,
            has_density=padding.has_density,
            weighted=weighted,
        )


class Separation(Part):
    """How well log_prob separates held-out rows like the training data from other rows."""

    name: str
    rows_in: int  # number of rows like the training data, which should score higher
    rows_out: int
    auc: float  # probability that a row like the training data scores above another row
    auc_standard_error: float  # standard error of the AUC (Hanley, McNeil 1982)


class MixedLikelihood(Part):
    """Negative log-likelihood of held-out rows of mixed columns, for their present values.

    Attributes:
        nll: Mean in nats per row: -log of a probability for labels and whole numbers, of a
            density in the units of the columns for other numbers.
        standard_error: Standard error of the mean, over the rows.
        monte_carlo_error: Its error from the draws of values that are not known exactly.
        labels_nll: Mean of the labels and counts alone, which `nll` includes.
        labels_p_value: Probability of so large a difference between samples and held-out rows in
            some column or pair of labels and counts by chance, corrected for their number; None
            if this was not tested.
        labels_worst: The column or pair that differs most.
        has_labels: Whether there are labels or counts.
        given: The columns of the context.
    """

    rows: int
    nll: float
    standard_error: float
    monte_carlo_error: float
    labels_nll: float
    labels_p_value: float | None = None
    labels_worst: list[str] = []
    has_labels: bool = True
    given: list[str] = []


class HeldOut(Part):
    """The likelihood of held-out data, and what it is compared with."""

    kind: str  # the kind of data: "table", "images", or one that you registered
    # Whether the NLL is exact, an upper bound on average, or that of the joint density of a row
    # and its padding, which is not a likelihood of the row
    likelihood: Literal["exact", "bound", "joint"]
    test: Likelihood  # the likelihood of all test rows
    parts: list[Likelihood] = []  # the likelihood of parts of them; often empty
    # Simple densities, compared with the flow row by row; may be empty
    references: list[Comparison] = []
    padding: AddedPadding | None = None
    # How well log_prob separates other kinds of rows; often empty
    separations: list[Separation] = []
    # The likelihood of all columns of a table of mixed ones, of which `test` has the numbers given
    # the labels; None for others
    mixed: MixedLikelihood | None = None

    @property
    def is_joint(self) -> bool:
        """Whether the NLL is that of rows with their padding, not a likelihood of the rows."""
        return self.likelihood == "joint"


class Conditioning(Part):
    """Condition number and reconstruction errors of a whole flow."""

    condition_number_median: float
    condition_number_p95: float
    # At how many rows the condition number was measured; for a training with a budget they are the
    # test rows
    condition_rows: int
    # The condition budget of the training: the most that the 95 % quantile should be, if there was
    # one
    condition_budget: float | None = None
    worst_layer: str
    round_trip_data: float  # largest error from data to latent to data
    round_trip_latent: float

    @classmethod
    def at(cls, profile: ProfileQuantiles) -> "Conditioning":
        """Returns the figures of a profile."""
        return cls(
            condition_number_median=profile.condition_number.median[-1],
            condition_number_p95=profile.condition_number.p95[-1],
            condition_rows=profile.points,
            worst_layer=profile.layers[profile.worst_layer],
            round_trip_data=profile.round_trip_data.max[0],
            round_trip_latent=profile.round_trip_latent.max[-1],
        )


class Course(Part):
    """How long a training took, and why it ended."""

    epochs: int = 0
    stopped_because: str = ""
    time_s: float = 0.0
    skipped_steps: int = 0


class Result(HeldOut, Conditioning, Course):
    """All figures of a run. One that is added here appears in each file and on the page."""

    level: Level = "care"  # "good", "care" or "bad": whether to use the flow, as `Diagnosis.level`
    ok: bool  # whether there is no error among the findings
    verdict: str
    findings: list[Finding]
    # Warnings about the data, and repairs or dropped rows, one sentence each
    notes: list[str] = []


def figures_of(result: Result) -> list[tuple[str, str | float | None]]:
    """Returns the name and the value of each figure, such as ("test nll", 9.3)."""
    return [*_flat(result.model_dump(exclude={"level", "verdict", "findings", "notes"}))]


def _flat(value: Any, name: str = "") -> Sequence[tuple[str, Any]]:
    """Returns names and values of nested figures; those of a list are numbered."""
    if isinstance(value, list):
        value = {str(number): item for number, item in enumerate(value, start=1)}
    if not isinstance(value, dict):
        return [(name, value)]
    parts = (_flat(item, f"{name} {key.replace('_', ' ')}".strip()) for key, item in value.items())
    return [pair for part in parts for pair in part]
