"""What result.json says beyond the training, from the report on the flow."""

from typing import Any

import numpy as np

from kappaflow.report import ImageReport, Report
from kappaflow.runs.job import Tables
from kappaflow.training import FitResult, log_prob_of, rows_of

PERCENTILES = 1000  # steps of the stored distribution of training scores


def judged(result: FitResult, report: Report, tables: Tables) -> dict[str, Any]:
    """Returns the likelihood on held-out rows, the conditioning, and the training rows' scores."""
    whole = report.likelihoods[0]
    rest = {part.name: part.nll_standardised for part in report.likelihoods[1:]}
    flow = result.flow
    scores = log_prob_of(flow, rows_of(tables.train, flow))
    with np.errstate(invalid="ignore"):  # between infinities there is no number
        quantiles = np.quantile(scores.numpy(), np.linspace(0, 1, PERCENTILES + 1))
    mixture = next((one for one in report.references if one.kind == "Gaussian mixture"), None)
    exact = flow.likelihood == "exact"
    separation = report.separations[0] if report.separations else None
    weighted = None if report.padding is None else report.padding.weighted
    return {
        "test_nll": whole.nll,
        "test_nll_standardised": whole.nll_standardised,
        "test_nll_standard_error": whole.standard_error,
        "test_nll_standardised_by_part": rest,
        "test_rows": whole.rows,
        "likelihood": "bound" if tables.widths and exact else flow.likelihood,
        "weighted_nll_standardised": None if weighted is None else weighted.nll_standardised,
        "weighted_monte_carlo_error": None if weighted is None else weighted.monte_carlo_error,
        "gaussian_nll_standardised": report.gaussian_nll_standardised,
        "mixture_nll_standardised": None if mixture is None else mixture.nll_standardised,
        "mixture_components": None if mixture is None else mixture.components,
        "references": [one.model_dump() for one in report.references],
        **judged_alone(report),
        "auc": None if separation is None else separation.auc,
        "auc_standard_error": None if separation is None else separation.auc_standard_error,
        "train_log_prob_quantiles": quantiles.tolist(),
    }


def judged_alone(report: Report | ImageReport) -> dict[str, Any]:
    """Returns what needs no rows of the run: the conditioning, and what the doctor says."""
    kappa = report.profile.condition_number
    condition = {
        "condition_number_median": kappa.median[-1],
        "condition_number_p95": kappa.p95[-1],
    }
    budget = report.budget if isinstance(report, Report) else None
    if budget is not None:  # from more rows
        condition = {
            "condition_number_median": budget.median,
            "condition_number_p95": budget.p95,
            "condition_budget": budget.asked,
            "condition_rows": budget.rows,
        }
    return {
        **condition,
        "worst_layer": report.profile.layers[report.profile.worst_layer],
        "round_trip_data": report.profile.round_trip_data.max[0],
        "round_trip_latent": report.profile.round_trip_latent.max[-1],
        "ok": report.ok,
        "verdict": report.verdict,
    }
