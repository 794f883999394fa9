"""The ways to factor a problem; each returns factors of its matrix, or says why it cannot."""

import importlib
from collections.abc import Callable

import numpy as np

from kappaflow.errors import ArgumentError
from kappaflow.factor.eleven import factor_eleven
from kappaflow.factor.factors import Factor, unit_factors
from kappaflow.factor.problem import Problem
from kappaflow.factor.rotation import ORTHOGONAL, factor_rotation
from kappaflow.factor.spread import spread

SIX, ELEVEN = 6, 11


def is_rotation(problem: Problem) -> bool:
    """Returns whether the map is a rotation, times its scale, to rounding."""
    unit = problem.matrix / problem.scale
    return bool(np.abs(unit.T @ unit - np.eye(len(unit))).max() <= ORTHOGONAL)


def by_rotation(problem: Problem) -> list[Factor]:
    """Returns six factors of a rotation, in closed form."""
    _only_halves(problem, "rotation")
    if not is_rotation(problem):
        raise ArgumentError(
            "'method' should not be 'rotation' for this matrix: it is not orthogonal, even up to "
            "a factor; method='auto' takes any."
        )
    six = factor_rotation(problem.matrix / problem.scale)
    return spread(unit_factors(six), scale=problem.scale)


def by_eleven(problem: Problem) -> list[Factor]:
    """Returns eleven factors, in closed form."""
    _only_halves(problem, "eleven")
    return factor_eleven(problem.matrix)


def by_tracking(problem: Problem, couplings: int, seed: int) -> list[Factor]:
    """Returns at most so many factors, six or more, found by following a path."""
    unit = problem.matrix / problem.scale
    if not problem.even:
        factors = _found("uneven", "track_uneven")(unit, problem.first, couplings, seed=seed)
        return spread([Factor(*factor) for factor in factors], scale=problem.scale)
    if couplings == SIX:
        blocks = _found("tracking", "track_six")(unit, seed=seed)
    else:
        blocks = _found("tracking", "track")(unit, couplings, seed=seed)
    # The last factor is an upper one, whatever their number.
    factors = unit_factors(blocks, lower_first=len(blocks) % 2 == 0)
    return spread(factors, scale=problem.scale)


def by_five(problem: Problem, seed: int) -> list[Factor]:
    """Returns five factors, L U L U L, where the upper right block allows it."""
    blocks = _found("tracking", "track_five")(problem.matrix / problem.scale, seed=seed)
    return spread(unit_factors(blocks), scale=problem.scale)


def _only_halves(problem: Problem, method: str) -> None:
    """Refuses a closed form that is for two equal halves."""
    if not problem.even:
        kept, changed = problem.first, len(problem.matrix) - problem.first
        raise ArgumentError(
            f"'method' should be 'auto' or 'tracking' for parts of {kept} and {changed} features, "
            f"got {method!r}: it is for two halves of one size."
        )


def _found(module: str, name: str) -> Callable:
    """Returns a function of a module that is loaded when it is asked for."""
    return getattr(importlib.import_module(f"kappaflow.factor.{module}"), name)
