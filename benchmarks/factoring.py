"""Measures single factorizations, and a rewritten flow, for `python -m benchmarks factor`."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

import kappaflow as kf
from benchmarks.goals import GOALS, REWRITE, Goal
from benchmarks.lines import Line, append_line
from benchmarks.magic import magic
from kappaflow_studies import ensembles

SMALL = 8


def take_draws(place: int, draws: Sequence[int], threads: int | None, file: Path) -> None:
    """Measures a goal, and appends a line for each draw."""
    goal = GOALS[place]
    if goal.row != REWRITE:
        warm_up(goal)
    for draw in draws:
        named = {"row": goal.row, "ensemble": goal.ensemble, "n": goal.n}
        named |= {"couplings": goal.couplings, "draw": draw, "threads": threads}
        append_line(
            file, named | (rewritten(draw) if goal.row == REWRITE else one_draw(goal, draw))
        )


def warm_up(goal: Goal) -> None:
    """Factors a small matrix, so that no measured time includes imports."""
    with suppress(kf.errors.NumericalError):
        matrix = ensembles.draw(goal.ensemble, min(SMALL, goal.n), 0)
        kf.factor_linear(matrix, couplings=goal.couplings, method=goal.method)


def one_draw(goal: Goal, draw: int) -> Line:
    """Returns the figures of a factorization, or the reason why there is none."""
    matrix = ensembles.draw(goal.ensemble, goal.n, draw)
    start = time.perf_counter()
    try:
        found = kf.factor_linear(matrix, couplings=goal.couplings, method=goal.method)
    except kf.errors.NumericalError as error:
        return {"error": str(error)}
    figures = {
        "time_s": time.perf_counter() - start,
        "found": len(found),
        "method": found.method,
        "residual": found.residual,
        "condition_numbers": list(found.condition_numbers),
        "of_the_map": float(np.linalg.cond(matrix)),
    }
    if goal.by_inverse:
        figures["residual"] = error_by_inverse(found, matrix)
    return figures


def error_by_inverse(found: kf.factor.Factorization, matrix: np.ndarray) -> float:
    """Returns |product T^-1 - I| (Frobenius norm), with a product in extended precision.

    If numpy's longdouble is no wider than float64, rounding of the product adds to the error.
    """
    product = np.eye(len(matrix), dtype=np.longdouble)
    for coupling in found.couplings:
        product = product @ coupling.matrix().numpy().astype(np.longdouble)
    off = (product - matrix).astype(float)
    return float(np.linalg.norm(np.linalg.solve(matrix.T, off.T)))


def rewritten(seed: int, *, epochs: int = 10, depth: int = 8) -> Line:
    """Trains a flow with learned linear layers on MAGIC, rewrites it, and compares them."""
    train, validation, test = magic()
    features = len(train.columns)
    flow = mixed_flow(features, depth, seed)
    kf.fit(flow, train, validation=validation, max_epochs=epochs, seed=seed, progress=False)
    points = torch.as_tensor(test.values, dtype=torch.float32)
    start = time.perf_counter()
    _, certificate = kf.rewrite_fixed_partition(flow, points)
    return {
        "time_s": time.perf_counter() - start,
        "residual": certificate.differences["float32"].log_prob,
        "replaced": len(certificate.replaced),
        "couplings_before": certificate.couplings_before,
        "couplings_after": certificate.couplings_after,
        "condition_numbers": [
            number for one in certificate.replaced for number in one.condition_numbers
        ],
    }


def mixed_flow(features: int, depth: int, seed: int) -> kf.Flow:
    """Returns couplings on one partition with learned linear layers between them."""
    torch.manual_seed(seed)
    partition = kf.Partition.half(features)
    changed = len(partition.changed)
    layers: list[kf.Bijection] = [kf.bijections.Standardize(features)]
    for number in range(depth):
        if number:
            layers.append(kf.bijections.LULinear(features, seed=seed * depth + number))
        net = kf.nets.MLP(features - changed, 2 * changed, (64, 64))
        layers.append(kf.AffineCoupling(partition, net))
    return kf.Flow(kf.StandardNormal(features), kf.Chain(layers))
