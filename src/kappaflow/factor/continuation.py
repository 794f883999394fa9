"""Well-conditioned couplings of any map, by numerical continuation.

The couplings of a rotation are known in closed form. Newton's method continues them along a path
from the rotation to the map; then descent reduces the largest block norm.
"""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import LinAlgError, norm

from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor import budget
from kappaflow.factor.algebra import FactorTarget, Pattern, all_blocks, newton, product, refine
from kappaflow.factor.coupling import two_by_two_condition
from kappaflow.factor.descent import descend
from kappaflow.factor.paths import FiveCouplingPath, Path

Blocks = Sequence[np.ndarray]

SHORTEST = 1e-3
JUMP = 4.0  # a solution worse conditioned by this factor is not on the same path
FIRST_STEPS = 20
STEPS = 8  # Newton steps after each step along the path
WALL = 1e3  # condition number of the dependent X above which the pattern changes
ON_THE_PATH = 1e-3
ELSEWHERE = 1e-7  # tolerance before the pattern changes, which enlarges the defect
CROSSING = 0.05  # step length below which other patterns are tried
PATH_STEPS = 20  # steps of descent after each step along the path
PATH_GAIN = 1e-2  # smallest gain in ten steps of descent on the path
PATH_POWER = 2
POWERS = (4, 8, 16, 32)
STUCK = 0.995  # ratio of improvement by a power above which no higher power is tried
SLICE = 50  # steps of descent that share a quasi-Newton memory
POLISH = 1e-14
POLISHING_STEPS = 15
EXACT = 1e-12  # norm of T P^-1 - 1 per feature that is small enough to try no other pattern
SPOILT = 1.01  # largest factor by which polishing may worsen the conditioning
SMALL = 1e-9  # largest residual of a result
ATTEMPTS = 4
BOLDER = 3.0  # factor by which the start of each attempt is further away
SINGULAR = 1e-8  # smallest singular value of T12, in units of |T|, for five couplings


def follow_path(
    path: Path | FiveCouplingPath, couplings: int, *, seed: int, steps: int
) -> list[np.ndarray]:
    """Returns the blocks at the end of a path; the arguments are those of `continue_to`."""
    trouble = ""
    target = path.at(1.0)
    for attempt in range(ATTEMPTS):
        try:
            blocks = _start(path, couplings, seed, path.nudge * BOLDER**attempt)
            blocks = _follow(path, _smooth(path.at(path.begin), blocks))
            blocks = _descend(target, blocks, steps)
            blocks = refine(_polish(target, blocks), target.matrix)
        except (LinAlgError, NumericalError) as error:
            trouble = str(error)
            continue
        residual = norm(product(blocks) - target.matrix) / norm(target.matrix)
        if residual < SMALL:
            return blocks
        trouble = f"the product has a residual of {residual:.1e}"
    raise NumericalError(
        f"found no {couplings} couplings in {ATTEMPTS} attempts: {trouble}. Likely causes: "
        f"(a) the map is too ill-conditioned for float64 (its condition number is "
        f"{path.condition:.1e}; above 1e8 the search often fails); (b) an unlucky path: try "
        "another 'seed' or more couplings. Eleven couplings in closed form (method='svd') always "
        "work."
    )


def worst_condition_number(blocks: Blocks) -> float:
    """Returns the largest condition number of the unit couplings with these blocks."""
    return max(two_by_two_condition(float(norm(block, 2)), 1.0) for block in blocks)


def _start(
    path: Path | FiveCouplingPath, couplings: int, seed: int, nudge: float
) -> list[np.ndarray]:
    """Returns the blocks of the first rotation, padded with zero blocks and perturbed."""
    budget.report("looking for a start")
    few = path.blocks()
    more = couplings - len(few)
    ahead = _before(couplings) if more >= _before(couplings) else 0
    pattern, target = Pattern(couplings, ahead), path.at(path.begin)
    zeros = [np.zeros_like(few[i % 2]) for i in range(more)]
    blocks = [*zeros[:ahead], *few, *zeros[ahead:]]
    return _nudge(pattern, target, blocks, seed, nudge)


def _nudge(
    pattern: Pattern, target: FactorTarget, blocks: Blocks, seed: int, nudge: float
) -> list[np.ndarray]:
    """Returns a solution near a given one, after some descent."""
    generator, size = np.random.default_rng(seed), nudge / blocks[0].shape[1] ** 0.5
    moved = [b + size * generator.standard_normal(b.shape) for b in pattern.unknowns(blocks)]
    moved, error, _ = newton(pattern, target, moved, tolerance=ON_THE_PATH, steps=FIRST_STEPS)
    if error > ON_THE_PATH:
        raise NumericalError("no other solution was found near the start")
    moved, _ = descend(pattern, target, moved, power=PATH_POWER, steps=PATH_STEPS)
    moved, _, _ = newton(pattern, target, moved, tolerance=ELSEWHERE, steps=STEPS)
    return all_blocks(pattern, target, moved)


def _before(couplings: int) -> int:
    """Returns the number of couplings before the dependent three in the middle."""
    return 2 * ((couplings - 2) // 4)


def _patterns(couplings: int) -> list[Pattern]:
    """Returns all patterns with this number of couplings; the first has the fastest descent."""
    candidates = sorted(range(0, couplings - 2, 2), key=lambda b: abs(b - _before(couplings)))
    return [Pattern(couplings, before) for before in candidates]


def _best_pattern(blocks: Blocks) -> Pattern:
    """Returns the pattern for descent: the middle one, unless its block is nearly singular."""
    patterns = _patterns(len(blocks))
    if _pivot_condition(patterns[0], blocks) <= WALL:
        return patterns[0]
    return min(patterns, key=lambda pattern: _pivot_condition(pattern, blocks))


def _solve_nearby(
    target: FactorTarget, blocks: Blocks, patterns: list[Pattern]
) -> tuple[list[np.ndarray], int]:
    """Returns smoothed blocks for a target, from a nearby target's, and the number of steps."""
    # The equation is degenerate where the second of its three dependent blocks is singular.
    # Another choice of the three blocks then is not.
    for pattern in patterns:
        try:
            values, error, taken = newton(
                pattern, target, pattern.unknowns(blocks), tolerance=ON_THE_PATH, steps=STEPS
            )
            solution = all_blocks(pattern, target, values)
        except LinAlgError:
            continue
        if not error <= ON_THE_PATH:  # also if it is nan
            continue
        if worst_condition_number(solution) < JUMP * worst_condition_number(blocks):
            return _smooth(target, solution), taken
    raise NumericalError("no solution was found near the last one")


def _smooth(target: FactorTarget, blocks: Blocks) -> list[np.ndarray]:
    """Returns the blocks after a little descent, accurate enough to change the pattern."""
    pattern = _best_pattern(blocks)
    values, _ = descend(
        pattern,
        target,
        pattern.unknowns(blocks),
        power=PATH_POWER,
        steps=PATH_STEPS,
        least_gain=PATH_GAIN,
    )
    values, _, _ = newton(pattern, target, values, tolerance=ELSEWHERE, steps=STEPS)
    return all_blocks(pattern, target, values)


def _follow(path: Path | FiveCouplingPath, blocks: list[np.ndarray]) -> list[np.ndarray]:
    """Returns blocks for the end of the path, from the blocks for its start."""
    t, stride = path.begin, path.stride(path.begin)
    while t < 1:
        if budget.is_over():
            raise budget.OutOfBudget
        budget.report(f"following the path, {(t - path.begin) / (1 - path.begin):.0%}")
        t_next = min(0.0 if t < 0 else 1.0, t + stride)
        patterns = [_best_pattern(blocks)] if stride > CROSSING else _patterns(len(blocks))
        try:
            blocks, taken = _solve_nearby(path.at(t_next), blocks, patterns)
        except NumericalError:
            stride /= 2
            if stride < SHORTEST:
                raise NumericalError(
                    f"the search lost the path at {t:.3f} of its length"
                ) from None
            continue
        stride = path.stride(t_next) if t_next == 0 else stride * (1.5 if taken <= 5 else 1.0)
        t = t_next
    return blocks


def _descend(target: FactorTarget, blocks: list[np.ndarray], steps: int) -> list[np.ndarray]:
    """Returns the blocks after descent with increasing powers, in slices of steps."""
    pattern = _best_pattern(blocks)
    left, power = steps, iter(POWERS)
    current, last = next(power), worst_condition_number(blocks)
    while left > 0 and not budget.is_over():
        budget.report(f"improving the largest condition number, now {last:.3g}")
        part = min(left, SLICE)
        values, taken = descend(
            pattern, target, pattern.unknowns(blocks), power=current, steps=part
        )
        blocks = all_blocks(pattern, target, values)
        left, now = left - max(taken, 1), worst_condition_number(blocks)
        if taken < part:
            stuck = now > STUCK * last and current > POWERS[0]
            if stuck or (current := next(power, None)) is None:
                break
        last = now
    return blocks


def _polish(target: FactorTarget, blocks: Blocks) -> list[np.ndarray]:
    """Returns the blocks after solving the equation as accurately as rounding allows."""
    best, least = list(blocks), np.inf
    for pattern in _patterns(len(blocks)):
        try:
            values, _, _ = newton(
                pattern, target, pattern.unknowns(blocks), tolerance=POLISH, steps=POLISHING_STEPS
            )
            found = all_blocks(pattern, target, values)
        except LinAlgError:
            continue
        off = float(norm(product(found) @ target.inverse - np.eye(len(target.matrix))))
        if off < least and worst_condition_number(found) < SPOILT * worst_condition_number(blocks):
            best, least = found, off
        if least < EXACT * len(target.matrix):
            break
    return best


def _pivot_condition(pattern: Pattern, blocks: Blocks) -> float:
    """Returns the condition number of the block that the equation divides by."""
    return float(np.linalg.cond(blocks[pattern.before + 1]))


def continue_to(
    matrix: np.ndarray, couplings: int, *, seed: int = 0, steps: int = 300
) -> list[np.ndarray]:
    """Returns the blocks of six or more unit couplings, L first, whose product is T, det T = 1."""
    # Follows the path O S^t from the closed form at its rotation O. Descent after each step keeps
    # the path well conditioned; at the end it reduces the largest block norm.
    if couplings < 6:
        raise ArgumentError(
            f"'couplings' should be at least 6, got {couplings}: fewer do not represent every map."
        )
    path = Path(matrix)
    first = path.degenerate
    try:
        begun = Path(matrix, twisted=True) if first else path
        return follow_path(begun, couplings, seed=seed, steps=steps)
    except NumericalError:
        other = path if first else Path(matrix, twisted=True)
        return follow_path(other, couplings, seed=seed, steps=steps)


def continue_to_five(matrix: np.ndarray, *, seed: int = 0, steps: int = 300) -> list[np.ndarray]:
    """Returns the blocks A1, X1, A2, X2, A3 of five unit couplings with product T (theorem A)."""
    d = len(matrix) // 2
    corner = np.linalg.svd(matrix[:d, d:], compute_uv=False)
    if len(matrix) % 2 or corner[-1] < SINGULAR * norm(matrix, 2):
        raise ArgumentError(
            "'matrix' should be of even size with an invertible upper right block: five couplings "
            "are enough only then, six always."
        )
    return follow_path(FiveCouplingPath(matrix), 5, seed=seed, steps=steps)
