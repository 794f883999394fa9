"""A rotation as Householder reflections."""

import numpy as np

from kappaflow.errors import ArgumentError

Floats = np.ndarray


def reflections_of(rotation: Floats) -> Floats:
    r"""Returns vectors v_1 to v_k with :math:`H_1 \cdots H_k` equal to a rotation.

    Args:
        rotation: Orthogonal, (n, n), of determinant 1.

    Returns:
        (k, n), k being n or n - 1, whichever is even; reflections that are not needed come in
        equal pairs, which cancel.

    Source:
        Householder 1958: the QR decomposition of an orthogonal matrix, whose R is the identity
        where each reflection takes a column to an axis, not to its negative.

    Example:
        >>> reflections_of(np.array([[0.0, -1.0], [1.0, 0.0]])).shape
        (2, 2)
    """
    n = len(rotation)
    rest, found = rotation.copy(), []
    for k in range(n):
        column = rest[k:, k]
        length, below = np.linalg.norm(column), column[1:] @ column[1:]
        if below <= (np.finfo(float).eps * length) ** 2 and column[0] > 0:
            continue  # the axis already
        vector = np.zeros(n)
        vector[k:] = column
        # column[0] - length, without cancellation.
        vector[k] = -below / (column[0] + length) if column[0] > 0 else column[0] - length
        rest -= np.outer(2 * vector / (vector @ vector), vector @ rest)
        found.append(vector)
    number = n // 2 * 2
    if len(found) % 2:
        raise ArgumentError("'rotation' should have determinant 1, got a reflection.")
    pairs = np.repeat(np.eye(n), 2, axis=0)[: number - len(found)]
    return np.concatenate([np.reshape(found, (-1, n)), pairs])
