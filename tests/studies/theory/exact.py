"""Matrices of fractions, and intervals around their norms."""

from fractions import Fraction

import numpy as np
from mpmath import iv

from kappaflow_studies.theory.exact import reduced_rows

LEFT, RIGHT = slice(2), slice(2, None)  # the halves of four features


def exact(matrix):
    """Returns an array of whole numbers or fractions as fractions."""
    values = np.asarray(matrix, dtype=object)
    return np.array([Fraction(x) for x in values.flat], dtype=object).reshape(values.shape)


def eye(size):
    """Returns the identity."""
    return exact(np.eye(size, dtype=int).tolist())


def drawn(rng, *shape, zeros=0.0):
    """Returns a matrix of small fractions, some of them zero."""
    whole = rng.integers(-3, 4, shape) * (rng.random(shape) >= zeros)
    return exact(whole.tolist()) / int(rng.integers(1, 4))


def inverse(matrix):
    """Returns the inverse; None if there is none."""
    rows, pivots = reduced_rows(np.hstack([matrix, eye(len(matrix))]), len(matrix))
    return rows[:, len(matrix) :] if len(pivots) == len(matrix) else None


def interval(fraction):
    """Returns an interval around a fraction."""
    return iv.mpf(fraction.numerator) / fraction.denominator


def root(fraction):
    """Returns an interval around the square root of a fraction."""
    return iv.sqrt(interval(fraction))


def extreme_squares(matrix):
    """Returns intervals around the squares of both singular values of a matrix of rank two."""
    gram = matrix @ matrix.T if len(matrix) == 2 else matrix.T @ matrix
    trace, determinant = gram[0, 0] + gram[1, 1], gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2
    largest = (interval(trace) + root(trace * trace - 4 * determinant)) / 2
    return largest, interval(determinant) / largest if largest.a > 0 else largest


def norm(matrix):
    """Returns an interval around the largest singular value."""
    return iv.sqrt(extreme_squares(matrix)[0])


def smallest(matrix):
    """Returns an interval around the smallest singular value."""
    return iv.sqrt(extreme_squares(matrix)[1])


def coupling(lower, block, scale):
    """Returns a coupling and its inverse."""
    own, kept = (RIGHT, LEFT) if lower else (LEFT, RIGHT)
    there, back, ones = eye(4), eye(4), eye(2)
    there[own, kept], there[own, own] = block, scale * ones
    back[own, kept], back[own, own] = -block / scale, ones / scale
    return there, back


def condition(block, scale):
    """Returns an interval around the condition number, by the lemma of scaled couplings."""
    cost = interval(scale + 1 / scale) + extreme_squares(block)[0] / interval(scale)
    return (cost + iv.sqrt(cost * cost - 4)) / 2


def product(matrices):
    """Returns the product of matrices of fractions."""
    result = matrices[0]
    for matrix in matrices[1:]:
        result = result @ matrix
    return result


def at_least(matrix):
    """Returns a fraction just below the square of the largest singular value."""
    scale = max(abs(x) for x in matrix.flat) or Fraction(1)
    vector = np.linalg.svd((matrix / scale).astype(float))[2][0]
    at = exact([Fraction(x).limit_denominator(10**9) for x in vector.tolist()])
    image = matrix @ at
    return image @ image / (at @ at)
