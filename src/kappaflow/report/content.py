"""What a report says, as plain numbers: the page and the JSON file are two views of it."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic_core import PydanticCustomError


class Part(BaseModel):
    """A frozen part of a report; unknown keys are errors, nan and infinity are written as such."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class About(Part):
    """What was trained on what.

    Attributes:
        title: A short name: the data set and the model.
        data: Facts on the data, (label, value): source, rows, columns, split.
        model: Facts on the model: recipe, depth, partition, parameters.
        training: Facts on the training: epochs, time, why it stopped, settings, versions.
        notes: Warnings about the data, and what was repaired or dropped, one sentence each.
        trials: The models that raced in a search, the best first: each its name, round, steps,
            validation nats on standardized columns, and difference to the best with its error.
    """

    title: str
    data: list[tuple[str, str]]
    model: list[tuple[str, str]]
    training: list[tuple[str, str]]
    notes: list[str]
    trials: list[tuple[str, int, int, float, float, float]] = []


class Likelihood(Part):
    """Held-out negative log-likelihood on some rows, in nats a row.

    Attributes:
        name: Which rows: "test", "test without atoms", ...
        rows: How many.
        nll: Mean, in the units of the data as given.
        nll_standardised: Mean, on standardised columns (for comparing).
        standard_error: Of both means.
        quantiles: Of the standardised NLL by name: "median", "p95", "p99", "max".
    """

    name: str
    rows: int
    nll: float
    nll_standardised: float
    standard_error: float
    quantiles: dict[str, float]


class ReferenceView(Part):
    """A simple density fitted to the training rows, beside the flow on the same held-out rows.

    Attributes:
        name: Which density, as part of a sentence.
        kind: "Gaussian" or "Gaussian mixture".
        components: How many Gaussians it is made of, chosen by the BIC.
        conditional: Whether it is a density given a context: of the residuals of a regression.
        rows: How many held-out rows.
        nll: Mean negative log-likelihood, in nats a row, in the units of the data as given.
        nll_standardised: The same on standardised columns.
        difference: Mean over the rows of the flow's NLL minus this one's; below 0 the flow is
            better.
        standard_error: Of the difference, from the paired differences.
    """

    name: str
    kind: Literal["Gaussian", "Gaussian mixture"]
    components: int
    conditional: bool
    rows: int
    nll: float
    nll_standardised: float
    difference: float
    standard_error: float


class Weighted(Part):
    """Importance-weighted negative log-likelihood of held-out rows of a padded flow.

    Attributes:
        draws: How often the padding was drawn for each row.
        rows: How many rows.
        nll: Mean, in nats a row, in the units of the data as given.
        nll_standardised: Mean, on standardised columns.
        standard_error: Of both means, over the rows.
        monte_carlo_error: Of both means, over the draws of the padding.
    """

    draws: int
    rows: int
    nll: float
    nll_standardised: float
    standard_error: float
    monte_carlo_error: float


class PaddingView(Part):
    """The features that stand beside each point, see `kappaflow.flows.pad.Padding`.

    Attributes:
        features: How many.
        in_words: What they hold.
        has_density: Whether the NLL of the report is a bound in the mean; if not it is that of
            the joint density of a row and its padding, and no likelihood of the row.
        weighted: A nearer estimate of the NLL, where there is a likelihood.
    """

    features: int
    in_words: str
    has_density: bool
    weighted: Weighted | None


class Separation(Part):
    """How well log_prob tells held-out rows like the training data from others.

    Attributes:
        name: What is compared with what.
        rows_in: Rows of the first kind, which should score higher.
        rows_out: Rows of the second kind.
        auc: Probability that one of the first scores above one of the second.
        auc_standard_error: Of the AUC (Hanley, McNeil 1982).
        edges: Edges of the bins of log_prob, both kinds.
        density_in: Density of the first kind in each bin.
        density_out: Density of the second.
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
    """One test row.

    Attributes:
        name: Where it is in the source: "line 17" or "row 16".
        values: Its values, in the order of the columns of the table of rows.
        log_prob: Its log-density, in nats, in the units of the data as given.
    """

    name: str
    values: list[float]
    log_prob: float


class RowsView(Part):
    """Some test rows with their values.

    Attributes:
        columns: The names of the columns, of context last; the first few of many.
        left_out: How many columns are not shown.
        rows: The rows, the least likely first.
    """

    columns: list[str]
    left_out: int
    rows: list[RowView]


class Marginal(Part):
    """One column, data against samples: densities over common bins, in the units of the data."""

    column: str
    edges: list[float]
    data: list[float]
    samples: list[float]


class Pairs(Part):
    """Some columns against each other: rows of held-out data and as many samples."""

    columns: list[str]
    data: list[list[float]]
    samples: list[list[float]]


class Latent(Part):
    """Held-out data carried to the latent: all coordinates pooled, over bins, beside N(0, 1).

    Attributes:
        edges: Edges of the bins.
        density: Density in each bin.
        normal: Density of N(0, 1) in each bin.
        coordinates: Mean and standard deviation of each latent coordinate.
        beyond_four: Share of coordinates beyond 4 standard deviations; a Gaussian has 6.3e-5.
    """

    edges: list[float]
    density: list[float]
    normal: list[float]
    coordinates: list[tuple[float, float]]
    beyond_four: float


class Quantiles(Part):
    """A quantity over depth: quantiles over the points, a number for each layer."""

    min: list[float]
    p05: list[float]
    median: list[float]
    p95: list[float]
    max: list[float]

    @property
    def band(self) -> tuple[list[float], list[float], list[float]]:
        """The middle 90 % of the points: 5 %, median, 95 %."""
        return self.p05, self.median, self.p95


class Spread(Part):
    """A quantity of the whole flow: quantiles over the points."""

    min: float
    p05: float
    median: float
    p95: float
    max: float


class ProfileView(Part):
    """Conditioning over the L layers of a flow; see `kappaflow.Profile`, whose `to_dict` fills it.

    "Layer" is one layer alone, the others are everything up to it.

    Attributes:
        layers: Names of the layers, data side first; at least one.
        points: How many points were measured.
        eps: Spacing of the flow's floating-point type.
        status: How the singular values were found.
        worst_layer: Index of the layer whose own condition number is largest.
        predicted_round_trip: What rounding alone explains, of the whole flow.
        layer_condition_number: A pure number, as all condition numbers are.
        layer_sigma_max: Latent units per data unit, as all singular values are.
        layer_sigma_min: The smallest stretch of each layer.
        layer_log_det: In nats.
        layer_round_trip: In standardised units, as all round trips are.
        condition_number: The last one is that of the whole flow.
        sigma_max: The largest stretch from the data on.
        sigma_min: The smallest stretch from the data on.
        log_det: In nats.
        round_trip_data: The first one is that of the whole flow.
        round_trip_latent: The last one is that of the whole flow.
    """

    layers: Annotated[list[str], Field(min_length=1)]
    points: int
    eps: float
    status: Literal["exact", "converged", "not converged", "not finite"]
    worst_layer: int
    predicted_round_trip: Spread
    layer_condition_number: Quantiles
    layer_sigma_max: Quantiles
    layer_sigma_min: Quantiles
    layer_log_det: Quantiles
    layer_round_trip: Quantiles
    condition_number: Quantiles
    sigma_max: Quantiles
    sigma_min: Quantiles
    log_det: Quantiles
    round_trip_data: Quantiles
    round_trip_latent: Quantiles

    @model_validator(mode="after")
    def _fits_its_layers(self) -> "ProfileView":
        """Returns itself, if each list has a number a layer and the worst layer is one of them."""
        count = len(self.layers)
        for name, values in self._lists():
            if len(values) != count:
                raise PydanticCustomError(
                    "length",
                    "{name} should hold {count} numbers, one a layer, got {got}",
                    {"name": name, "count": count, "got": len(values)},
                )
        if not 0 <= self.worst_layer < count:
            raise PydanticCustomError(
                "index",
                "worst_layer should be from 0 to {last}, got {got}",
                {"last": count - 1, "got": self.worst_layer},
            )
        return self

    def _lists(self) -> Iterator[tuple[str, list[float]]]:
        for name, quantity in self:
            if isinstance(quantity, Quantiles):
                for quantile, values in quantity:
                    yield f"{name}.{quantile}", values


def _tagged(value: object) -> object:
    """Returns a number that JSON lacks as {"number": "NaN"}: "NaN" alone is a text."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return {"number": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}


def _untagged(value: object) -> object:
    """Returns the number that `_tagged` wrote, and anything else as it is."""
    return next((n for n in _NOT_FINITE if value == _tagged(n)), value)


_NOT_FINITE = (math.nan, math.inf, -math.inf)

# Strict, so that a text of digits stays a text.
Evidence = Annotated[
    StrictInt | StrictFloat | StrictStr | None,
    BeforeValidator(_untagged),
    PlainSerializer(_tagged, when_used="json"),
]


class FindingView(Part):
    """A finding of the doctor; see `kappaflow.Finding`."""

    code: str
    severity: Literal["error", "warning", "note"]
    layer: str | None
    message: str
    cause: str
    cure: str
    evidence: dict[str, Evidence]


class Budget(Part):
    """A condition number that was asked for.

    Attributes:
        asked: What the 95 % quantile was to stay within.
        median: Over held-out rows, from the standardised columns on.
        p95: The same.
        rows: How many.
    """

    asked: float
    median: float
    p95: float
    rows: int


class Report(Part):
    """Everything on the page.

    Attributes:
        about: What was trained on what.
        curves: The lines of metrics.jsonl, one an epoch: epoch, train_nll_standardised,
            validation_nll_standardised, validation_nll_p95/_p99/_max,
            condition_number_median/_p95, round_trip_data, round_trip_latent, learning_rate,
            time_s, memory_bytes, skipped_steps. NLL on standardised columns.
        best_epoch: The epoch whose weights were kept.
        likelihoods: Held-out likelihood, on all test rows and on parts of them.
        padding: What stands beside each row, and what that makes of the likelihoods; None for
            nothing.
        gaussian_nll: The test rows under a Gaussian fitted to the training rows, in input units.
        gaussian_nll_standardised: The same on standardised columns.
        references: A Gaussian and a Gaussian mixture, compared with the flow row by row; empty
            where no such density exists, or in a report of an earlier version.
        worst_rows: The test rows with the lowest density; None in a report of an earlier version.
        separations: Where another kind of rows was scored too; often empty.
        marginals: Data against samples, a column each.
        pairs: Data against samples, two columns at a time.
        profile: Conditioning over depth, on held-out rows; `kappaflow.Profile.to_dict()` fills it.
        budget: The condition number that was asked for; None where none was.
        latent: Held-out data in the latent.
        verdict: The doctor in words.
        ok: Whether the doctor found no error.
        findings: The doctor's findings.
    """

    about: About
    curves: list[dict[str, float | int | None]]
    best_epoch: int
    likelihoods: list[Likelihood]
    padding: PaddingView | None = None
    gaussian_nll: float
    gaussian_nll_standardised: float
    references: list[ReferenceView] = Field(default_factory=list)
    worst_rows: RowsView | None = None
    separations: list[Separation]
    marginals: list[Marginal]
    pairs: Pairs
    profile: ProfileView
    budget: Budget | None = None
    latent: Latent
    verdict: str
    ok: bool
    findings: list[FindingView]

    @property
    def is_joint(self) -> bool:
        """Whether the NLL is that of rows and their padding, and no likelihood of the rows."""
        return self.padding is not None and not self.padding.has_density
