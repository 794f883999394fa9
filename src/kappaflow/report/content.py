"""Data model of a report on a table, from which report.json and the page are written."""

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from kappaflow.conditioning import ProfileQuantiles
from kappaflow.diagnosis import Comparison
from kappaflow.finding import Finding
from kappaflow.results import Part


class About(Part):
    """The data, the model and its training.

    Attributes:
        data: Facts about the data, (label, value): source, rows, columns, split.
        model: Facts about the model: recipe, depth, partition, parameters.
        training: Facts about the training: epochs, time, reason for stopping, settings, versions.
        notes: Warnings about the data, and repairs or dropped rows, one sentence each.
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
    notes: list[str]
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


class Likelihood(Part):
    """Negative log-likelihood of held-out rows, in nats per row.

    Attributes:
        name: Name of the set of rows: "test", "test, rows on a point mass", ...
        nll: Mean, in the units of the data.
        nll_standardized: Mean on standardized columns, for comparison.
        standard_error: Standard error of both means.
        quantiles: Quantiles of the standardized NLL by name: "median", "p95", "p99", "max".
    """

    name: str
    rows: int
    nll: float
    nll_standardized: float
    standard_error: float
    quantiles: dict[str, float]


class Weighted(Part):
    """Importance-weighted negative log-likelihood of held-out rows of a padded flow.

    Attributes:
        draws: Samples of the padding for each row.
        nll: Mean in nats per row, in the units of the data.
        nll_standardized: Mean on standardized columns.
        standard_error: Standard error of both means, over the rows.
        monte_carlo_error: Error of both means from the samples of the padding.
    """

    draws: int
    rows: int
    nll: float
    nll_standardized: float
    standard_error: float
    monte_carlo_error: float


class PaddingView(Part):
    """Padding features added to each row; see `kappaflow.flows.padding.Padding`.

    Attributes:
        has_density: Whether the NLL of the report is an upper bound on average. If not, it belongs
            to the joint density of a row and its padding, and is not a likelihood of the row.
        weighted: A tighter estimate of the NLL; None if there is no likelihood.
    """

    features: int
    description: str
    has_density: bool
    weighted: Weighted | None


class Separation(Part):
    """How well log_prob separates held-out rows like the training data from other rows.

    Attributes:
        rows_in: Number of rows like the training data, which should score higher.
        auc: Probability that a row like the training data scores above another row.
        auc_standard_error: Standard error of the AUC (Hanley, McNeil 1982).
    """

    name: str
    rows_in: int
    rows_out: int
    auc: float
    auc_standard_error: float
    edges: list[float]
    density_in: list[float]
    density_out: list[float]


class RowView(Part):
    """A test row, named as "line 17" or "row 16", with its values and its log-density in nats.

    Attributes:
        unusual: The column whose value is farthest from the mean of the training rows, the value,
            and its distance in standard deviations; None if unknown.
    """

    name: str
    values: list[float]
    log_prob: float
    unusual: tuple[str, float, float] | None = None


class RowsView(Part):
    """Some test rows with their values.

    Attributes:
        columns: Names of the columns, with the context last; only the first few of many columns.
        left_out: Number of columns that are not shown.
    """

    columns: list[str]
    left_out: int
    rows: list[RowView]

    @model_validator(mode="after")
    def _fits_its_columns(self) -> "RowsView":
        """Returns itself if each row has one value per column."""
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise PydanticCustomError(
                    "length",
                    "{name} should hold {count} values, one per column, got {got}",
                    {"name": row.name, "count": len(self.columns), "got": len(row.values)},
                )
        return self


class Marginal(Part):
    """Histograms of one column for held-out data and samples, in the units of the data."""

    column: str
    edges: list[float]
    data: list[float]
    samples: list[float]


class Correlations(Part):
    """Rank correlations (Spearman) of pairs of columns, among held-out rows and among samples.

    Attributes:
        columns: Names of the columns, with the context last; of many columns, those whose
            correlations differ most.
        left_out: Number of columns that are not shown.
        rows: Number of rows, and at most of samples.
        data: For each column, its correlations with those before it among the held-out rows.
        samples: The same among the samples.
    """

    columns: list[str]
    left_out: int
    rows: int
    data: list[list[float]]
    samples: list[list[float]]

    @model_validator(mode="after")
    def _is_triangular(self) -> "Correlations":
        """Returns itself if each column has one correlation with each column before it."""
        for values in (self.data, self.samples):
            if [len(row) for row in values] != list(range(len(self.columns))):
                raise PydanticCustomError(
                    "length", "each column should have one correlation per column before it"
                )
        return self


class Pairs(Part):
    """Rows of held-out data and the same number of samples, with the context last."""

    columns: list[str]
    data: list[list[float]]
    samples: list[list[float]]


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


class Budget(Part):
    """The condition budget of a training, and the condition numbers that the flow reached.

    The 95 % quantile should be at most `limit`. Median and quantile are over `rows` held-out rows,
    without the standardization.
    """

    limit: float
    median: float
    p95: float
    rows: int


class Report(Part):
    """The content of a report on a table.

    Attributes:
        curves: The lines of metrics.jsonl, one per epoch: epoch, train_nll_standardized,
            validation_nll_standardized, validation_nll_p95/_p99/_max,
            condition_number_median/_p95, round_trip_data, round_trip_latent, learning_rate,
            time_s, memory_bytes, skipped_steps. NLL on standardized columns.
        best_epoch: The epoch whose weights were kept.
        likelihoods: Held-out likelihood, of all test rows and of parts of them.
        gaussian_nll: NLL of the test rows under a Gaussian fitted to the training rows, in the
            units of the data.
        gaussian_nll_standardized: The same on standardized columns.
        references: A Gaussian and a Gaussian mixture, compared with the flow row by row; may be
            empty.
        separations: How well log_prob separates other kinds of rows; often empty.
        marginals: Histograms of data and samples, one per column.
        correlations: Correlations among data and samples; None if there is no pair of columns,
            or in reports of earlier versions.
        pairs: Data and samples for scatter plots of two columns at a time.
    """

    about: About
    curves: list[dict[str, float | int | None]]
    best_epoch: int
    likelihoods: list[Likelihood]
    padding: PaddingView | None = None
    gaussian_nll: float
    gaussian_nll_standardized: float
    references: list[Comparison] = Field(default_factory=list)
    worst_rows: RowsView | None = None
    separations: list[Separation]
    marginals: list[Marginal]
    correlations: Correlations | None = None
    pairs: Pairs
    profile: ProfileQuantiles
    budget: Budget | None = None
    latent: Latent
    verdict: str
    ok: bool
    findings: list[Finding]

    @property
    def is_joint(self) -> bool:
        """Whether the NLL is that of rows with their padding, not a likelihood of the rows."""
        return self.padding is not None and not self.padding.has_density
