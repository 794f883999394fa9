"""`usefulness`: real and useless samples, and the errors of the scores."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score, roc_auc_score

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.goodness.usefulness import _auc, _r2


def labeled(seed, count, classes=2):
    """Returns a frame with two features, a class that depends on them, and a sum with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2))
    edges = [-0.5, 0.7][: classes - 1]
    kind = np.digitize(x[:, 0] * x[:, 1] + 0.5 * rng.normal(size=count), edges)
    y = x.sum(axis=1) + 0.3 * rng.normal(size=count)
    return pd.DataFrame({"a": x[:, 0], "kind": kind + 5.0, "b": x[:, 1], "y": y})


@pytest.mark.parametrize(("target", "classes"), [("kind", 3), ("y", 2)])
def test_real_samples_are_useful_and_shuffled_ones_are_not(target, classes):
    """Within two errors of real rows, and many errors below."""
    train, test, fresh = (labeled(seed, 400, classes) for seed in (1, 2, 3))
    columns = ["a", "b", target]
    result = kf.usefulness(fresh[columns], train, test, target=target)
    assert result.score == ("R2" if target == "y" else "AUC")
    assert result.rows == result.test_rows == 400
    assert abs(result.difference) < 2 * result.difference_error
    assert result.difference_error < np.hypot(result.of_samples_error, result.of_rows_error)
    assert result.verdict.startswith(f"Samples are as useful as real rows to predict {target}")
    shuffled = fresh.assign(**{target: fresh[target].to_numpy()[::-1]})
    result = kf.usefulness(shuffled, train, test, target=target)
    assert result.difference < -5 * result.difference_error
    assert "less useful" in result.verdict and result.to_dict()["target"] == target


def test_a_target_that_nothing_predicts_says_little():
    """Samples that teach nothing lose nothing."""
    rows = np.random.default_rng(4).normal(size=(900, 2))
    result = kf.usefulness(*np.split(rows, 3), target="x1")
    assert result.verdict.startswith("Real rows do not predict x1 either")
    assert "difference" in str(result)


def test_scores_are_those_of_scikit_learn(monkeypatch):
    """AUC is averaged over classes against the others."""
    calls = []

    class Model:
        """Predicts from the first feature."""

        classes_ = np.arange(3)

        def __init__(self, **options):
            calls.append(options)

        def fit(self, x, y):
            """Learns nothing."""

        def predict_proba(self, x):
            """Returns shares that sum to 1, with ties."""
            scores = np.exp(np.round(np.outer(x[:, 0], [-1, 0.1, 1]), 1))
            return scores / scores.sum(axis=1, keepdims=True)

        def predict(self, x):
            """Returns the first feature."""
            return x[:, 0]

    for name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        monkeypatch.setattr(f"sklearn.ensemble.{name}", Model)
    rows = labeled(5, 300, classes=3).to_numpy()
    classes = np.unique(rows[:, 1])
    auc, _ = _auc(rows, rows, 1, classes)
    assert auc == pytest.approx(
        roc_auc_score(rows[:, 1], Model().predict_proba(rows), multi_class="ovr")
    )
    r2, _ = _r2(rows, rows, 3, classes)
    assert r2 == pytest.approx(r2_score(rows[:, 3], rows[:, 0]))

    errors, draws = [], np.random.default_rng(6).integers(0, 300, (300, 300))
    for score, column in ((_auc, 1), (_r2, 3)):
        _, influence = score(rows, rows, column, classes)
        assert influence.mean() == pytest.approx(0, abs=1e-12)
        values = [score(rows, rows[index], column, classes)[0] for index in draws]
        errors.append(influence.std(ddof=1) / np.sqrt(300) / np.std(values))
    assert errors == pytest.approx([1, 1], abs=0.15)  # of the bootstrap


def test_samples_of_a_class_have_the_nearest_value_and_may_lack_classes():
    """A flow without noise returns no whole numbers; with one class nothing is learned."""
    train, test = labeled(1, 300), labeled(2, 300)
    noisy = train.assign(kind=train["kind"] + 0.1)
    same = kf.usefulness(noisy, train, test, target="kind")
    assert same.difference == 0
    classes = np.array([5.0, 6.0])
    influence = _auc(train.to_numpy(), test.to_numpy(), 1, classes)[1]
    errors = same.of_samples_error**2 + same.of_rows_error**2 - 2 * influence.var(ddof=1) / 300
    assert same.difference_error**2 == pytest.approx(errors)  # test rows are the same for both
    result = kf.usefulness(train.assign(kind=5.0), train, test, target="kind")
    assert result.of_samples == 0.5 and result.of_samples_error == 0


def test_wrong_targets_are_refused():
    """Each by its sentence."""
    rows = labeled(1, 40)
    with pytest.raises(ArgumentError, match="'target' should be one of 'a', 'kind', 'b', 'y'"):
        kf.usefulness(rows, rows, rows, target="c")
    constant = rows.assign(kind=5.0)
    with pytest.raises(ArgumentError, match="'target' should be a column that varies in 'train'"):
        kf.usefulness(rows, constant, rows, target="kind")
    with pytest.raises(ArgumentError, match="next to others, got 'a'"):
        kf.usefulness(rows[["a"]], rows, rows, target="a")
