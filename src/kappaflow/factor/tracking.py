r"""Well-conditioned couplings of any map, by following the path from its rotation and descent."""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import LinAlgError, norm

from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.follow import SMALL, along, better, worst
from kappaflow.factor.matrices import square_floats
from kappaflow.factor.path import FivePath, Path
from kappaflow.factor.six import Six
from kappaflow.factor.word import product

Blocks = Sequence[np.ndarray]

SINGULAR = 1e-8  # of T12, in units of |T|: five couplings would need norms beyond its inverse


def track(
    matrix: np.ndarray,
    couplings: int,
    *,
    seed: int = 0,
    steps: int = 300,
    goal: float | None = None,
) -> list[np.ndarray]:
    r"""Returns the blocks of so many unit couplings, L first, whose product is T.

    The path O S^t is followed from the closed form at its rotation O, with some descent at each
    stride so that it stays well conditioned; then the largest block norm descends.

    Args:
        matrix: T, (n, n), with determinant 1.
        couplings: How many: six or more.
        seed: Of the small step away from degenerate starts.
        steps: Of the last descent, at most.
        goal: Condition number of the worst coupling at which the descent may stop.

    Returns:
        One block for each coupling: with d = n // 2, (n - d, d) and (d, n - d) in turn.

    Raises:
        ArgumentError: The matrix is not of that kind, or there are fewer than six.
        NumericalError: The path was lost, or rounding is too large.

    Note:
        Up to n = 64 a dense (n^2/4)^2 system, beyond that products of d x d matrices only.

    Source:
        Ours.

    Example:
        >>> blocks = track(np.diag([4.0, 2.0, 0.5, 0.25]), 6)
        >>> bool(np.allclose(product(blocks), np.diag([4.0, 2.0, 0.5, 0.25])))
        True
    """
    matrix = _checked(matrix)
    if couplings < 6:
        raise ArgumentError(
            f"'couplings' should be at least 6, got {couplings}: fewer do not make every map."
        )
    path = Path(matrix)
    first = path.degenerate
    try:
        begun = Path(matrix, twisted=True) if first else path
        return along(begun, couplings, seed=seed, steps=steps, goal=goal)
    except NumericalError:
        other = path if first else Path(matrix, twisted=True)
        return along(other, couplings, seed=seed, steps=steps, goal=goal)


def track_six(
    matrix: np.ndarray,
    *,
    seed: int = 0,
    steps: int = 300,
    goal: float | None = None,
    scale: float = 1.0,
) -> Six:
    """Returns six unit couplings whose product is T, as well conditioned as could be found.

    Args:
        matrix: T, (n, n), with determinant 1.
        seed: Of the small step away from degenerate starts.
        steps: Of descent, at most.
        goal: Condition number of the worst coupling at which the descent may stop.
        scale: What c T the six will be used for: each then carries a scalar g = c^(1/3) on the
            half that it changes, (1, 0; A, g) and (g, g X; 0, 1), and A and g X should be alike.

    Returns:
        The blocks A1, X1 to A3, X3.

    Raises:
        NumericalError: As for `track`.

    Example:
        >>> six = track_six(np.diag([4.0, 2.0, 0.5, 0.25]))
        >>> round(max(float(np.linalg.norm(block, 2)) for block in six)) <= 2
        True
    """
    root = scale ** (1 / 6)  # of g
    balance = np.where(np.arange(len(matrix)) < len(matrix) // 2, 1.0, root)
    balanced = matrix * balance / balance[:, None]
    blocks = track(balanced, 6, seed=seed, steps=steps, goal=goal)
    return Six(*[block * (1 / root if i % 2 else root) for i, block in enumerate(blocks)])


def track_five(
    matrix: np.ndarray, *, seed: int = 0, steps: int = 300, goal: float | None = None
) -> list[np.ndarray]:
    """Returns the blocks of five unit couplings with product T, where T12 is invertible.

    Args:
        matrix: T, (2d, 2d), with determinant 1.
        seed: Of the small step away from degenerate starts.
        steps: Of descent, at most.
        goal: Condition number of the worst coupling at which the descent may stop.

    Returns:
        A1, X1, A2, X2, A3.

    Raises:
        ArgumentError: The size is odd, or T12 is singular.
        NumericalError: As for `track`.

    Source:
        Ours; theorem A, part (a).

    Example:
        >>> swap = np.array([[0.0, 1.0], [-1.0, 0.0]])
        >>> bool(np.allclose(product(track_five(swap)), swap))
        True
    """
    matrix = _checked(matrix)
    d = len(matrix) // 2
    corner = np.linalg.svd(matrix[:d, d:], compute_uv=False)
    if len(matrix) % 2 or corner[-1] < SINGULAR * norm(matrix, 2):
        raise ArgumentError(
            "'matrix' should be of even size with an invertible upper right block: five couplings "
            "are enough only then, six always."
        )
    return along(FivePath(matrix), 5, seed=seed, steps=steps, goal=goal)


def improve(
    matrix: np.ndarray,
    blocks: Blocks,
    *,
    seed: int = 0,
    steps: int = 300,
    goal: float | None = None,
) -> list[np.ndarray]:
    """Returns better conditioned blocks of the same product, or those given if none are found.

    Args:
        matrix: T, (n, n), with determinant 1.
        blocks: Of six or more unit couplings whose product is T, L first, second one invertible.
        seed: Of the small step away from degenerate starts.
        steps: Of descent, at most.
        goal: Condition number of the worst coupling at which the descent may stop.

    Returns:
        As many blocks.

    Example:
        >>> from kappaflow.factor.rotation import factor_rotation
        >>> turn = np.eye(6)[[1, 2, 0, 4, 5, 3]]
        >>> blocks = improve(turn, factor_rotation(turn))
        >>> bool(worst(blocks) < worst(factor_rotation(turn)))
        True
    """
    matrix = _checked(matrix)
    try:
        found = better(Path(matrix).at(1.0), blocks, seed=seed, steps=steps, goal=goal)
    except (LinAlgError, NumericalError):
        return list(blocks)
    fits = norm(product(found) - matrix) < SMALL * norm(matrix)
    return found if fits and worst(found) < worst(blocks) else list(blocks)


def _checked(matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix in float64, or says why it cannot be tracked."""
    matrix = square_floats(matrix)
    sign, log = np.linalg.slogdet(matrix)
    if sign <= 0 or abs(log) > 1e-6 * len(matrix):
        raise ArgumentError(
            f"'matrix' should have determinant 1, got {sign * np.exp(log):.3g}: "
            "factor_linear takes any invertible one."
        )
    return matrix
