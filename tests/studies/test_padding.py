"""Padding compared: what is measured, the sign tests, and what is reported of them."""

import json
import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import binom

import kappaflow as kf
from kappaflow.data import toy
from kappaflow.errors import ArgumentError
from kappaflow.testing.contract import jittered
from kappaflow_studies import run_study
from kappaflow_studies.engine.charts import filled
from kappaflow_studies.engine.presets import settings_of
from kappaflow_studies.padding import PADDING
from kappaflow_studies.padding.cases import Spec, spec_of
from kappaflow_studies.padding.comparisons import SignTest, claimed_order, ordered, sign_test
from kappaflow_studies.padding.findings import COLUMNS, on_convergence, on_draws
from kappaflow_studies.padding.measure import (
    CELLS,
    conditioning,
    distance,
    is_flat,
    likelihood,
    measure,
    picture,
    points,
    span,
    truth,
)
from kappaflow_studies.wasserstein import wasserstein

TINY = {
    "sets": ["eight_gaussians"], "compared": ["none", "zero:2", "gaussian:2"],
    "others": ["gaussian:2:0.1", "gaussian:1", "gaussian:2:3"], "seeds": 1, "rows": 128,
    "epochs": 1, "batch_size": 128, "depth": 2, "hidden": [4], "measured_every": 1, "points": 8,
    "draws": 4, "drawn": 40, "image_sets": [], "image_sizes": [], "image_epochs": [],
    "image_batch_size": 256, "image_hidden": 2, "image_levels": 1, "image_points": 2,
    "image_draws": 2, "image_drawn": 20, "image_measured_every": 1,
}  # fmt: skip


def write(folder, **others):
    """Returns the path of a file of small settings, some of them changed."""
    path = folder / "mine.json"
    minutes = settings_of(PADDING, "minutes", None).model_dump()
    path.write_text(json.dumps({**minutes, **TINY, **others}))
    return path


def settings(folder, **others):
    """Returns small settings, some of them changed."""
    return settings_of(PADDING, "minutes", write(folder, **others))


def seeded(seed=0):
    """Returns a generator."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("text", "spec", "words"),
    [
        ("none", Spec("none"), "no padding"),
        ("zero:2", Spec("zero", 2), "2 zeros"),
        ("gaussian:8", Spec("gaussian", 8), "8 Gaussian"),
        ("gaussian:2:0.3", Spec("gaussian", 2, 0.3), "2 Gaussian of scale 0.3"),
        ("copy:1:0", Spec("copy", 1, 0.0), "1 copy of scale 0"),
        ("learned:2", Spec("learned", 2), "2 learned"),
    ],
)
def test_a_padding_is_named_by_kind_width_and_scale(text, spec, words):
    """And is made of the same."""
    assert spec_of(text) == spec and spec.description == words
    built = spec.padding((2,))
    assert (built is None) == (text == "none")
    assert built is None or built.features == spec.width
    assert spec.scale is None or built.scale == spec.scale


@pytest.mark.parametrize("text", ["", "none:2", "zero", "zero:0", "noise:2", "zero:x", "a:1:2:3"])
def test_other_names_are_refused(text):
    """In one sentence."""
    with pytest.raises(ArgumentError, match="a padding should be none or KIND:WIDTH"):
        spec_of(text)


@pytest.mark.parametrize("preset", ["minutes", "full"])
def test_the_presets_make_cases_that_differ(preset):
    """Each seed of the compared paddings, fewer of the others, and a floor for each set."""
    chosen = settings_of(PADDING, preset, None)
    cases = PADDING.cases(chosen, 0)
    assert len({json.dumps(case) for case in cases}) == len(cases)
    assert claimed_order(chosen.compared) == ["zero:2", "none", "gaussian:2"]
    kinds = [case["kind"] for case in cases]
    assert kinds.count("plane floor") == len(chosen.sets) * chosen.seeds
    trainings = len(chosen.compared) * chosen.seeds + len(chosen.others) * chosen.other_seeds
    assert kinds.count("plane") == len(chosen.sets) * trainings
    assert {case["seed"] for case in PADDING.cases(chosen, 3)} >= {3000}


def test_samples_that_are_not_finite_have_no_distance():
    """They are not left out: the rest would look better than it is."""
    samples = torch.tensor([[0.0, math.inf]]).expand(3, 2)
    assert math.isnan(distance(samples, torch.zeros(3, 2))["w2"])


def test_conditioning_is_that_of_the_standardized_map():
    """A change of units is left out, and quantiles are over the points."""
    stretch = kf.bijections.ElementwiseAffine(2, log_scale=[math.log(4.0), math.log(0.5)])
    units = kf.bijections.Standardize(2)
    units.fit(torch.tensor([[0.0, 0.0], [2000.0, 1.0]]))
    flow = kf.Flow(kf.StandardNormal(2), kf.Chain([units, stretch]))
    row = conditioning(flow, torch.randn(5, 2))
    expected = {"kappa_p05": 8, "kappa_median": 8, "sigma_max": 4, "sigma_min": 0.5}
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    flow = jittered(kf.real_nvp(2, depth=4, hidden=(8,), padding=1)).eval()
    x = 50 + 9 * torch.randn(20, 2, generator=seeded())
    flow.standardization.bijections[0].fit(flow.augmented(x, generator=seeded()))
    expected = kf.profile(flow, x).condition_number[-1].quantile(0.95).item()
    assert conditioning(flow, x)["kappa_p95"] == pytest.approx(expected, rel=1e-5)


def test_likelihoods_are_exact_weighted_or_none():
    """With the divergence from the truth where it is known; zero for the truth itself."""
    x = torch.randn(400, 2, generator=seeded())
    flow = kf.Flow(kf.StandardNormal(2), kf.Chain([]))
    exact = likelihood(flow, x, 3, truth=flow.log_prob(x))
    assert exact["likelihood"] == "exact" and exact["weighted_error"] == 0
    assert exact["nll"] == exact["weighted_nll"] == pytest.approx(-flow.log_prob(x).mean().item())
    assert exact["kl"] == pytest.approx(0, abs=1e-6) and exact["kl_error"] < 1e-6
    wider = kf.Flow(
        kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2, log_scale=[-math.log(2.0)] * 2)
    )
    off = likelihood(wider, x, 3, truth=flow.log_prob(x))
    expected = 2 * math.log(2.0) + 1 / 4 - 1  # of N(0, 1) from N(0, 4), twice
    assert abs(off["kl"] - expected) < 5 * off["kl_error"]
    mix = kf.factor.LinearCoupling(kf.Partition(2, (1,)), torch.tensor([[0.8]]))
    padded = kf.Flow(kf.StandardNormal(2), mix, kf.flows.Pad(1))
    bound = likelihood(padded, x[:, :1], 64)
    _, errors = kf.flows.importance_weighted_log_prob(padded, x[:, :1], 64, generator=seeded(2))
    expected = math.sqrt((errors.double() ** 2).sum()) / len(x)
    assert bound["weighted_error"] == pytest.approx(expected, rel=1e-4)
    assert bound["likelihood"] == "bound" and bound["weighted_nll"] < bound["nll"]
    true = torch.distributions.Normal(0.0, math.sqrt(1 + 0.8**2)).log_prob(x[:, 0]).mean().item()
    assert abs(bound["weighted_nll"] + true) < 5 * bound["weighted_error"] + 0.01
    joint = likelihood(kf.Flow(kf.StandardNormal(3), kf.Chain([]), kf.flows.ZeroPad(1)), x, 64)
    assert set(joint) == {"likelihood", "nll", "nll_error"} and joint["likelihood"] == "joint"


def scaled(log_scale):
    """Returns a padded flow that ignores its padding, whose weights vary with `log_scale`."""
    core = kf.bijections.ElementwiseAffine(2, log_scale=[0.0, log_scale])
    return kf.Flow(kf.StandardNormal(2), core, kf.flows.Pad(1))


def test_draws_are_doubled_until_the_mean_is_flat():
    """One doubling for constant weights, as many as are allowed for weights of infinite variance.

    The estimate is that of all draws, as a single call with so many makes it.
    """
    x = torch.randn(50, 1, generator=seeded())
    flat = likelihood(scaled(0.0), x, 4, max_draws=64)
    assert flat["weighted_draws"] == 8 and flat["weighted_flat"]
    assert flat["weighted_change"] == pytest.approx(0, abs=1e-6)
    heavy = likelihood(scaled(-1.5), x, 4, max_draws=64)
    assert heavy["weighted_draws"] == 64 and not heavy["weighted_flat"]
    assert heavy["weighted_nll"] < heavy["first_weighted_nll"] - 0.1
    generator = seeded(2)
    parts = [
        kf.flows.importance_weighted_log_prob(scaled(-1.5), x, n, generator=generator)
        for n in (4, 4, 8, 16, 32)
    ]
    sizes = torch.tensor([4.0, 4, 8, 16, 32]).log()[:, None]
    weights = torch.stack([part[0] for part in parts]) + sizes
    expected = -(weights.logsumexp(0) - math.log(64)).mean().item()
    assert heavy["weighted_nll"] == pytest.approx(expected, rel=1e-5)
    spread = torch.stack([part[1] for part in parts]) * weights.exp() / 64
    errors = spread.square().sum(0).sqrt() / (weights.logsumexp(0) - math.log(64)).exp()
    expected = errors.square().sum().sqrt().item() / len(x)
    assert heavy["weighted_error"] == pytest.approx(expected, rel=1e-4)
    fixed = likelihood(scaled(-1.5), x, 4)
    assert fixed["weighted_nll"] == heavy["first_weighted_nll"]
    assert fixed["weighted_draws"] == 4 and "weighted_change" not in fixed


@pytest.mark.parametrize(
    ("gain", "flat"),
    [([0.0009] * 9, True), ([0.0011] * 9, False), ([0.09] + [-0.002] * 9, True)],
)
def test_a_mean_is_flat_by_its_change_or_by_its_error(gain, flat):
    """Less than 0.001 nats, or than the standard error of the change."""
    assert is_flat(torch.tensor(gain, dtype=torch.float64)) == flat


def test_a_picture_counts_points_where_they_are():
    """Rows from below, columns from the left; what is not finite is nowhere."""
    end = span("two_moons")
    low = -end + end / CELLS
    drawn = torch.tensor([[end * 0.99, low], [end * 0.99, low], [low, end * 0.99], [math.nan, 0]])
    counts = np.array(picture("two_moons", drawn)).reshape(CELLS, CELLS)
    assert counts.sum() == 3 and counts[0, -1] == 2 and counts[-1, 0] == 1
    assert np.abs(toy("two_moons", 5000, seed=9).values).max() < 1.3 * end


def test_parts_of_a_set_are_independent_and_repeat():
    """Training, validation and test rows come from seeds of their own."""
    parts = [points("rings", 50, seed, part) for seed in (0, 1) for part in ("train", "test")]
    assert all(
        not torch.equal(a, b) for i, a in enumerate(parts) for b in parts[:i]
    ) and torch.equal(parts[0], points("rings", 50, 0, "train"))
    x = points("rings", 5, 0, "test")
    assert truth("rings", x).isfinite().all() and truth("two_moons", x) is None


@pytest.mark.parametrize("padding", ["none", "zero:2", "gaussian:2", "learned:1"])
def test_a_training_of_the_plane_is_measured(padding, tmp_path):
    """The same numbers each time; no likelihood where there is none."""
    chosen = settings(tmp_path, compared=[padding], others=[])
    (case,) = (c for c in PADDING.cases(chosen, 0) if c["kind"] == "plane")
    (row,), (again,) = measure(case), measure(case)
    assert {k: v for k, v in row.items() if k != "time_s"} == {
        k: v for k, v in again.items() if k != "time_s"
    }
    assert row["kappa_p05"] <= row["kappa_median"] <= row["kappa_p95"]
    assert row["epochs_measured"] == [1] and len(row["kappa_over_training"]) == 1
    assert row["w2"] > 0 and len(row["picture"]) == CELLS**2
    assert ("weighted_nll" in row) == ("kl" in row) == (padding != "zero:2")


def test_floors_are_between_samples_of_the_data(tmp_path):
    """Of the plane as many points as are drawn."""
    (case,) = (c for c in PADDING.cases(settings(tmp_path), 0) if c["kind"] == "plane floor")
    (row,) = measure(case)
    first, second = (points("eight_gaussians", 40, 0, part) for part in ("test", "other test"))
    assert row["w2"] == wasserstein(first, second, order=2)
    assert sum(row["picture"]) > 39_000


@pytest.mark.parametrize(
    "padding",
    ["none", *(pytest.param(name, marks=pytest.mark.slow) for name in ("zero:1", "gaussian:1"))],
)
def test_a_training_of_images_is_measured(padding, tmp_path):
    """Of the digits, with a floor between training and held-out ones."""
    pytest.importorskip("sklearn")
    images = {"image_sets": ["digits"], "image_sizes": [8], "image_epochs": [1]}
    chosen = settings(tmp_path, sets=[], image_paddings=[padding], **images)
    case, floor = PADDING.cases(chosen, 0)
    (row,), (apart,) = measure(case), measure(floor)
    assert row["kappa_median"] >= 1
    assert 8 > row["w2"] > apart["w2"] > 0  # 64 pixels from 0 to 1 are at most 8 apart
    assert row["likelihood"] == ("joint" if padding == "zero:1" else "bound")


@pytest.mark.parametrize(
    ("best", "number"),
    [([9, 7, 8], "after 7 to 9 of 12"), ([9, 9, 9], "after 9 of 12"),
     ([9, 12, 8], "in 1 training (1 zero)"), ([12] * 3, "to the end of 12"), ([None] * 3, "")],
)  # fmt: skip
def test_trainings_of_images_say_whether_they_were_long_enough(best, number):
    """A training that stopped has no best epoch; the change is that of the last quarter."""
    kappas = [[9.0, 2.0, 4.0], [9.0, 8.0, 4.0], [9.0, 3.0, math.inf]]
    measured = {"epochs_measured": [[8.0, 9.0, 12.0]] * 3, "kappa_over_training": kappas}
    frame = pl.DataFrame(
        {"padding": ["none", "zero:1", "gaussian:1"], "best_epoch": best, **measured},
        schema_overrides={"best_epoch": pl.Float64},
    )
    text = on_convergence(frame, 12)
    assert number in text and ("a factor of 2.00" in text) == bool(text)


def test_a_sign_test_is_paired_by_seed_and_exact():
    """The binomial tails; what is not finite, or failed, is above all."""
    rows = [("a", s, k) for s, k in enumerate([2.0, 3.0, math.nan, 5.0, 1.0])]
    rows += [("b", s, k) for s, k in enumerate([1.0, 2.0, 4.0, 5.0, None])]
    frame = pl.DataFrame(rows, schema=["padding", "seed", "value"], orient="row")
    test = sign_test(frame, "a", "b", "value")
    assert test == SignTest(3, 4)  # equal in seed 3; in 2 a is nan, in 4 b failed
    assert test.p_value == pytest.approx(2 * binom.sf(2, 4, 0.5))
    assert SignTest(10, 10).p_value == pytest.approx(2 / 1024)
    assert [SignTest(n, 10).verdict for n in (0, 1, 2, 5, 8, 9, 10)] == [-1, -1, 0, 0, 0, 1, 1]
    assert SignTest(0, 0).p_value == 1 and SignTest(0, 0).verdict == 0
    assert ordered([SignTest(10, 10), SignTest(8, 10)]) == "open"
    assert ordered([SignTest(8, 10), SignTest(0, 10)]) == "reversed"
    assert ordered([SignTest(10, 10), SignTest(9, 10)]) == "confirmed"
    assert ordered([SignTest(10, 10), SignTest(9, 10)], 0.01) == "open"


@pytest.mark.parametrize(
    ("ratio", "near"), [(1.0, True), (1.2, True), (0.82, True), (1.3, False), (0.79, False)]
)
def test_values_are_near_each_other_within_a_quarter(ratio, near):
    """A significant difference can be small; a few seeds cannot tell."""
    for seeds, reported in ((10, True), (5, False)):
        rows = [("a", s, ratio * (2.0 + s)) for s in range(seeds)]
        rows += [("b", s, 2.0 + s) for s in range(seeds)]
        frame = pl.DataFrame(rows, schema=["padding", "seed", "value"], orient="row")
        assert sign_test(frame, "a", "b", "value").near == (near and reported)


def rows_of(kappas, sets, seeds):
    """Returns rows of the plane whose condition numbers are functions of set and seed."""
    rows = []
    for name, seed in product(sets, range(seeds)):
        for padding, kappa in kappas.items():
            row = {"kind": "plane", "set": name, "padding": padding, "seed": seed}
            row |= {"kappa_median": kappa(name, seed), "w2": 2.0, "likelihood": "exact"}
            rows.append(row | {"weighted_nll": 1.0 + seed + (padding == "gaussian:2") * 0.25})
        rows.append({"kind": "plane floor", "set": name, "seed": seed, "w2": 0.5})
    return pl.DataFrame(rows, infer_schema_length=None)


def judged(tmp_path, gaussian, seeds=10, zero=900.0):
    """Returns the findings on made-up trainings."""
    sets = ("eight_gaussians", "two_moons", "rings")
    kappas = {"zero:2": lambda s, i: zero, "none": lambda s, i: 12.0 + i / 100}
    frame = rows_of(kappas | {"gaussian:2": gaussian}, sets, seeds)
    if zero is None:
        stopped = pl.when(pl.col("padding") == "zero:2").then(pl.lit("stopped"))
        frame = frame.with_columns(stopped.alias("error"))
    return PADDING.findings(frame, settings(tmp_path, sets=list(sets), seeds=seeds, others=[]))


CASES = {
    "confirmed": (lambda s, i: 1.0 + i, "confirmed", (3, 0, 0, 0)),
    "reversed": (lambda s, i: 20.0, "reversed", (0, 3, 0, 0)),
    "alike": (lambda s, i: 13.0 if i % 2 else 11.0, "not confirmed", (0, 0, 0, 3)),
    "open": (lambda s, i: 20.0 if i % 2 else 5.0, "not confirmed", (0, 0, 3, 0)),
    "mixed": (lambda s, i: 20.0 if s == "rings" else 5.0, "not confirmed", (2, 1, 0, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_order_is_judged_by_sign_tests(tmp_path, name):
    """Confirmed, reversed, alike, open, or one on some sets and another on others."""
    gaussian, verdict, counts = CASES[name]
    findings = judged(tmp_path, gaussian)
    order, zeros, conditions, likelihoods, samples = findings.found
    assert f"ordering is {verdict}:" in order
    on_sets = re.findall(r"on (\d) of 3 sets|reversed on (\d) and open on (\d). On (\d)", order)
    assert tuple(int(n) for group in on_sets for n in group if n) == counts
    assert "on 3 of 3 planar sets" in zeros and "0.0083, the order changes on 0 sets" in zeros
    assert "900 (2 zeros)" in conditions and "by 0.25 to 0.25 nats" in likelihoods
    assert "on 3 of 3 sets and smaller on 0" in likelihoods
    assert "4.0 (no padding), 4.0 (2 zeros), 4.0 (2 Gaussian)" in samples
    expected = {"mixed": ["confirmed", "confirmed", "reversed"]}.get(name, [name] * 3)
    assert [row[-1] for row in findings.tables[0].rows] == expected
    assert findings.tables[0].rows[0][1] == "10 of 10, p = 0.002"


def test_the_draws_of_bounds_are_reported(tmp_path):
    """As many as were reached, how many are flat, and the change; or that they did not grow."""
    chosen = settings(tmp_path, draws=128, max_draws=512)
    columns = {"kind": ["plane"] * 3, "likelihood": ["bound", "bound", "exact"]}
    frame = pl.DataFrame(columns)
    assert "are those of 128 draws" in on_draws(filled(frame, COLUMNS), chosen)[0]
    frame = frame.with_columns(
        weighted_nll=pl.Series([1.0, 2.0, 9.0]), first_weighted_nll=pl.Series([1.002, 2.03, 0.0]),
        weighted_draws=pl.Series([256.0, 512.0, None]),
        weighted_change=pl.Series([0.0002, 0.004, None]),
        weighted_flat=pl.Series([True, False, None]),
    )  # fmt: skip
    (text,) = on_draws(filled(frame, COLUMNS), chosen)
    assert "from 128 to at most 512" in text and "in 1 of 2 flows, at 256 to 512 draws" in text
    assert "by at most 0.0040 nats, and all doublings changed it by −0.030 to −0.0020" in text
    assert on_draws(filled(frame, COLUMNS).filter(likelihood="exact"), chosen) == []


def test_the_page_says_how_far_its_bounds_are_from_flat():
    """By the flows of every set with more draws, whose measurements are committed."""
    page = Path(__file__).parents[2] / "docs/experiments/padding.md"
    folder = page.with_suffix("") / "draws"
    chosen = settings_of(PADDING, "full", folder / "config.json")
    full = settings_of(PADDING, "full", None)
    same = ("rows", "epochs", "batch_size", "learning_rate", "depth", "hidden", "draws", "sets")
    assert [getattr(chosen, name) for name in same] == [getattr(full, name) for name in same]
    frame = filled(pl.read_parquet(folder / "results.parquet"), COLUMNS)
    (text,) = on_draws(frame, chosen)
    sentence, written = (" ".join(x.split()) for x in (text, page.read_text("utf-8")))
    assert sentence in written


def test_few_seeds_are_no_sign_test(tmp_path):
    """Pairs are counted, and the page says that they are too few."""
    result = judged(tmp_path, lambda s, i: 5.0 + 10 * i, seeds=2).found
    assert "in 6 of 6 pairs" in result[0] and "in 3 of 6" in result[0]
    assert "too few seeds" in result[0] and "sign tests)" not in " ".join(result)


def test_trainings_that_stopped_are_named(tmp_path):
    """And count as the worst conditioned."""
    findings = judged(tmp_path, lambda s, i: 5.0, zero=None)
    assert "30 trainings stopped" in findings.found[-1] and "2 zeros" in findings.found[-1]
    assert findings.tables[0].rows[0][1] == "10 of 10, p = 0.002"


@pytest.mark.slow
def test_a_small_study_is_run_and_drawn(tmp_path):
    """End to end: each chart, each table, floors in the tables and as dotted lines."""
    out = tmp_path / "out"
    done = run_study(PADDING, out, config=write(tmp_path), processes=1, progress=False)
    findings = done.report.findings
    assert [chart.name for chart in findings.charts] == [
        "conditioning", "densities-eight-gaussians", "conditioning-width", "distance-width",
        "conditioning-scale", "distance-scale",
    ]  # fmt: skip
    titles = [panel.title for panel in findings.charts[1].panels]
    assert titles == ["the data", "no padding", "2 zeros", "2 Gaussian"]
    width, scale = findings.charts[3].panels[0], findings.charts[5].panels[0]
    assert width.series[0].x == [0.0, 1.0, 2.0] and scale.series[0].x == [0.1, 1.0, 3.0]
    for panel in (width, scale):
        assert panel.series[-1].name == "two samples of the data"
        assert panel.series[-1].kind == "dotted"
    tables = {table.title: table for table in findings.tables}
    assert tables["Likelihood, planar sets"].rows[1] == ["2 zeros", "none"]
    assert "±" in tables["Divergence, planar sets"].rows[0][1]
    assert tables["Distance of samples, planar sets"].rows[-1][0] == "two samples of the data"
    frame = pl.read_parquet(out / "results.parquet")
    assert frame.filter(pl.col("kind") == "plane").height == 6
