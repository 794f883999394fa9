"""Factorizations within several counts."""

import dataclasses

import numpy as np
import pytest

import kappaflow as kf
from kappaflow_studies.factors import trade_off as module
from kappaflow_studies.factors.trade_off import trade_off


def gaussian(n, seed=1):
    """Returns a Gaussian map."""
    return np.random.default_rng(seed).standard_normal((n, n))


def test_the_largest_condition_number_never_rises():
    """The result for a count also competes for larger counts."""
    turn = np.linalg.qr(gaussian(8))[0]
    both = [kf.factor_linear(turn, couplings=11, method=name) for name in ("rotation", "svd")]
    good, bad = sorted(both, key=lambda result: result.condition_number)
    trials = trade_off(turn, counts=(16, 6, 8, 7), known={6: bad, 7: good, 8: bad, 16: bad})
    assert [trial.couplings for trial in trials] == [6, 7, 8, 16]
    assert [trial.factorization for trial in trials] == [bad, good, good, good]
    assert good.condition_number < bad.condition_number


@pytest.mark.slow
def test_an_impossible_count_gives_the_reason():
    """The other counts are still computed."""
    few, enough = trade_off(gaussian(4), counts=(2, 6))
    assert few.factorization is None and "two need" in few.why_not
    assert len(enough.factorization) == 6 and enough.why_not == ""


@pytest.mark.slow
def test_known_factorizations_are_not_computed_again(monkeypatch):
    """Progress is reported for the other counts only."""
    known = kf.factor_linear(gaussian(4))
    requested, text = [], []
    monkeypatch.setattr(
        module, "factor_linear", lambda *_, couplings, **__: requested.append(couplings) or known
    )
    trials = trade_off(gaussian(4), counts=(6, 8), known={6: known}, progress=text.append)
    assert requested == [8] and text == ["looking for 8 couplings"]
    assert [trial.factorization for trial in trials] == [known, known]


@pytest.mark.parametrize(
    ("matrix", "arguments", "message"),
    [
        (np.ones((4, 4)), {}, "'matrix' should be invertible"),
        (np.eye(4), {"partition": 4}, "'partition' should split"),
        (np.eye(4), {"seed": -1}, "'seed' should be"),
        (np.eye(4), {"counts": (6, 0)}, "'counts' should be at least 1"),
    ],
)
def test_invalid_arguments_raise_before_the_first_count(matrix, arguments, message):
    """The error is raised once and not stored for each count."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        trade_off(matrix, **arguments)


def test_an_inexact_factorization_does_not_win():
    """Even if it is well conditioned; if there is no other, it is returned with a note."""
    turn = np.linalg.qr(gaussian(4))[0]
    both = [kf.factor_linear(turn, couplings=11, method=name) for name in ("rotation", "svd")]
    better, good = sorted(both, key=lambda result: result.condition_number)
    off = dataclasses.replace(better, residual=1e-6)
    assert off.condition_number < good.condition_number
    trials = trade_off(turn, counts=(6, 8), known={6: good, 8: off})
    assert [trial.factorization for trial in trials] == [good, good]
    assert "residual is 1e-06" in trials[1].why_not and trials[0].why_not == ""
    trials = trade_off(turn, counts=(6, 8), known={6: off, 8: good})
    assert [trial.factorization for trial in trials] == [off, good]
    assert "residual is 1e-06" in trials[0].why_not


def test_the_identity_needs_none_at_any_count():
    """A factorization without couplings is valid."""
    assert [len(trial.factorization) for trial in trade_off(np.eye(4), counts=(1, 6))] == [0, 0]
