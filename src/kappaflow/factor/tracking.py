r"""Well-conditioned couplings of any map, by following the path from its rotation and descent."""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import LinAlgError, norm

from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.coupling import two_by_two_condition
from kappaflow.factor.descent import descend
from kappaflow.factor.newton import newton
from kappaflow.factor.path import FivePath, Path
from kappaflow.factor.six import Six
from kappaflow.factor.word import Target, Word, all_blocks, product

Blocks = Sequence[np.ndarray]

SHORTEST = 1e-3
JUMP = 4.0  # in conditioning, from which on a solution is not a neighbour of the last one
STEPS = 8  # of Newton, after each stride
WALL = 1e3  # condition number of the dependent X beyond which other three are taken
ON_THE_PATH = 1e-3
PATH_STEPS = 20  # of descent after each stride, so that the path stays well conditioned
PATH_GAIN = 1e-2  # in ten of them, or else the next stride is due
PATH_POWER = 2
POWERS = (4, 8, 16, 32)
SLICE = 50  # steps between two looks at the goal
POLISH = 1e-14
POLISHING_STEPS = 15
EXACT = 1e-12  # of T P^-1 - 1 for each feature: no other place is tried
SPOILT = 1.01  # as much worse a polished solution may be conditioned
SMALL = 1e-9  # residual beyond which a result is refused
ATTEMPTS = 4
BOLDER = 3.0  # each attempt starts so much further away
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


def along(
    path: Path | FivePath, couplings: int, *, seed: int, steps: int, goal: float | None
) -> list[np.ndarray]:
    """Returns the blocks at the end of a path, in the words of `track`."""
    trouble = ""
    target = path.at(1.0)
    for attempt in range(ATTEMPTS):
        try:
            blocks = _start(path, couplings, seed, path.nudge * BOLDER**attempt)
            blocks = _follow(path, _stepped(path.at(path.begin), blocks)[0])
            blocks = _descend(target, blocks, steps=steps, goal=goal)
            blocks = _polished(target, blocks)
        except (LinAlgError, NumericalError) as error:
            trouble = str(error)
            continue
        residual = norm(product(blocks) - target.matrix) / norm(target.matrix)
        if residual < SMALL:
            return blocks
        trouble = f"the product is off by {residual:.1e}"
    raise NumericalError(
        f"no {couplings} couplings were found in {ATTEMPTS} attempts: {trouble}. Likely causes: "
        f"(a) the map is too ill-conditioned for float64 (its condition number is "
        f"{path.condition:.1e}; above 1e8 little can be promised); (b) an unlucky path: try "
        "another 'seed' or more couplings. Eleven couplings in closed form always work."
    )


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
    """Returns the blocks of five unit couplings, L first, whose product is T, if T12 is invertible.

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
    target = Path(matrix).at(1.0)
    word = Word(len(blocks), 0)
    try:
        values = _nudged(word, target, word.unknowns(blocks), seed, Path.nudge)
        found, _ = _stepped(target, all_blocks(word, target, values))
        found = _descend(target, found, steps=steps, goal=goal)
        found = _polished(target, found)
    except (LinAlgError, NumericalError):
        return list(blocks)
    fits = norm(product(found) - matrix) < SMALL * norm(matrix)
    return found if fits and worst(found) < worst(blocks) else list(blocks)


def worst(blocks: Blocks) -> float:
    """Returns the largest condition number of the unit couplings with these blocks."""
    return max(two_by_two_condition(float(norm(block, 2)), 1.0) for block in blocks)


def _checked(matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix in float64, or says why it cannot be tracked."""
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ArgumentError(
            f"'matrix' should be square, of size 2 or more, got shape {matrix.shape}."
        )
    if not np.isfinite(matrix).all():
        raise ArgumentError("'matrix' should hold finite numbers, got others among them.")
    sign, log = np.linalg.slogdet(matrix)
    if sign <= 0 or abs(log) > 1e-6 * len(matrix):
        raise ArgumentError(
            f"'matrix' should have determinant 1, got {sign * np.exp(log):.3g}: "
            "factor_linear takes any invertible one."
        )
    return matrix


def _start(
    path: Path | FivePath, couplings: int, seed: int, nudge: float
) -> list[np.ndarray]:
    """Returns blocks of the rotation: six in closed form amid zero ones, set in motion."""
    few = path.blocks()
    more = couplings - len(few)
    ahead = _before(couplings) if more >= _before(couplings) else 0
    word, target = Word(couplings, ahead), path.at(path.begin)
    zeros = [np.zeros_like(few[i % 2]) for i in range(more)]
    blocks = [*zeros[:ahead], *few, *zeros[ahead:]]
    values = _nudged(word, target, word.unknowns(blocks), seed, nudge)
    return all_blocks(word, target, values)


def _nudged(
    word: Word, target: Target, values: Blocks, seed: int, nudge: float
) -> list[np.ndarray]:
    """Returns a solution a little away from a given one, and some descent further."""
    generator, size = np.random.default_rng(seed), nudge / values[0].shape[1] ** 0.5
    moved = [block + size * generator.standard_normal(block.shape) for block in values]
    moved, error, _ = newton(word, target, moved, tolerance=ON_THE_PATH, steps=20)
    if error > ON_THE_PATH:
        raise NumericalError("the start could not be moved within the solution set")
    return _smoothed(word, target, moved)


def _before(couplings: int) -> int:
    """Returns how many couplings to put before the dependent three, so that these are central."""
    return 2 * ((couplings - 2) // 4)


def _words(couplings: int) -> list[Word]:
    """Returns the places for the dependent three: the middle, where descent is fastest, first."""
    places = sorted(range(0, couplings - 2, 2), key=lambda b: abs(b - _before(couplings)))
    return [Word(couplings, before) for before in places]


def _stepped(target: Target, blocks: Blocks) -> tuple[list[np.ndarray], int]:
    """Returns blocks for a target from those for one nearby, smoothed, and how hard it was.

    The equation says nothing where the second of its three blocks is singular, and a path may
    have to cross there: then it says all with other three.
    """
    for word in _words(len(blocks)):
        try:
            values, error, taken = newton(
                word, target, word.unknowns(blocks), tolerance=ON_THE_PATH, steps=STEPS
            )
            near = worst(all_blocks(word, target, values)) < JUMP * worst(blocks)
            if error <= ON_THE_PATH and near:
                return all_blocks(word, target, _smoothed(word, target, values)), taken
        except LinAlgError:
            continue
    raise NumericalError("no solution was found near the last one")


def _smoothed(word: Word, target: Target, values: Blocks) -> list[np.ndarray]:
    """Returns the values after a little descent with a low power."""
    return descend(
        word, target, values, power=PATH_POWER, steps=PATH_STEPS, least_gain=PATH_GAIN
    )[0]


def _follow(path: Path | FivePath, blocks: list[np.ndarray]) -> list[np.ndarray]:
    """Returns blocks for the end of the path, from those for its start."""
    t, stride = path.begin, path.stride(path.begin)
    while t < 1:
        there = min(0.0 if t < 0 else 1.0, t + stride)
        try:
            blocks, taken = _stepped(path.at(there), blocks)
        except NumericalError:
            stride /= 2
            if stride < SHORTEST:
                raise NumericalError(f"the path was lost at {t:.3f} of its length") from None
            continue
        stride = path.stride(there) if there == 0 else stride * (1.5 if taken <= 5 else 1.0)
        t = there
    return blocks


def _descend(
    target: Target, blocks: list[np.ndarray], *, steps: int, goal: float | None
) -> list[np.ndarray]:
    """Returns the blocks after descent with higher and higher powers, in slices."""
    word = _words(len(blocks))[0]
    if _flatness(word, blocks) > WALL:
        word = min(_words(len(blocks)), key=lambda other: _flatness(other, blocks))
    left, power = steps, iter(POWERS)
    current = next(power)
    while left > 0 and not (goal is not None and worst(blocks) <= goal):
        part = min(left, SLICE)
        values, taken = descend(
            word, target, word.unknowns(blocks), power=current, steps=part
        )
        blocks = all_blocks(word, target, values)
        left -= max(taken, 1)
        if taken < part and (current := next(power, None)) is None:
            break
    return blocks


def _polished(target: Target, blocks: Blocks) -> list[np.ndarray]:
    """Returns the blocks with the equation solved as well as rounding allows, in one place."""
    best, least = list(blocks), np.inf
    for word in _words(len(blocks)):
        try:
            values, _, _ = newton(
                word, target, word.unknowns(blocks), tolerance=POLISH, steps=POLISHING_STEPS
            )
            found = all_blocks(word, target, values)
        except LinAlgError:
            continue
        off = float(norm(product(found) @ target.inverse - np.eye(len(target.matrix))))
        if off < least and worst(found) < SPOILT * worst(blocks):
            best, least = found, off
        if least < EXACT * len(target.matrix):
            break
    return best


def _flatness(word: Word, blocks: Blocks) -> float:
    """Returns the condition number of the block that the equation divides by."""
    return float(np.linalg.cond(blocks[word.before + 1]))
