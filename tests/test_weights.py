"""Weights of rows: a weight of two equals the row given twice, wherever rows have weights."""

import ast
import copy
import importlib
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel

import kappaflow as kf
from kappaflow.bijections import ActNorm, Domain, Gaussianize, Standardize, edges
from kappaflow.bijections.gaussianize import GaussianizeInputs
from kappaflow.data import load_table, weigh_duplicate_rows, weighted
from kappaflow.data.load import read_table
from kappaflow.diagnosis import Comparison, compare, references
from kappaflow.diagnosis.tensors import mean_of, shares_of
from kappaflow.estimator import ConditionalFlowDensity, FlowDensity
from kappaflow.flows import LearnedPad
from kappaflow.flows.mixture_fit import sample_of
from kappaflow.flows.recipe import from_options
from kappaflow.images import Dequantize, DequantizeAndPad
from kappaflow.nets.inputs import moments
from kappaflow.runs import candidate, page
from kappaflow.runs.candidate import Candidate
from kappaflow.runs.race import Standing, trials_of
from kappaflow.runs.table_content import table_content
from kappaflow.testing.contract import jittered
from kappaflow.training import batch_of
from kappaflow.training import budget as budgets
from kappaflow.training.batches import fit_standardization
from kappaflow.training.measure import (
    budget_figures,
    conditioning_figures,
    likelihood_figures,
    mean,
    quantile,
)
from kappaflow.training.rows import READ_ALL, as_table

pytestmark = pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")

GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(36, 3, generator=GENERATOR).double().cumsum(1).numpy()
COUNTS = np.tile([1, 2, 3, 1], 9)  # 63 rows
HELD_OUT = torch.randn(16, 3, generator=GENERATOR).double()


def tensors(rows, weights):
    """Returns rows and weights as tensors."""
    shares = None if weights is None else torch.from_numpy(weights).double()
    return torch.from_numpy(rows), shares


def numbers(module):
    """Returns all numbers that a module holds."""
    return torch.cat([value.double().flatten() for value in module.state_dict().values()])


def fitted(module, rows, weights):
    """Returns what a module holds after it was fitted to rows."""
    module = copy.deepcopy(module).double()
    module.fit(*tensors(rows, weights))
    return numbers(module)


def many(rows, weights, copies=120):
    """Returns the rows at 120 places, so that there are enough for all bins of a curve."""
    rows = np.concatenate([rows + shift for shift in np.linspace(0, 1, copies)])
    return rows, None if weights is None else np.tile(weights, copies)


def fitted_to_ends(rows, weights):
    """Returns the curves of a column above 0, and of one between 0 and 9."""
    x, shares = tensors(*many(np.abs(rows[:, 1]), weights, copies=200))
    columns = edges.fit_half_line(x, shares), edges.fit_interval(x, 9 - x, shares)
    assert edges.LOGARITHM not in columns and edges.QUANTILE not in columns
    return columns


def started(rows, weights, **options):
    """Returns log_prob of a new flow whose standardization was fitted."""
    flow, (x, shares) = small(**options).eval(), tensors(rows, weights)
    flow.standardization.fit_new(x, None, shares)
    return flow.log_prob(HELD_OUT).detach()


def small(**options):
    """Returns a small flow in float64."""
    torch.manual_seed(0)
    return from_options(kf.real_nvp, 3, **{"depth": 2, "hidden": (8,), **options}).double()


def of_context(rows, weights):
    """Returns the standardization of a context."""
    flow, (x, shares) = small(context_features=1), tensors(rows, weights)
    flow.standardization.fit_new(x, x[:, :1].exp(), shares)
    return numbers(flow)


def normalized(rows, weights):
    """Returns the numbers of a flow whose ActNorm started from a batch."""
    flow = kf.Flow(kf.StandardNormal(3), kf.Chain([ActNorm(3)])).double()
    fit_standardization(flow, batch(rows, weights, flow))
    return numbers(flow)


def batch(rows, weights, flow):
    """Returns rows as a batch, with weights of mean 1."""
    return batch_of(weighted(load_table(rows), weights), flow)


def measured(figures, rows, weights):
    """Returns figures of held-out rows for a flow off its start."""
    flow = jittered(small()).eval()
    return list(figures(flow, batch(rows, weights, flow)).values())


def merged(load, rows, weights):
    """Returns distinct rows, some of which repeat, with their share of the weights."""
    table = weigh_duplicate_rows(load(np.round(rows[:, :1]), weights=weights))[0]
    order = np.argsort(table.values[:, 0])
    return np.stack((table.values[order, 0], table.weights[order] / table.weights.sum()))


def trained(rows, weights, **settings):
    """Returns log_prob of a flow after full-batch steps of kf.fit."""
    flow, options = small(), {"max_epochs": 3, "batch_size": 1000, "progress": False}
    kf.fit(flow, rows, weights=weights, validation=HELD_OUT, **options | settings)
    return flow.log_prob(HELD_OUT).detach()


def found_by_search(rows, weights):
    """Returns log_prob of a flow that fit_auto chose."""
    options = {"max_epochs": 2, "batch_size": 1000, "search_time": 0, "progress": False}
    options["learning_rate"] = 1e-4  # the first step of Adam has this size where gradients are 0
    flow = kf.fit_auto(rows, weights=weights, validation=HELD_OUT, **options).flow
    return flow.log_prob(HELD_OUT.float()).detach()


def estimated(rows, weights):
    """Returns scores of the estimator of densities."""
    density = FlowDensity(depth=2, hidden=(8,), max_epochs=2, random_state=0)
    return density.fit(rows, sample_weight=weights).score_samples(HELD_OUT.numpy())


def estimated_given_features(rows, weights):
    """Returns scores of the conditional estimator."""
    density = ConditionalFlowDensity(depth=2, hidden=(8,), max_epochs=2, random_state=0)
    density.fit(rows[:, :1], rows[:, 1:], sample_weight=weights)
    return density.log_prob(HELD_OUT[:, :1].numpy(), HELD_OUT[:, 1:].numpy())


def budgeted(rows, weights):
    """Returns the loss of a step with a condition budget, and the dual variable after it."""
    flow, dual = jittered(small()).eval(), budgets.DualVariable()
    limit = budgets.ConditionBudget(1.6, flow, dual, 100)
    limit.points = 200  # all rows
    loss = limit.loss(torch.zeros(()), batch(rows, weights, flow), limit.every)
    return [loss.item(), dual.lasting, dual.per_log, dual.share_over]


def noted(rows, weights):
    """Returns the condition number that the correlations of rows need."""
    note = budgets.correlation_note(weighted(load_table(rows), weights), 1.01)
    return [float(note.split("number of ")[1].split(",")[0])]


def averaged(rows, weights):
    """Returns the mean over a batch of rows, as in the loss of a training."""
    weighted_batch = batch(rows, weights, small())
    return weighted_batch.mean(weighted_batch.x[:, 0])[None]


def clusters(rows):
    """Returns rows in two clusters."""
    return rows + 9 * np.sign(rows[:, 1:2])


def compared(rows, weights, context=None):
    """Returns a comparison with a Gaussian and a mixture, on rows with the same weights."""
    rows = clusters(rows)
    if context is not None:
        rows, context = rows[:, context:], rows[:, :context]
    fitted = references(rows, rows, context, context, weights)
    nll = np.square(rows).sum(1)
    results = compare(nll, fitted, conditional=context is not None, weights=weights)
    return [(entry.components, entry.nll, entry.difference) for entry in results]


def reported(rows, weights):
    """Returns all numbers of a report on rows, without errors and numbers of rows."""
    flow = jittered(small(start="gaussianize")).eval()
    table = weighted(load_table(clusters(rows)), weights)
    fitted, held_out = page._rows(page._untrained(flow), table, table)
    data = page.TABLES.split_data(flow, fitted, held_out, held_out)
    content = table_content(page._untrained(flow), data, 2.0)
    charts = dict(content.charts) | {
        **dict.fromkeys(("two_sample", "corner")),  # a row of weight two says less than two rows
        "worst_rows": content.charts.worst_rows.rows[0],  # the next may be the same row
        "gains": [content.charts.gains.total, content.charts.gains.losses],  # not its times
    }
    return numbers_in([dict(content.held_out), charts, dict(content.condition)])


def gained(rows, weights):
    """Returns the gains of two couplings, and what is lost without each."""
    flow, (x, shares) = jittered(small()).eval(), tensors(rows, weights)
    options = {"train": (x.to(flow.dtype), None), "weights": shares, "train_weights": shares}
    gains = kf.depth_gains(flow, x.to(flow.dtype), **options)
    return torch.cat([gains.nats, gains.losses, torch.tensor([gains.total])])


def raced(rows, weights):
    """Returns the mean likelihoods of three models, and their distances from the first."""
    figures = {"entry": 0, "round": 1, "step": 1, "seconds": 1.0, "nll": 0.0, "gains": (0.0, 0.0)}
    figures |= {"steps": 1, "max_time_s": 1.0, "weights": tensors(rows, weights)[1]}
    model = Candidate("nice", {}, 0.1)
    models = [
        Standing(candidate=model, scores=torch.from_numpy(column.copy()), **figures)
        for column in rows.T
    ]
    return [(trial.nll, trial.behind) for trial in trials_of(models)]


def plotted(rows, weights):
    """Returns all heights of plots of rows, their latents and samples."""
    flow, table = jittered(small()).eval(), weighted(load_table(rows), weights)
    plots = (draw(flow, table, interactive=True) for draw in (kf.plot.pairs, kf.plot.latent))
    traces = [trace for figure in plots for trace in figure.data]
    return np.concatenate(
        [np.ravel(trace.y) for trace in traces if trace.y is not None], dtype=float
    )


def numbers_in(content):
    """Returns the numbers in a nest of lists, dicts and models, except what counts rows."""
    if isinstance(content, BaseModel):
        content = content.model_dump(exclude={"rows", "standard_error"})
    if isinstance(content, Comparison):
        content = {key: value for key, value in vars(content).items() if key != "standard_error"}
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list | tuple):
        return [number for part in content for number in numbers_in(part)]
    return [content] if isinstance(content, float) else []


CASES = {
    "nets.inputs.moments": lambda rows, w: torch.stack(moments(*tensors(rows, w))),
    "nets.inputs.StandardizeInputs.fit": partial(fitted, kf.nets.StandardizeInputs(3)),
    "bijections.elementwise.Standardize.fit": partial(fitted, Standardize(3)),
    "bijections.domain.Domain.fit": partial(fitted, Domain([None, "positive", (0, 9)])),
    "bijections.edges.fit_half_line": fitted_to_ends,
    "bijections.edges.fit_interval": fitted_to_ends,
    "bijections.gaussianize.Gaussianize.fit": lambda rows, w: fitted(
        Gaussianize(3), *many(rows, w)
    ),
    "bijections.gaussianize.GaussianizeInputs.fit": lambda rows, w: fitted(
        GaussianizeInputs(3), *many(rows, w)
    ),
    "factor.whiten.Whiten.fit": partial(fitted, kf.factor.Whiten(3)),
    "flows.padding.PaddingGiven.fit": partial(fitted, LearnedPad(3, 2)),
    "images.dequantize.DequantizeAndPad.fit": partial(
        fitted, DequantizeAndPad(Dequantize(4), LearnedPad(3, 2))
    ),
    **{
        f"flows.standardization.Standardization.fit_new, {name}": partial(started, **options)
        for name, options in {
            "identity": {},
            "whiten": {"start": "whiten"},
            "gaussianize": {"start": "gaussianize"},
            "both": {"start": "whiten-gaussianize"},
            "mixture": {"components": 2},
        }.items()
    },
    "flows.standardization.Standardization.fit_new, context": of_context,
    "flows.mixture_fit.sample_of": lambda rows, w: rows[
        sample_of(len(rows), tensors(rows, w)[1])
    ].mean(0),
    "data.table.weighted": partial(
        merged, lambda rows, weights: weighted(load_table(rows), weights)
    ),
    "data.load.read_table": partial(merged, partial(read_table, reading=READ_ALL)),
    "training.rows.as_table": partial(merged, as_table),
    "estimator.density.FlowDensity.fit": estimated,
    "estimator.conditional.ConditionalFlowDensity.fit": estimated_given_features,
    "training.fit.fit": trained,
    "training.batches.fit_standardization, ActNorm": normalized,
    "training.batches.Batch.mean": averaged,
    "training.budget.ConditionBudget.loss": budgeted,
    "training.budget.correlation_note": noted,
    "training.measure.mean": lambda rows, w: [mean(*tensors(rows[:, 0], w))],
    "training.measure.quantile": lambda rows, w: [
        quantile(torch.from_numpy(rows[:, 0]), level, tensors(rows, w)[1])
        for level in (0.0, 0.1, 1 / 3, 0.5, 0.95, 1.0)
    ],
    "training.measure.likelihood_figures": partial(measured, likelihood_figures),
    "training.measure.conditioning_figures": lambda rows, w: measured(
        conditioning_figures, rows, w
    )[:2],  # the others are rounding errors
    "training.measure.budget_figures": partial(measured, budget_figures),
    "diagnosis.tensors.shares_of": lambda rows, w: mean_of(
        torch.from_numpy(rows), shares_of(tensors(rows, w)[1], len(rows))
    ),
    "diagnosis.references.references": compared,
    "diagnosis.references.compare, given a context": partial(compared, context=1),
    "diagnosis.depth_gains.depth_gains": gained,
    "runs.model_search.fit_auto": found_by_search,
    "runs.race.trials_of": raced,
    "runs.table_content.table_content": reported,
    "plot.pairs, and latent": plotted,
}
IN_SINGLE_PRECISION = {"runs.model_search.fit_auto"}
OF_NETWORKS = ("nets.conv", "bijections.image_chain", "interop", "stack", "files", "registry")
LEFT_OUT = {
    "data.load.table_of": "read_table calls it",
    "data.examine.examine": "it examines the table of read_table",
    **dict.fromkeys(
        ("diagnosis.doctor.diagnose_flow", "diagnosis.references.comparisons_of"),
        "the significance depends on the number of rows; tests/diagnosis has the weights",
    ),
    "training.measure.standard_error": "it falls with the number of rows, which weights that "
    "count up to a factor do not tell",
    "flows.mixture_fit.best_components": "it splits rows at random, and copies may be in both "
    "parts",
    "runs.candidate.candidates": "it splits rows, and counts them for the dropout",
    "flows.augmentation.Augmentation.fit": "it fits nothing: augmentations override it",
    "diagnosis.depth_gains.layer_losses": "depth_gains calls it",
    "conditioning.profile._between": "its weights are those of an interpolation",
    **dict.fromkeys(
        (
            "mixed.labels.Labels.fit",
            "mixed.prepared.chosen_rows",
            "mixed.prepared.prepared",
            "runs.fit_table.fit_table",
        ),
        "networks are trained on batches of rows; tests/mixed and tests/runs have the weights",
    ),
    **dict.fromkeys(
        (
            "goodness.goodness.matcher",
            "goodness.corner.corner_of",
            "goodness.overfit.gap_of",
            "goodness.pooled.owners_of",
            "goodness.scan.effective_rows",
            "goodness.scan.scan_uniform",
        ),
        "a row of weight two says less than two rows; tests/goodness has the weights",
    ),
}


def functions_with_weights():
    """Returns the names of all functions of the library that take weights of rows."""
    root, names = Path(kf.__file__).parent, set()
    for path in root.rglob("*.py"):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        text = path.read_text()
        if module.startswith(OF_NETWORKS) or "weight" not in text:
            continue
        tree = ast.parse(text)
        for owner in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]:
            name = f"{module}.{owner.name}" if owner is not tree else module
            names |= {f"{name}.{node.name}" for node in owner.body if takes_weights(node)}
    return names


def takes_weights(node):
    """Returns whether a node is a function with an argument for weights."""
    if not isinstance(node, ast.FunctionDef):
        return False
    arguments = {entry.arg for entry in (*node.args.args, *node.args.kwonlyargs)}
    return bool(arguments & {"weights", "sample_weight"})


def test_every_function_with_weights_is_a_case_or_left_out_for_a_reason():
    """Functions of weights of networks aside; private ones are reached by those that call them."""
    known = {name.partition(",")[0] for name in CASES} | set(LEFT_OUT)
    functions = functions_with_weights()
    assert {name for name in functions if "._" not in name} <= known
    assert set(LEFT_OUT) <= functions


@pytest.fixture
def same_model(monkeypatch):
    """Fixes the choices that depend on the number of rows: of components, and of dropout."""
    mixtures = importlib.import_module("kappaflow.diagnosis.references")
    monkeypatch.setattr(mixtures, "COMPONENTS", (2,))
    monkeypatch.setattr(candidate, "DROPOUT", ((math.inf, 0.0),))


@pytest.mark.usefixtures("same_model")
@pytest.mark.parametrize("name", CASES)
def test_a_weight_of_two_equals_the_row_given_twice(name):
    """As weights of any size, and not without weights."""
    function = CASES[name]
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if name in IN_SINGLE_PRECISION else {"rtol": 1e-9}
    by_weight = np.asarray(function(ROWS, 0.3 * COUNTS))
    repeated = np.asarray(function(np.repeat(ROWS, COUNTS, axis=0), None))
    np.testing.assert_allclose(by_weight, repeated, **tolerance)
    with pytest.raises(AssertionError, match="Not equal|not match|mismatch"):
        np.testing.assert_allclose(function(ROWS, None), repeated, **tolerance)


def test_weights_follow_their_rows_through_a_split():
    """A row of weight zero is no row, and rows with weights are no duplicates."""
    table = weighted(load_table(ROWS), COUNTS - 1)
    assert np.array_equal(table.rows, np.flatnonzero(COUNTS > 1) + 1)
    part, _ = kf.data.split(table, fractions=(0.5, 0.5))
    assert np.array_equal(part.weights, (COUNTS - 1)[part.rows - 1])
    assert part.fingerprint() != load_table(part.values).fingerprint()
    assert kf.data.drop_duplicate_rows(table)[1] == 0


@pytest.mark.parametrize(
    "weights", [np.ones(3), -np.ones(36), np.zeros(36), np.full(36, np.nan), "many"]
)
def test_other_weights_are_refused_in_a_sentence(weights):
    """Of another number, negative, all zero, not finite, or not numbers."""
    with pytest.raises(kf.errors.ArgumentError, match="'weights' (should|names)"):
        kf.fit(small(), ROWS, weights=weights)
