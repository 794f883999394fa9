"""Quantiles of a column given the others: `ConditionalFlowDensity` and boosted trees."""

import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.lines import Line
from benchmarks.mixed_known import Values
from benchmarks.mixed_measures import OURS, mean_and_error
from benchmarks.processes import ROOT
from benchmarks.tables_suite import data
from benchmarks.tables_suite.command import timed
from benchmarks.tables_suite.conditional import NEXT, SIZES
from kappaflow.estimator import ConditionalFlowDensity
from kappaflow.training import loop

TABLES = ("magic", "firms", "glucose")  # whose last column is the target
LEVELS = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
SCORED = (0.05, 0.25, 0.5, 0.75, 0.95)
INTERVALS = {50: (0.25, 0.75), 80: (0.1, 0.9), 95: (0.025, 0.975)}
CACHE = ROOT / "runs/quantiles"  # losses of each row, for paired differences
Predict = Callable[[Values], Values]  # of features (N, D): quantiles (N, levels)


def flow(parts: data.Parts, seconds: float, seed: int) -> Predict:
    """Returns quantiles of the default flow of the target given the features."""
    loop.clock = time.process_time
    rows = np.concatenate([parts.train, parts.validation])
    model = ConditionalFlowDensity(max_time_s=seconds, random_state=seed)
    model.fit(rows[:, :-1], rows[:, -1])
    return lambda x: model.predict(x, quantiles=LEVELS)


def trees(parts: data.Parts, seconds: float, seed: int) -> Predict:
    """Returns one model of scikit-learn for each level, of the size that validates best."""
    start, best, cost = time.process_time(), list[tuple[float, Predict]](), 0.0
    for iterations, leaves in SIZES:
        before = time.process_time()
        if best and before - start + NEXT * cost > seconds:
            break
        size: Any = {"max_iter": iterations, "max_leaf_nodes": leaves, "random_state": seed}
        models = [
            HistGradientBoostingRegressor(loss="quantile", quantile=level, **size).fit(
                parts.train[:, :-1], parts.train[:, -1]
            )
            for level in LEVELS
        ]
        predict = lambda x, models=models: np.stack([m.predict(x) for m in models], 1)  # noqa: E731
        loss = float(pinball(predict(parts.validation[:, :-1]), parts.validation[:, -1]).mean())
        best.append((loss, predict))
        cost = time.process_time() - before
    return min(best, key=lambda one: one[0])[1]


def catboost(parts: data.Parts, seconds: float, seed: int) -> Predict:
    """Returns one model of CatBoost for all levels, of the iteration that validates best."""
    model = import_module("catboost").CatBoostRegressor(
        loss_function=f"MultiQuantile:alpha={','.join(map(str, LEVELS))}",
        iterations=100_000,
        learning_rate=0.1,
        thread_count=1,
        random_seed=seed,
        allow_writing_files=False,
        verbose=False,
    )
    validation, end = (
        (parts.validation[:, :-1], parts.validation[:, -1]),
        time.process_time() + seconds,
    )
    timer = SimpleNamespace(after_iteration=lambda info: time.process_time() < end)  # noqa: ARG005
    options = {"eval_set": validation, "use_best_model": True, "early_stopping_rounds": 300}
    model.fit(parts.train[:, :-1], parts.train[:, -1], callbacks=[timer], **options)
    return model.predict


MODELS = {OURS: flow, "HistGradientBoosting": trees, "CatBoost": catboost}


def regressors() -> list[str]:
    """Returns the models that are installed."""
    return [name for name in MODELS if name != "CatBoost" or find_spec("catboost")]


def pinball(quantiles: Values, target: Values) -> Values:
    """Returns the pinball loss of quantiles (N, levels) at each row and level."""
    above = target[:, None] - quantiles
    levels = np.array(LEVELS)
    return np.maximum(levels * above, (levels - 1) * above)


def quantiles(job: Line) -> Line:
    """Returns losses of quantiles at test rows, coverage of intervals, and crossings."""
    parts = data.load(job["table"])
    scale = float(parts.train[:, -1].std())
    predict, times = timed(lambda: MODELS[job["model"]](parts, job["seconds"], job["seed"]))
    target = parts.test[:, -1]
    found, predicting = timed(lambda: predict(parts.test[:, :-1]))
    loss = pinball(found, target)[:, [LEVELS.index(level) for level in SCORED]] / scale
    line = {
        "values": len(target),
        **mean_and_error("pinball", loss.mean(1)),
        "pinball_at": dict(zip(map(str, SCORED), loss.mean(0).tolist(), strict=True)),
        "crossing": float((np.diff(found) < 0).any(1).mean()),
        **times,
        "predicting_s": predicting["processor_s"],
    }
    for level, ends in INTERVALS.items():
        low, high = (found[:, LEVELS.index(end)] for end in ends)
        line[f"coverage_{level}"] = float(((low <= target) & (target <= high)).mean())
        line[f"width_{level}"] = float((high - low).mean()) / scale
    path = CACHE / f"{job['table']}-{job['seed']}-{job['seconds']:g}.npy"
    if job["model"] == OURS:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, loss.mean(1))
    if path.exists():
        line |= mean_and_error("more", loss.mean(1) - np.load(path))
    return line
