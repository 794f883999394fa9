"""Matrices that the tests of factorizations share."""

import numpy as np


def orthogonal(n, rng, *, sign=1):
    """Returns a random orthogonal matrix with determinant `sign`."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    q = q * np.sign(np.diag(r))
    if np.linalg.slogdet(q)[0] != sign:
        q[:, 0] *= -1
    return q


def nearest(matrix):
    """Returns the orthogonal matrix nearest to a matrix."""
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def geometric(n, rng, condition):
    """Returns a random matrix with a geometric spectrum from 1 down, det > 0."""
    scales = np.geomspace(1, 1 / condition, n)
    return orthogonal(n, rng) @ np.diag(scales) @ orthogonal(n, rng)


def positive(matrix):
    """Returns the matrix with its last row negated where its determinant is negative."""
    matrix = np.array(matrix, dtype=float)
    if np.linalg.slogdet(matrix)[0] < 0:
        matrix[-1] *= -1
    return matrix


def unit(matrix):
    """Returns the matrix with determinant 1, one row's sign changed if need be."""
    sign, log = np.linalg.slogdet(matrix)
    matrix = matrix * np.exp(-log / len(matrix))
    matrix[0] *= sign
    return matrix


def gaussian(n, seed=0):
    """Returns a Gaussian map of determinant 1."""
    return unit(np.random.default_rng(seed).standard_normal((n, n)))


def block_diagonal(*blocks):
    """Returns the block-diagonal matrix of square blocks."""
    n = sum(len(block) for block in blocks)
    matrix, at = np.zeros((n, n)), 0
    for block in blocks:
        matrix[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return matrix


def cycle(n, length):
    """Returns the permutation matrix that moves the last `length` features round."""
    return block_diagonal(np.eye(n - length), np.roll(np.eye(length), 1, axis=0))


def sharp(n):
    """Returns a map that needs six couplings (theorem A), det > 0."""
    if n == 4:
        return block_diagonal([[0.0, 1.0], [-1.0, 0.0]], [[1.0, 1.0], [-1.0, 0.0]])
    return cycle(n, 3)


def product(factors):
    """Returns the product of factors as a dense matrix."""
    result = np.eye(len(factors[0].matrix))
    for factor in factors:
        result = result @ factor.matrix
    return result


def relative(product_of_factors, expected):
    """Returns the relative error of a matrix in the Frobenius norm."""
    return np.linalg.norm(product_of_factors - expected) / np.linalg.norm(expected)
