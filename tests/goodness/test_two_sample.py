"""`two_sample`: deviations that a user must hear of, at their place, and none on right flows."""

import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.goodness.exact_flows import Map, draws, kept, normal, table, uniform

import kappaflow as kf
from kappaflow.goodness import Goodness
from kappaflow.goodness.deviation import Deviation, Family, interval_phrase
from kappaflow.goodness.overfit import Gap
from kappaflow.goodness.pooled import Pooled


def numbers(seed):
    """Returns a random generator."""
    return np.random.default_rng(seed)


def rows_of(values):
    """Returns values as one column."""
    return torch.tensor(np.asarray(values), dtype=torch.float32).reshape(-1, 1)


def resonance(share=0.05, number=2_000, seed=0):
    """Returns uniform rows from -100 to 100, with a share of them in a line of width 0.05."""
    rng, inside = numbers(seed), int(share * number)
    line = 11.2 + 0.05 * rng.random(inside)
    return rows_of(np.append(rng.uniform(-100, 100, number - inside), line))


def above(low, values):
    """Returns the values above a cut."""
    return values[values > low, None]


def inside(end, values):
    """Returns the values from -end to end."""
    return values[values.abs() < end, None]


INF = np.inf
FAILURES = {
    "line": (uniform(-100, 100), resonance(), 11.0, 11.4, "few"),
    "whole numbers": (
        normal(scale=1.73),
        rows_of(numbers(1).poisson(3, 2_000) - 3),
        -INF,
        0,
        "many",
    ),
    "heavy tails": (
        normal(scale=2.0),
        rows_of(numbers(2).standard_t(1.5, 2_000)),
        -INF,
        -4,
        "few",
    ),
    "cut": (normal(), above(-1.5, draws(3, 3_000)), -INF, -1.4, "many"),
    "circle": (normal(scale=1.5), inside(np.pi, 1.5 * draws(4, 3_000)), 3.0, INF, "many"),
}


@pytest.mark.parametrize("name", list(FAILURES))
def test_a_failure_is_located(name):
    """The first deviation is in the column, where rows and samples differ."""
    flow, rows, low, high, how = FAILURES[name]
    result = kf.two_sample(flow, rows)
    assert result.level in {"care", "bad"}
    first = next(one for one in result.deviations if one.test == "column")
    assert first.columns == ("x0",)
    assert low <= first.region[0][0] < first.region[0][1] <= high
    assert f"Too {how}" in first.sentence
    assert (first.expected < first.share) == ("few" in first.sentence)
    if name == "line":
        assert first.share == pytest.approx(0.05, abs=0.015)
        assert first.expected < 0.002


def test_a_conditional_width_is_located_at_its_contexts():
    """4.7 times too large where the context is above 1, in a flow that is right elsewhere."""
    c = draws(0, 2_000, 1)
    x = c + draws(1, 2_000, 1)
    flow = normal(1, lambda c: c, lambda c: torch.where(c > 1, 4.7, 1.0), 1)
    result = kf.two_sample(flow, x, c)
    assert result.level == "bad"
    first = next(one for one in result.deviations if one.test == "pair")
    region = dict(zip(first.columns, first.region, strict=True))
    assert region["context_x0"][0] > 0.7
    right = normal(1, lambda c: c, torch.ones_like, 1)
    assert kf.two_sample(right, x, c).level == "good"
    classes = (c > 0).float()
    assert kf.two_sample(right, classes + draws(1, 2_000, 1), classes).level == "good"


def test_weighted_rows_have_samples_at_contexts_by_their_weights():
    """Rows are kept by a value that depends on the context, so contexts need the weights too."""
    c = draws(0, 6_000, 1)
    flow = normal(1, lambda c: c, torch.ones_like, 1)
    x, weights = kept(torch.hstack([c + draws(1, 6_000, 1), c]), 2)
    rows = table(x[:2_000], weights[:2_000], ["x1"])
    assert kf.two_sample(flow, rows).level == "good"
    assert kf.calibration(flow, rows).level == "good"
    assert kf.two_sample(flow, replace(rows, weights=None)).level == "bad"


def test_a_small_divergence_of_a_large_table_is_good():
    """KL 0.0005 is significant at 20,000 rows and negligible; 20 times as much is not."""
    rows = draws(0, 20_000, 1)
    assert kf.two_sample(normal(location=0.0005**0.5 * 2**0.5), rows).level == "good"
    result = kf.two_sample(normal(location=0.2), rows[:5_000])
    assert result.level in {"care", "bad"}
    assert result.nats == pytest.approx(0.02, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [200, 2_000])
def test_the_smallest_deviations_are_honest(number):
    """What is twice as large is found in 9 of 10 seeds, and a fifth in 2 of 10 at most."""
    flow = uniform(-100, 100)
    stated = kf.two_sample(flow, resonance(0, number))
    for factor, least, most in ((2, 9, 10), (0.2, 0, 2)):
        share = factor * stated.smallest_share
        lines = [kf.two_sample(flow, resonance(share, number, seed)) for seed in range(10)]
        assert least <= sum(bool(one.deviations) for one in lines) <= most, (factor, "line")
        shift = (2 * factor * stated.smallest_nats) ** 0.5
        smooth = [kf.two_sample(normal(location=shift), draws(s, number, 1)) for s in range(10)]
        assert least <= sum(bool(one.deviations) for one in smooth) <= most, (factor, "smooth")


def test_weights_change_the_verdict_if_they_must():
    """Rows kept by their value match with their weights alone; equal weights change nothing."""
    x, weights = kept(draws(0, 6_000, 2), 1)
    x, weights = x[:2_000], weights[:2_000]
    plain = kf.two_sample(normal(2), x)
    assert plain.level == "bad"
    assert kf.two_sample(normal(2), table(x, weights)).level == "good"
    equal = kf.two_sample(normal(2), table(x, np.full(2_000, 3.0)))
    assert equal.level == plain.level
    assert equal.auc == pytest.approx(plain.auc, abs=0.02)
    assert equal.deviations[0].columns == plain.deviations[0].columns


def test_overfitting_is_measured_with_weights_on_both_sides():
    """Weights of the training rows count; without them nothing is compared."""
    x, weights = kept(draws(0, 6_000, 2), 1)
    own, train = table(x[:1_000], weights[:1_000]), table(x[1_000:], weights[1_000:])
    result = kf.two_sample(normal(2), own, train=train)
    assert result.level == "good"
    assert abs(result.gap) < 4 * result.gap_standard_error < 0.4
    assert kf.two_sample(normal(2), own, train=x[1_000:]).gap is None
    few = draws(2, 100, 20)
    flow = normal(20, few.mean(0).tolist(), few.std(0).tolist())
    memorized = kf.two_sample(flow, draws(3, 900, 20), train=few)
    assert memorized.gap == pytest.approx(40 / 100, abs=3 * memorized.gap_standard_error)
    assert any("The flow overfits" in one.sentence for one in memorized.deviations)
    assert Gap(0.3, 0.1, 5.0).p_value > 0.01 > Gap(0.3, 0.1, 500.0).p_value


def test_rounded_columns_of_a_right_flow_are_good():
    """Two decimals, and whole numbers that are wide; with classes as a context."""
    rows = draws(0, 1_500, 2) * 5
    for decimals in (2, 0):
        assert kf.two_sample(normal(2, scale=5.0), rows.round(decimals=decimals)).level == "good"
    both = Pooled(("count",), np.zeros((1, 1)), np.zeros((1, 1)), grids={0: (3.0, 1.0)})
    for region, values in (((4.49, 6.4), (5, 6)), ((3.1, 3.4), (3, 3)), ((2.6, 9), (3, 9))):
        assert both.rounded("count", region) == values  # the values inside of it


def test_a_seed_gives_the_same_result_and_leaves_everything_unchanged():
    """The flow, its mode, and the random state of torch and numpy."""
    flow = kf.spline(2, depth=2, hidden=(8,)).train()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    state, rows = torch.get_rng_state(), draws(0, 200, 2)
    first, second = (kf.two_sample(flow, rows, seed=3).to_dict() for _ in range(2))
    assert first == second
    assert first != kf.two_sample(flow, rows, seed=4).to_dict()
    assert flow.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


IMAGES = kf.Flow(kf.StandardNormal((1, 4, 4)), Map(0.0, 1.0))


@pytest.mark.parametrize(
    ("flow", "rows", "words"),
    [
        (normal(2), draws(0, 29, 2), "'x' should hold at least 30 rows"),
        (normal(2), draws(0, 50, 3), "'x' should have"),
        (normal(2), draws(0, 50, 2).log(), "'x'"),
        (IMAGES, draws(0, 50, 1, 4, 4), "'flow' should be a flow of rows of a table"),
    ],
    ids=["few", "columns", "nan", "images"],
)  # fmt: skip
@pytest.mark.parametrize("function", [kf.two_sample, kf.calibration])
def test_wrong_rows_are_named_in_one_sentence(function, flow, rows, words):
    """The message begins with the argument."""
    with pytest.raises(kf.errors.ArgumentError) as error:
        function(flow, rows)
    assert str(error.value).startswith(words)


TRAIN = {
    "columns": (draws(1, 50, 3), "'train' should hold rows of a table like 'x', (N, 2)"),
    "none": (draws(1, 0, 2), "'train' should hold at least one row"),
    "nan": (draws(1, 50, 2).log(), "'train' should hold finite numbers only."),
    "context": ((draws(1, 50, 2), draws(1, 9, 1)), "'train' should be rows alone"),
}


@pytest.mark.parametrize("name", list(TRAIN))
def test_wrong_training_rows_are_named_in_one_sentence(name):
    """As are the held-out rows."""
    train, words = TRAIN[name]
    with pytest.raises(kf.errors.ArgumentError) as error:
        kf.two_sample(normal(2), draws(0, 50, 2), train=train)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize("function", [kf.two_sample, kf.calibration])
def test_a_wrong_seed_is_named(function):
    """It counts from 0."""
    for seed in (-1, 1.5):
        with pytest.raises(kf.errors.ArgumentError, match="^'seed' should be"):
            function(normal(2), X, seed=seed)


class WithoutInverse:
    """A flow that cannot sample."""

    def encode(self, x):
        """Returns the rows."""
        return x, torch.zeros(len(x))

    def decode(self, z):
        """Raises an error."""
        raise NotImplementedError("there is no inverse.\nReally.")


@pytest.mark.parametrize("function", [kf.two_sample, kf.calibration])
def test_a_flow_that_cannot_sample_gives_one_sentence(function):
    """With the error of its library, and no traceback of it."""
    words = (
        r"^kappaflow cannot compare samples .* raised NotImplementedError \(there is no inverse"
    )
    with pytest.raises(kf.errors.ArgumentError, match=words) as error:
        function(WithoutInverse(), X)
    assert "\n" not in str(error.value)


X, UNEVEN = draws(0, 300, 2), np.arange(1, 301.0) ** 9
NOT_CHECKED = {
    "unknown": (X, None, "overfitting, because the training rows are not known"),
    "few": (X, X[:29], "overfitting, because there are fewer than 30 training rows"),
    "same": (X, X.double(), "overfitting, because 'x' should be held-out rows"),
    "rounded": (X.round(), None, "the distribution of log_prob and overfitting, because columns"),
    "weights": (table(X, np.arange(1, 301)), -X, "overfitting, because held-out and"),
    "uneven": (table(X, UNEVEN), table(-X, UNEVEN), "overfitting, because the weights leave"),
    "pairs": (torch.hstack([draws(1, 60, 11), torch.zeros(60, 1)]), None, "6 pairs of columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(NOT_CHECKED))
def test_what_is_not_checked_has_its_reason(name):
    """A dozen columns have 66 pairs; a constant column has no correlation."""
    rows, train, phrase = NOT_CHECKED[name]
    columns = len(rows.columns if isinstance(rows, kf.data.Table) else rows[0])
    assert kf.two_sample(normal(columns), rows, train=train).not_checked[0].startswith(phrase)


def test_a_headline_does_not_contradict_its_deviations():
    """A negligible difference is mentioned, and is not next to one that matters."""
    rows = draws(0, 10_000, 2)
    assert Goodness(kf.two_sample(normal(2, location=0.06), rows)).sentences == [
        "Samples match 10,000 held-out rows in all columns and pairs tested, up to negligible "
        "differences."
    ]
    assert Goodness(kf.two_sample(normal(), rows[:500, :1])).sentences == [
        "Samples match 500 held-out rows, and a classifier cannot separate them."
    ]
    parts = ("x0",), ((0.0, 1.0),), 0.02
    severe = Deviation("column", *parts, 0.001, 500, 1e-3, 0.1, level="bad")
    slight = replace(severe, columns=("x1",), level="good")
    result = kf.two_sample(normal(2), X)
    assert Goodness(replace(result, deviations=(slight, severe))).relevant == (severe,)
    assert Goodness(replace(result, deviations=(slight,))).relevant == (slight,)
    box = replace(severe, columns=("x0", "x1", "x2"), region=((0.0, 1.0), (2.0, 2.0), (-INF, 5.0)))
    assert box.among(1).place == "x0 between 0.0 and 1.0, x1 equal to 2 and x2 below 5.0"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (91.1, 91.304, "between 91.10 and 91.30"),
        (-122.073, -1.9747, "between -122 and -2"),
        (1_500_000_000.0, 1_500_002_000.0, "between 1,500,000,000 and 1,500,002,000"),
        (1e-10, 3e-10, "between 1e-10 and 3e-10"),
        (-0.0000004, 0.000002, "between -4e-07 and 2e-06"),
        (-INF, 1e30, "below 1e+30"),
        (-INF, -3_554_119.0, "below -3,550,000"),
        (2.0, 2.0, "equal to 2"),
    ],
)
def test_the_ends_of_an_interval_are_resolved(low, high, text):
    """With whole numbers for wide ones."""
    assert interval_phrase(low, high) == text


def test_tests_share_the_probability_of_a_false_alarm():
    """A p-value counts times the tests of its group and the groups."""
    family = Family(3)
    one = Deviation("column", ("x0",), ((0.0, 1.0),), 0.02, 0.001, 500, 1e-3, 0.1)
    family.add(one, 4)
    assert not family.sorted()
    family.add(one, 3)
    assert [entry.p_value for entry in family.sorted()] == [pytest.approx(0.009)]
    assert family.sorted()[0].level == "bad"


@pytest.mark.slow
def test_right_flows_of_all_kinds_are_good(monkeypatch):
    """At most 1 of 72 is not; the benchmark compares more of them."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    right = importlib.import_module("benchmarks.right_flows")
    counts = sum(right.right_flows(72).values(), Counter())
    assert counts["good"] >= 71, counts
