"""Evaluates a trained flow on held-out data: content of the report, diagnosis and metrics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kappaflow.conditioning import Profile, profile
from kappaflow.data.table import describe_values
from kappaflow.diagnosis import Diagnosis, diagnose_flow, with_findings
from kappaflow.flows import Flow
from kappaflow.report import (
    About,
    AnyReport,
    ImageReport,
    Report,
    store_report,
)
from kappaflow.results import to_plain
from kappaflow.runs.image_content import image_content, points_of
from kappaflow.runs.image_data import ImageData
from kappaflow.runs.image_samples import BEST, write_sheet
from kappaflow.runs.ranges import training_ranges
from kappaflow.runs.stored import RunData
from kappaflow.runs.table_content import table_content
from kappaflow.storage import write_bytes
from kappaflow.training import (
    FitResult,
    batch_of,
    log_prob_of,
    read_result,
    write_result,
)

DIAGNOSIS = "diagnosis.json"
POINTS = 64  # rows at which conditioning is profiled
PERCENTILES = 1000  # steps of the stored distribution of training scores


@dataclass(frozen=True)
class Evaluation:
    """The report, the doctor's diagnosis, and the entries that evaluation adds to result.json."""

    report: AnyReport
    diagnosis: Diagnosis
    metrics: dict[str, Any]


def evaluate(
    result: FitResult, data: RunData, about: About, budget: float | None = None
) -> Evaluation:
    """Returns the evaluation of a trained flow on the test rows or images of a run.

    A flow of tables is moved to the CPU. `budget` is the condition budget of the training, if any.
    """
    report, diagnosis = report_on(result, data, about, budget)
    return Evaluation(report, diagnosis, metrics(report, result.flow, data))


def report_on(
    result: FitResult, data: RunData, about: About, budget: float | None = None
) -> tuple[AnyReport, Diagnosis]:
    """Returns the report and the diagnosis of an evaluation."""
    flow = result.flow
    if isinstance(data, ImageData):
        kind, test = ImageReport, data.test.batches(flow)
        nll, few = -log_prob_of(flow, test), test.at(slice(0, points_of(flow)))
        diagnosis = diagnose_flow(flow, few.x, few.context)
        content, findings = image_content(result, nll, data)
    else:
        flow.cpu()
        kind, table, rows = Report, data.test, batch_of(data.test, flow)
        nll, few = -log_prob_of(flow, rows), rows.at(slice(0, POINTS))
        diagnosis = diagnose_flow(
            flow, rows.x, rows.context, names=lambda i: describe_values(table, i)
        )
        content, findings = table_content(result, nll, data, rows, budget)
    depth = diagnosis.profile or profile(flow, few.x, context=few.context)
    diagnosis = with_findings(diagnosis, *findings)
    report = kind(
        about=about,
        best_epoch=result.best_epoch,
        **diagnosis_fields(diagnosis, depth),
        **content,
    )
    return report, diagnosis


def diagnosis_fields(diagnosis: Diagnosis, depth: Profile) -> dict[str, Any]:
    """Returns the fields of a report that a diagnosis and a profile determine."""
    return {
        "profile": depth.quantiles(),
        "verdict": diagnosis.verdict,
        "ok": diagnosis.ok,
        "findings": list(diagnosis.findings),
    }


def write_evaluation(evaluation: Evaluation, flow: Flow, data: RunData, folder: Path) -> None:
    """Writes diagnosis, report and metrics to a run folder, which completes the run.

    For images, a grid of samples of the flow is written too.
    """
    if isinstance(data, ImageData):
        write_sheet(flow, data.classes, folder, BEST)
    write_bytes(folder / DIAGNOSIS, evaluation.diagnosis.to_json().encode())
    store_report(evaluation.report, folder)
    write_result(folder, read_result(folder) | evaluation.metrics)


def metrics(report: AnyReport, flow: Flow, data: RunData) -> dict[str, Any]:
    """Returns the entries that evaluation adds to result.json.

    These are held-out likelihood, conditioning, verdict, and of the training rows the quantiles of
    log_prob and the range of each column.
    """
    scores = log_prob_of(flow, data.train.batches(flow))
    with np.errstate(invalid="ignore"):  # nan between infinities
        quantiles = np.quantile(scores.numpy(), np.linspace(0, 1, PERCENTILES + 1))
    if isinstance(report, Report):
        likelihood = _table_metrics(report)
        rounded = not isinstance(data, ImageData) and bool(data.widths)
        kind = "bound" if rounded and flow.likelihood == "exact" else flow.likelihood
    else:
        likelihood, kind = _image_metrics(report), flow.likelihood
    return {
        **likelihood,
        "likelihood": kind,
        **metrics_without_data(report),
        "train_log_prob_quantiles": quantiles.tolist(),
        **({} if isinstance(data, ImageData) else {"training_ranges": training_ranges(data)}),
    }


def _table_metrics(report: Report) -> dict[str, Any]:
    """Returns the metrics of test rows: likelihood, reference densities and AUC."""
    whole = report.likelihoods[0]
    mixture = next((one for one in report.references if one.kind == "Gaussian mixture"), None)
    separation = report.separations[0] if report.separations else None
    weighted = None if report.padding is None else report.padding.weighted
    return {
        "test_nll": whole.nll,
        "test_nll_standardized": whole.nll_standardized,
        "test_nll_standard_error": whole.standard_error,
        "test_nll_standardized_by_part": {
            part.name: part.nll_standardized for part in report.likelihoods[1:]
        },
        "test_rows": whole.rows,
        "weighted_nll_standardized": None if weighted is None else weighted.nll_standardized,
        "weighted_monte_carlo_error": None if weighted is None else weighted.monte_carlo_error,
        "gaussian_nll_standardized": report.gaussian_nll_standardized,
        "mixture_nll_standardized": None if mixture is None else mixture.nll_standardized,
        "mixture_components": None if mixture is None else mixture.components,
        "references": to_plain(report)["references"],
        "auc": None if separation is None else separation.auc,
        "auc_standard_error": None if separation is None else separation.auc_standard_error,
    }


def _image_metrics(report: ImageReport) -> dict[str, Any]:
    """Returns the metrics of test images: likelihood and bits per dimension."""
    whole = report.likelihood
    return {
        "test_bits_per_dimension": whole.bits_per_dimension,
        "test_bits_per_dimension_standard_error": whole.bits_standard_error,
        "independent_bits_per_dimension": whole.independent_bits,
        "independent_bits_standard_error": whole.independent_standard_error,
        "test_nll": whole.nll,
        "test_nll_standard_error": whole.standard_error,
        "test_images": whole.images,
    }


def metrics_without_data(report: AnyReport) -> dict[str, Any]:
    """Returns the metrics that the report alone determines: conditioning, findings and notes."""
    kappa = report.profile.condition_number
    condition = {
        "condition_number_median": kappa.median[-1],
        "condition_number_p95": kappa.p95[-1],
    }
    budget = report.budget if isinstance(report, Report) else None
    if budget is not None:  # measured at more rows
        condition = {
            "condition_number_median": budget.median,
            "condition_number_p95": budget.p95,
            "condition_budget": budget.limit,
            "condition_rows": budget.rows,
        }
    return {
        **condition,
        "worst_layer": report.profile.layers[report.profile.worst_layer],
        "round_trip_data": report.profile.round_trip_data.max[0],
        "round_trip_latent": report.profile.round_trip_latent.max[-1],
        "ok": report.ok,
        "verdict": report.verdict,
        "findings": to_plain(report)["findings"],
        "notes": report.about.notes,
    }
