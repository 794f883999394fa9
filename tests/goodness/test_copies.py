"""`copies`: what is called copying, what is not, and how often by mistake."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import stats

import kappaflow as kf
from kappaflow.data import dequantize
from kappaflow.errors import ArgumentError


def true_rows(seed, count, columns=3):
    """Returns rows of a bent distribution with a heavy-tailed column."""
    rows = np.random.default_rng(seed).normal(size=(count, columns))
    rows[:, 1] += rows[:, 0] ** 2
    rows[:, 2] = np.sinh(2 * rows[:, 2])
    return rows


def three(seed=0, train=600, held_out=600, samples=600):
    """Returns fresh samples, training rows and held-out rows."""
    rows = true_rows(seed, train + held_out + samples)
    return np.split(rows, [samples, samples + train])


def test_training_rows_with_tiny_noise_are_copies():
    """All samples are nearest to a training row, and none equals one."""
    _, train, held_out = three()
    noise = 1e-3 * np.random.default_rng(9).normal(size=train.shape)
    result = kf.copies(train + noise, train, held_out)
    assert result.p_value < 1e-3 and result.share > 0.98 and result.exact == 0
    assert result.distance < 0.1 * result.held_out_distance
    assert result.verdict.startswith("Samples are too near to training rows: ")


@pytest.mark.parametrize("held_out", [600, 75])
def test_fresh_samples_are_no_copies(held_out):
    """Also if there are eight times as many training rows."""
    result = kf.copies(*three(1, held_out=held_out))
    assert result.p_value > 0.05 and result.expected == pytest.approx(600 / (600 + held_out))
    assert abs(result.share - result.expected) < 3 * result.standard_error
    assert result.distance == pytest.approx(result.held_out_distance, rel=0.3)
    assert "show no copies" in result.verdict and f"{result.smallest:.1%}" in result.verdict


@pytest.mark.parametrize("held_out", [600, 150])
def test_the_share_of_copies_is_estimated(held_out):
    """Half of the samples are copies: with as many held-out rows 3/4 are nearest to training."""
    fresh, train, held_out = three(2, held_out=held_out)
    result = kf.copies(np.concatenate([fresh, train]), train, held_out)
    expected = len(train) / (len(train) + len(held_out))
    assert result.share == pytest.approx((1 + expected) / 2, abs=0.03)
    assert result.copied == pytest.approx(0.5, abs=0.1) and result.p_value < 1e-3
    assert result.exact == 0.5 and result.exact_by_chance == 0
    assert "50.0% equal a training row, and 0.0% would by chance" in result.verdict


def test_exact_copies_are_counted_up_to_float32():
    """A flow returns float32."""
    fresh, train, held_out = three(3)
    samples = np.concatenate([fresh[:300], train[:100]]).astype(np.float32)
    assert kf.copies(samples, train, held_out).exact == 0.25


def test_noise_on_rounded_values_is_rounded_away():
    """Tables of a run have it."""
    tables = [kf.load_table(np.round(part)) for part in three(10)]
    noisy = [dequantize(table, dict.fromkeys(table.columns, 1.0)) for table in tables]
    plain, result = kf.copies(*tables), kf.copies(*noisy)
    assert result == plain and result.exact > 0


def test_a_few_exact_copies_are_enough():
    """Here 3 % of the samples; as near as others they would not show."""
    fresh, train, held_out = three(12, 800, 800, 1_000)
    fresh[:30] = train[:30]
    result = kf.copies(fresh, train, held_out)
    assert result.p_value < 1e-3 and result.exact == 0.03 and result.smallest > 0.1
    assert "3.0% equal a training row, and 0.0% would by chance" in result.verdict
    fresh[:30] += 1e-3
    assert kf.copies(fresh, train, held_out).p_value > 0.01


def test_exact_copies_by_chance_are_estimated():
    """Of rounded rows, three training rows for each held-out row; and of a split by values."""
    coarse = [np.round(part[:, :2]) for part in three(11, 600, 200)]
    for parts in (coarse, together(*coarse)):
        result = kf.copies(*parts)
        assert result.exact > 0.5 and result.p_value > 0.05
        assert result.exact_by_chance == pytest.approx(result.exact, rel=0.25)


def p_values(change, repetitions=100):
    """Returns p-values of fresh samples, after a change of samples, training and held-out rows."""
    parts = (three(seed, 160, 80, 150) for seed in range(100, 100 + repetitions))
    return np.array([kf.copies(*change(*part)).p_value for part in parts])


def together(samples, train, held_out):
    """Returns rounded rows, split again so that equal ones are in one part."""
    rows = np.round(np.concatenate([train, held_out]))
    _, group = np.unique(rows, axis=0, return_inverse=True)
    in_train = np.random.default_rng(len(np.unique(group))).random(group.max() + 1) < 0.67
    return np.round(samples), rows[in_train[group.ravel()]], rows[~in_train[group.ravel()]]


@pytest.mark.parametrize(
    "change",
    [
        lambda *parts: parts,
        together,
        lambda samples, *rows: (np.repeat(samples[:30] / 3, 5, axis=0), *rows),
    ],
    ids=["rows", "rounded", "a wrong flow"],
)
def test_p_values_are_uniform_without_copying(change):
    """Of 100 tables; those of coarse rows are a little larger, as shares take few values."""
    values = p_values(change)
    assert stats.kstest(values, "uniform", alternative="greater").pvalue > 0.01
    assert (values < 0.05).sum() <= 11 and (values < 0.5).sum() >= 30


def test_rows_that_repeat_in_the_data_are_no_evidence():
    """A value that fills half of the training rows is one row."""
    fresh, train, held_out = three(4)
    fresh[:300] = train[:300] = train[0]
    result = kf.copies(fresh, train, held_out)
    assert result.p_value > 0.05 and result.exact == pytest.approx(0.5)
    assert result.train_rows == 301


def test_units_and_increasing_maps_of_a_column_change_nothing():
    """Ranks are compared, and a constant column is left out."""
    parts = three(5)
    expected = kf.copies(*parts)
    scaled = [part * [1, 1e6, -1e-6] + [3, 0, 0] for part in parts]
    scaled = [np.column_stack([part, np.full(len(part), 7.0)]) for part in scaled]
    result = kf.copies(*scaled)
    assert result.share == expected.share and result.p_value == expected.p_value
    assert result.distance == pytest.approx(expected.distance)


def test_many_columns_are_compared_as_few_are():
    """By all distances instead of a tree."""
    rows = np.random.default_rng(6).normal(size=(900, 20))
    train, held_out, fresh = np.split(rows, 3)
    assert kf.copies(fresh, train, held_out).p_value > 0.05
    assert kf.copies(train[:90] + 1e-3, train, held_out).share == 1


def test_rows_of_any_kind_match_by_name():
    """Frames have their columns in any order, and further ones; arrays go by position."""
    parts = three(7, 100, 100, 100)
    expected = kf.copies(*parts).to_dict()
    samples, train, held_out = (pd.DataFrame(part, columns=["a", "b", "c"]) for part in parts)
    mixed = pl.from_pandas(train[["c", "a", "b"]].assign(number=1.5))
    assert kf.copies(samples, mixed, kf.load_table(held_out)).to_dict() == expected
    assert kf.copies(torch.tensor(parts[0]), mixed[:, [1, 2, 0]], parts[2]).to_dict() == expected
    assert json.loads(json.dumps(expected)) == expected


def test_results_are_shown_as_text():
    """With the share and what it would be."""
    result = kf.copies(*three(8, 100, 100, 100))
    assert f"without copying: {result.expected:.1%}; p-value: {result.p_value:.2g}" in str(result)


def test_wrong_rows_are_refused():
    """Each by its sentence."""
    samples, train, held_out = three(9, 40, 40, 40)
    frame = pd.DataFrame(train, columns=["a", "b", "c"])
    gap = np.where(np.arange(3) == 1, np.nan, held_out)
    for arguments, message in (
        ((samples[:, :2], train, held_out), r"'train' should have at least 30 rows of the 2 col"),
        ((samples, train, held_out[:9]), r"'held_out' should .* 'samples', got shape \(9, 3\)"),
        ((samples, train, gap), "'held_out' should hold finite numbers only"),
        ((frame, frame[["a"]], frame), "'train' should have the columns of 'samples', it lacks"),
        ((samples, 0 * train, 0 * held_out), "'train' should have a column that is not constant"),
        ((samples, 5, held_out), "'train' should be a tensor, an array, a data frame or a path"),
    ):
        with pytest.raises(ArgumentError, match=message):
            kf.copies(*arguments)
    with pytest.raises(ArgumentError, match="'seed' should be at least 0, got -1"):
        kf.copies(samples, train, held_out, seed=-1)
