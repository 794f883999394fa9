"""The content of a report on a table that training does not provide."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kappaflow.conditioning import Profile
from kappaflow.conditioning.points import joined_points
from kappaflow.conditioning.round_trip import latent_points
from kappaflow.conditioning.spectrum import MATRIX_FREE_ABOVE
from kappaflow.data import Table, atom_rows
from kappaflow.data.naming import describe_rows, describe_values
from kappaflow.diagnosis import Comparison, compare, depth_gains, diagnose_flow, references
from kappaflow.diagnosis.depth_gains import GainFigures
from kappaflow.errors import ArgumentError
from kappaflow.flows import (
    Base,
    Flow,
    NormalMixture,
    StandardNormal,
    importance_weighted_log_prob,
    padding_in,
)
from kappaflow.flows.mixture_fit import sample_of
from kappaflow.flows.standardization import standardization_log_det
from kappaflow.goodness import Goodness
from kappaflow.goodness.given import GivenDensity, given_densities
from kappaflow.goodness.goodness import Match, matcher
from kappaflow.goodness.inputs import Inputs
from kappaflow.report.content import Latent, ScoreDensities, TableCharts, WorstRow, WorstRows
from kappaflow.report.result import TABLE, AddedPadding, HeldOut, Likelihood, Separation, Weighted
from kappaflow.runs.content import Content
from kappaflow.training import (
    Batch,
    FitResult,
    batch_of,
    condition_at_test_rows,
    log_prob_of,
    quantile,
)
from kappaflow.training.measure import mean, standard_error

if TYPE_CHECKING:
    from kappaflow.runs.table_data import TableData

BINS = 40
POINTS = 64  # rows at which conditioning is profiled
PICTURED_ROWS = 20_000  # at most as many for a table with weights, if it has no more rows
BASE_SAMPLES = 20_000  # that latents are compared with, if the base is not N(0, 1)
WORST_ROWS, WORST_COLUMNS = 10, 12
PADDING_SAMPLES = 64  # of the padding, for each row
WEIGHTED_ROWS = 2000  # at most
GAIN_ROWS, FITTED_ROWS = 1_000, 5_000  # held-out and training rows that gains are measured at


def table_content(result: FitResult, data: "TableData", budget: float | None) -> Content:
    """Returns what is measured of a flow on the test rows of a table. It is moved to the CPU.

    A Gaussian and a Gaussian mixture are fitted to the training rows, and compared with the flow.
    """
    flow, shown = result.flow.cpu(), in_proportion(data.test)
    test = batch_of(data.test, flow)
    pictured = test if shown is data.test else batch_of(shown, flow)
    nll, few = -log_prob_of(flow, test), test.at(slice(0, POINTS))
    padding, weighted = added_padding(flow, test)
    separation, exact = separation_of(flow, nll, data), flow.likelihood == "exact"
    likelihood, *parts = _likelihoods(flow, nll, data)
    diagnosis = diagnose_flow(
        flow,
        test.x,
        test.context,
        names=lambda i: describe_values(data.test, i),
        match=table_matcher(flow, data.test, data.train),
        weights=data.test.weights,
    )
    return Content(
        held_out=HeldOut(
            kind=TABLE,
            likelihood="bound" if data.test.grids and exact else flow.likelihood,
            test=likelihood,
            parts=parts,
            references=comparisons_on(flow, data, (nll if weighted is None else weighted).numpy()),
            padding=padding,
            separations=[separation[0]] if separation else [],
        ),
        charts=TableCharts(
            worst_rows=worst_rows(data, nll),
            scores=[separation[1]] if separation else [],
            latent=latent_of(flow, pictured),
            gains=_gains(flow, test, batch_of(data.train, flow), diagnosis.profile),
            given=_given(flow, data.test, test),
            **_compared(diagnosis.goodness),
        ),
        diagnosis=diagnosis,
        points=few,
        condition={} if budget is None else _budget(flow, test, budget),
    )


def _compared(goodness: Goodness | None) -> dict[str, Any]:
    """Returns the charts of the comparison of samples with held-out rows."""
    if goodness is None:
        return {}
    result = goodness.two_sample
    return {"two_sample": result, "corner": result.corner, "calibration": goodness.calibration}


def _gains(flow: Flow, test: Batch, train: Batch, profile: Profile | None) -> GainFigures | None:
    """Returns what each layer gains, at the first rows.

    None if no Gaussian can be fitted, or if there are so many columns that it would take long.
    """
    if test.x[0].numel() > MATRIX_FREE_ABOVE:
        return None
    rows, fitted = test.at(slice(0, GAIN_ROWS)), train.at(slice(0, FITTED_ROWS))
    try:
        gains = depth_gains(
            flow,
            rows.x,
            context=rows.context,
            weights=rows.weights,
            train=(fitted.x, fitted.context),
            train_weights=fitted.weights,
            profile=profile,
        )
    except ArgumentError:
        return None
    return gains.figures()


def _given(flow: Flow, test: Table, rows: Batch) -> list[GivenDensity]:
    names = test.columns, test.context_columns
    inputs = Inputs(rows.x, rows.context, None, test.weights, *names, grids=test.grids)
    return given_densities(flow, inputs)


def table_matcher(flow: Flow, test: Table, train: Table | None) -> Match:
    """Returns the function that compares samples of a flow with rows of a table."""
    rows = None if train is None else batch_of(train, flow)
    return matcher(
        train=None if rows is None else (rows.x, rows.context),
        weights=test.weights,
        train_weights=None if train is None else train.weights,
        columns=test.columns,
        context_columns=test.context_columns,
        grids=test.grids,
    )


def in_proportion(table: Table) -> Table:
    """Returns rows without weights, which repeat in proportion to the weights of a table."""
    if table.weights is None:
        return table
    most = max(len(table), PICTURED_ROWS)
    index = sample_of(len(table), torch.from_numpy(table.weights), most)
    return replace(table, weights=None).select(index.numpy())


def _budget(flow: Flow, test: Batch, budget: float) -> dict[str, float]:
    """Returns the condition budget and the condition number of all test rows."""
    median, p95, rows = condition_at_test_rows(flow, test)
    return {
        "condition_budget": budget,
        "condition_number_median": median,
        "condition_number_p95": p95,
        "condition_rows": rows,
    }


@torch.no_grad()
def samples_like(flow: Flow, rows: Batch) -> np.ndarray:
    """Returns as many samples as rows, one for each context, in the units of the data."""
    generator = torch.Generator().manual_seed(0)
    if rows.context is None:
        drawn = flow.sample(len(rows), generator=generator)
    else:
        drawn = flow.sample(1, rows.context, generator=generator)[0]
    return drawn.double().cpu().numpy()


def _likelihoods(flow: Flow, nll: Tensor, data: "TableData") -> list[Likelihood]:
    weights = None if data.test.weights is None else torch.from_numpy(data.test.weights)
    results = [_likelihood("test", flow, nll, weights)]
    on_mass = torch.from_numpy(atom_rows(data.test, data.train))
    if on_mass.any() and not on_mass.all():
        for name, rows in (("no", ~on_mass), ("a", on_mass)):
            shares = None if weights is None else weights[rows]
            results.append(
                _likelihood(f"test, rows on {name} point mass", flow, nll[rows], shares)
            )
    return results


def _likelihood(name: str, flow: Flow, nll: Tensor, weights: Tensor | None) -> Likelihood:
    shift, average = standardization_log_det(flow), mean(nll, weights)
    levels = {"median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return Likelihood(
        name=name,
        rows=len(nll),
        nll=average,
        nll_standardized=average + shift,
        standard_error=standard_error(nll, weights),
        quantiles={key: quantile(nll + shift, level, weights) for key, level in levels.items()},
    )


def comparisons_on(flow: Flow, data: "TableData", nll: np.ndarray) -> list[Comparison]:
    """Returns the comparisons with a Gaussian and a mixture fitted to training rows, on test rows.

    `nll` is the negative log-likelihood under the flow of as many test rows, from the first on.
    There is no comparison if a column is constant among the training rows or follows from others,
    since there is no such density.
    """
    train, test = data.train, data.test
    rows = len(nll)
    context = None if test.context is None else test.context[:rows]
    result = references(train.values, test.values[:rows], train.context, context, train.weights)
    weights = None if test.weights is None else test.weights[:rows]
    log_det = standardization_log_det(flow)
    conditional = context is not None
    return [*compare(nll, result, conditional=conditional, weights=weights, log_det=log_det)]


def worst_rows(data: "TableData", nll: Tensor) -> WorstRows:
    """Returns the test rows with the lowest density, and their values."""
    test, names = data.test, data.test.all_columns
    train = in_proportion(data.train).all_values
    worst = nll.nan_to_num(torch.inf, posinf=torch.inf).argsort(descending=True, stable=True)
    index = worst[:WORST_ROWS].numpy()
    values = test.all_values[index]
    spread = train.std(0)
    far = np.abs(values - train.mean(0)) / np.where(spread > 0, spread, np.inf)
    rows = [
        WorstRow(
            name=name,
            values=row[:WORST_COLUMNS].tolist(),
            log_prob=-each,
            unusual=(names[at.argmax()], float(row[at.argmax()]), float(at.max())),
        )
        for name, row, at, each in zip(
            describe_rows(test, index), values, far, nll[index].tolist(), strict=True
        )
    ]
    left_out = max(0, len(names) - WORST_COLUMNS)
    return WorstRows(columns=list(names[:WORST_COLUMNS]), left_out=left_out, rows=rows)


def separation_of(
    flow: Flow, nll: Tensor, data: "TableData"
) -> tuple[Separation, ScoreDensities] | None:
    """Returns how well scores separate test rows from other rows; None without such rows."""
    if data.against is None:
        return None
    inside, outside = -nll.numpy(), log_prob_of(flow, batch_of(data.against, flow)).numpy()
    auc, error = auc_of(inside, outside)
    low, high = np.quantile(np.concatenate([inside, outside]), [0.005, 1])
    edges = np.linspace(low, high, BINS + 1)
    separation = Separation(
        name="held-out rows like the training data, against the others",
        rows_in=len(inside),
        rows_out=len(outside),
        auc=auc,
        auc_standard_error=error,
    )
    return separation, ScoreDensities(
        edges=edges.tolist(),
        density_in=_density(inside, edges),
        density_out=_density(outside, edges),
    )


def auc_of(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float]:
    """Returns the probability that a score inside is above one outside, and its standard error.

    Ties count half (Mann, Whitney 1947); the error is that of Hanley, McNeil 1982.
    """
    n, m = len(inside), len(outside)
    from scipy.stats import mannwhitneyu  # takes half as long to load as torch

    auc = float(mannwhitneyu(inside, outside).statistic) / (n * m)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (m - 1) * (q2 - auc**2)
    return auc, math.sqrt(max(0.0, variance) / (n * m))


def _density(values: np.ndarray, edges: np.ndarray) -> list[float]:
    """Returns the density in each bin; values outside of the bins count in the total."""
    counts = np.histogram(values[np.isfinite(values)], bins=edges)[0]
    return (counts / (len(values) * np.diff(edges))).tolist()


@torch.no_grad()
def latent_of(flow: Flow, rows: Batch) -> Latent:
    """Returns the latents of rows, as numbers for charts."""
    z = (
        flow.bijection(joined_points(flow, rows.x), rows.context)[0]
        .flatten(1)
        .double()
        .cpu()
        .numpy()
    )
    edges = np.linspace(-5, 5, BINS + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    about_base: dict[str, Any] = {}
    normal = (np.exp(-(centers**2) / 2) / math.sqrt(2 * math.pi)).tolist()
    if type(flow.base) is not StandardNormal:
        numbers = torch.arange(BASE_SAMPLES) % len(rows)
        samples = latent_points(flow, BASE_SAMPLES, rows.at(numbers).context)
        base_samples = samples.flatten(1).double().cpu().numpy()
        mean, deviation = base_samples.mean(0), base_samples.std(0)
        z, base_samples = (z - mean) / deviation, (base_samples - mean) / deviation
        normal = _density(base_samples.ravel(), edges)
        about_base = {
            "base": _base_name(flow.base),
            "base_beyond_four": float((np.abs(base_samples) > 4).mean()),
        }
    return Latent(
        edges=edges.tolist(),
        density=_density(z.ravel(), edges),
        normal=normal,
        coordinates=list(zip(z.mean(0).tolist(), z.std(0).tolist(), strict=True)),
        beyond_four=float((np.abs(z) > 4).mean()),
        **about_base,
    )


def _base_name(base: Base) -> str:
    if isinstance(base, NormalMixture):
        return f"mixture of {base.components} normals"
    return type(base).__name__


def added_padding(flow: Flow, test: Batch) -> tuple[AddedPadding | None, Tensor | None]:
    """Returns the padding of a flow for a report; None if it has none.

    Padding with a density has an importance-weighted likelihood; the second result is this
    negative log-likelihood of each of the first 2,000 test rows at most.
    """
    padding, weighted, nll = padding_in(flow.augment), None, None
    if padding is not None and padding.has_density:
        weighted, nll = _weighted(flow, test.at(slice(0, WEIGHTED_ROWS)))
    return AddedPadding.of(flow, weighted), nll


def _weighted(flow: Flow, rows: Batch) -> tuple[Weighted, Tensor]:
    estimate, error = importance_weighted_log_prob(
        flow,
        rows.x,
        PADDING_SAMPLES,
        context=rows.context,
        generator=torch.Generator().manual_seed(0),
    )
    nll, error = -estimate.double().cpu(), error.double().cpu()
    average = mean(nll, rows.weights)
    shares = 1.0 if rows.weights is None else rows.weights / rows.weights.mean()
    weighted = Weighted(
        draws=PADDING_SAMPLES,
        rows=len(nll),
        nll=average,
        nll_standardized=average + standardization_log_det(flow),
        standard_error=standard_error(nll, rows.weights),
        monte_carlo_error=math.sqrt(mean((shares * error) ** 2) / len(nll)),
    )
    return weighted, nll
