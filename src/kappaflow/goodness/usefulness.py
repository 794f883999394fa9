"""`usefulness`: can a model learn from samples of a flow what it learns from real rows?"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kappaflow._checks import natural_int, one_of
from kappaflow.errors import ArgumentError
from kappaflow.flows.rows import Data
from kappaflow.goodness.inputs import same_columns
from kappaflow.goodness.scan import FloatArray
from kappaflow.results import to_plain
from kappaflow.summary import Facts, Summary

MOST_TRAINED = 16_000  # rows, and as many samples
PARTS = 5  # of the samples, and of the rows, whose models show how much a training varies
OPTIONS: dict[str, Any] = {"early_stopping": False, "random_state": 0}
MOST_CLASSES = 10  # different values of a target that are classes
SEEN = 2.0  # standard errors from which a difference is called one
Scored = tuple[float, FloatArray]  # a score, and the influence of each test row on it


@dataclass(frozen=True, repr=False)
class Usefulness(Summary):
    """A model trained on samples and one trained on real rows, tested on the same real rows.

    Attributes:
        target: Name of the column that is predicted from the others.
        score: "AUC" of a classifier, averaged over classes against the others, or "R2" of a
            regression.
        rows: Number of samples, and of real rows, that the models were trained on.
        test_rows: Number of real rows that both were tested on.
        of_samples: Score of the model trained on samples.
        of_samples_error: Its standard error.
        of_rows: Score of the model trained on real rows.
        of_rows_error: Its standard error.
        difference: `of_samples` - `of_rows`.
        difference_error: Its standard error; that both have the same test rows makes it smaller.
        verdict: The result as a sentence.
    """

    target: str
    score: Literal["AUC", "R2"]
    rows: int
    test_rows: int
    of_samples: float
    of_samples_error: float
    of_rows: float
    of_rows_error: float
    difference: float
    difference_error: float
    verdict: str

    def _facts(self) -> Facts:
        return [
            (f"{self.score} from samples", f"{self.of_samples:.3f} ± {self.of_samples_error:.3f}"),
            (f"{self.score} from real rows", f"{self.of_rows:.3f} ± {self.of_rows_error:.3f}"),
            ("difference", f"{self.difference:+.3f} ± {self.difference_error:.3f}"),
            ("trained on", f"{self.rows:,} samples or rows, to predict {self.target}"),
            ("tested on", f"{self.test_rows:,} real rows"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures as plain values for JSON."""
        return to_plain(self)


def usefulness(
    samples: Data, train: Data, test: Data, *, target: str, seed: int = 0
) -> Usefulness:
    """Trains boosted trees on samples and on as many real rows, and tests both on other real rows.

    The trees predict one column from the others. A column with at most 10 different values in the
    training rows has classes, and samples have the nearest class; any other is a regression.

    Args:
        samples: Samples of a flow, (M, D), at least 30: an array, a tensor, a data frame, a
            `Table` or a path.
        train: Real rows, (N, D), at least 30. Of samples and rows as many are used as there are
            of both, and 16,000 at most.
        test: Other real rows, (K, D), at least 30.
        target: Name of the column to predict; those of an array are x0, x1, ...
        seed: Seed of which samples and rows are used.

    Returns:
        Both scores, their difference, and a verdict. A standard error has two sources: the number
        of test rows, and the number of rows that a model was trained on. The second is estimated
        from models of fifths of these rows, which tends to exaggerate it.

    Raises:
        ArgumentError: The columns differ, `target` is not one of them or is constant, there are
            fewer than 30 rows, or a value is not finite.

    Source:
        Esteban, Hyland, Rätsch 2017, Real-valued (medical) time series generation with recurrent
        conditional GANs: train on synthetic, test on real. Errors of AUC: DeLong, DeLong,
        Clarke-Pearson 1988; of R2: the delta method.

    Example:
        >>> import numpy as np, kappaflow as kf
        >>> rows = np.random.default_rng(0).normal(size=(900, 2))
        >>> rows[:, 1] += 2 * rows[:, 0]
        >>> train, test, fresh = rows[:300], rows[300:600], rows[600:]
        >>> result = kf.usefulness(fresh, train, test, target="x1")
        >>> result.score, abs(result.difference) < 0.1
        ('R2', True)
        >>> shuffled = np.column_stack([fresh[:, 0], fresh[::-1, 1]])
        >>> kf.usefulness(shuffled, train, test, target="x1").difference < -0.5
        True
    """
    natural_int("seed", seed)
    names, (samples, train, test) = same_columns(samples=samples, train=train, test=test)
    one_of("target", target, names)
    column = names.index(target)
    classes = np.unique(train[:, column])
    if min(len(classes), len(np.unique(test[:, column])), len(names)) < 2:
        raise ArgumentError(
            f"'target' should be a column that varies in 'train' and 'test', next to others, got "
            f"{target!r}."
        )
    rng = np.random.default_rng(seed)
    number = min(len(samples), len(train), MOST_TRAINED)
    samples, train = (part[rng.permutation(len(part))[:number]] for part in (samples, train))
    score = _auc if len(classes) <= MOST_CLASSES else _r2
    values, influences, variances = [], [], []
    for rows in (samples, train):
        value, influence = score(rows, test, column, classes)
        parts = [score(rows[i::PARTS], test, column, classes)[0] for i in range(PARTS)]
        values.append(value)
        influences.append(influence)
        variances.append(float(np.var(parts, ddof=1)) / PARTS)
    influences.append(influences[0] - influences[1])  # both are tested on the same rows
    variances.append(variances[0] + variances[1])
    errors = [
        math.sqrt(float(influence.var(ddof=1)) / len(test) + variance)
        for influence, variance in zip(influences, variances, strict=True)
    ]
    of_samples, of_rows = values
    name, chance = ("AUC", 0.5) if score is _auc else ("R2", 0.0)
    difference = of_samples - of_rows
    if of_rows - chance <= SEEN * errors[1]:
        start = f"Real rows do not predict {target} either"
    elif difference < -SEEN * errors[2]:
        start = f"Samples are less useful than real rows to predict {target}"
    else:
        start = f"Samples are as useful as real rows to predict {target}, as far as this shows"
    verdict = (
        f"{start}: on {len(test):,} real rows the {name} is {of_samples:.3f} ± {errors[0]:.3f} "
        f"after training on {number:,} samples and {of_rows:.3f} ± {errors[1]:.3f} after training "
        f"on as many real rows, a difference of {difference:+.3f} ± {errors[2]:.3f}."
    )
    return Usefulness(
        target=target,
        score=name,
        rows=number,
        test_rows=len(test),
        of_samples=of_samples,
        of_samples_error=errors[0],
        of_rows=of_rows,
        of_rows_error=errors[1],
        difference=difference,
        difference_error=errors[2],
        verdict=verdict,
    )


def _auc(train: FloatArray, test: FloatArray, column: int, classes: FloatArray) -> Scored:
    """Returns the AUC of a classifier, averaged over the classes in the test rows."""
    from scipy.stats import rankdata
    from sklearn.ensemble import HistGradientBoostingClassifier

    labels, actual = (  # the nearest class
        np.abs(part[:, column, None] - classes).argmin(axis=1) for part in (train, test)
    )
    scores = np.zeros((len(test), len(classes)))
    if np.ptp(labels):  # of one class nothing is learned
        model: Any = HistGradientBoostingClassifier(**OPTIONS)
        model.fit(np.delete(train, column, axis=1), labels)
        scores[:, model.classes_] = model.predict_proba(np.delete(test, column, axis=1))
    values, influences = [], []
    for label in np.unique(actual):
        ranks, inside = rankdata(scores[:, label]), actual == label
        shares = np.empty(len(test))  # of the other side that each row is on the right side of
        for side in (inside, ~inside):
            shares[side] = (ranks[side] - rankdata(scores[side, label])) / (~side).sum()
        shares[~inside] = 1 - shares[~inside]
        auc = float(shares[inside].mean())
        values.append(auc)
        influences.append((shares - auc) / np.where(inside, inside.mean(), 1 - inside.mean()))
    return float(np.mean(values)), np.mean(influences, axis=0)


def _r2(train: FloatArray, test: FloatArray, column: int, classes: FloatArray) -> Scored:
    """Returns the share of the variance of the test rows that a regression predicts."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model: Any = HistGradientBoostingRegressor(**OPTIONS)
    model.fit(np.delete(train, column, axis=1), train[:, column])
    residuals = test[:, column] - model.predict(np.delete(test, column, axis=1))
    squares = (test[:, column] - test[:, column].mean()) ** 2 / test[:, column].var()
    lost = residuals**2 / test[:, column].var()
    return 1 - float(lost.mean()), lost.mean() * squares - lost
