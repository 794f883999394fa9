"""What a report says, as plain numbers: the page and the JSON file are two views of it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    """A frozen part of a report; unknown keys are errors, nan and infinity are written as such."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class About(_Part):
    """What was trained on what.

    Attributes:
        title: A short name: the data set and the model.
        data: Facts on the data, (label, value): source, rows, columns, split.
        model: Facts on the model: recipe, depth, partition, parameters.
        training: Facts on the training: epochs, time, why it stopped, settings, versions.
        notes: Warnings about the data, and what was repaired or dropped, one sentence each.
    """

    title: str
    data: list[tuple[str, str]]
    model: list[tuple[str, str]]
    training: list[tuple[str, str]]
    notes: list[str]


class Likelihood(_Part):
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


class Separation(_Part):
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


class Marginal(_Part):
    """One column, data against samples: densities over common bins, in the units of the data."""

    column: str
    edges: list[float]
    data: list[float]
    samples: list[float]


class Pairs(_Part):
    """Some columns against each other: rows of held-out data and as many samples."""

    columns: list[str]
    data: list[list[float]]
    samples: list[list[float]]


class Latent(_Part):
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


class FindingView(_Part):
    """A finding of the doctor; see `kappaflow.Finding`."""

    code: str
    severity: Literal["error", "warning", "note"]
    layer: str | None
    message: str
    cause: str
    cure: str
    evidence: dict[str, float | int | str | None]


class Report(_Part):
    """Everything on the page.

    Attributes:
        about: What was trained on what.
        curves: The lines of metrics.jsonl, one an epoch: epoch, train_nll_standardised,
            validation_nll_standardised, validation_nll_p95/_p99/_max,
            condition_number_median/_p95, round_trip_data, round_trip_latent, learning_rate,
            time_s, memory_bytes, skipped_steps. NLL on standardised columns.
        best_epoch: The epoch whose weights were kept.
        likelihoods: Held-out likelihood, on all test rows and on parts of them.
        gaussian_nll: The test rows under a Gaussian fitted to the training rows, in input units.
        gaussian_nll_standardised: The same on standardised columns.
        separations: Where another kind of rows was scored too; often empty.
        marginals: Data against samples, a column each.
        pairs: Data against samples, two columns at a time.
        profile: `kappaflow.Profile.to_dict()` on held-out rows: conditioning over depth.
        latent: Held-out data in the latent.
        verdict: The doctor in words.
        ok: Whether the doctor found no error.
        findings: The doctor's findings.
    """

    about: About
    curves: list[dict[str, float | int | None]]
    best_epoch: int
    likelihoods: list[Likelihood]
    gaussian_nll: float
    gaussian_nll_standardised: float
    separations: list[Separation]
    marginals: list[Marginal]
    pairs: Pairs
    profile: dict[str, Any]
    latent: Latent
    verdict: str
    ok: bool
    findings: list[FindingView]
