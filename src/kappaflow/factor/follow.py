r"""Following a path of maps with the blocks of its couplings, and descending at its end."""

from collections.abc import Sequence

import numpy as np
from numpy.linalg import LinAlgError, norm

from kappaflow.errors import NumericalError
from kappaflow.factor.coupling import two_by_two_condition
from kappaflow.factor.descent import descend
from kappaflow.factor.newton import newton
from kappaflow.factor.path import FivePath, Path
from kappaflow.factor.refine import refined
from kappaflow.factor.word import Target, Word, all_blocks, product

Blocks = Sequence[np.ndarray]

SHORTEST = 1e-3
JUMP = 4.0  # in conditioning, from which on a solution is not a neighbour of the last one
FIRST_STEPS = 20
STEPS = 8  # of Newton, after each stride
WALL = 1e3  # condition number of the dependent X beyond which other three are taken
ON_THE_PATH = 1e-3
ELSEWHERE = 1e-7  # before other three are made dependent, which enlarges what is left
CROSSING = 0.05  # stride from which on that is tried
PATH_STEPS = 20  # of descent after each stride, so that the path stays well conditioned
PATH_GAIN = 1e-2  # in ten of them, or else the next stride is due
PATH_POWER = 2
POWERS = (4, 8, 16, 32)
STUCK = 0.995  # of the worst condition number: what a power gains is not worth the next
SLICE = 50  # steps of descent that share a memory
GOAL_SLICE = 15  # steps between two looks at the goal, if there is one
POLISH = 1e-14
POLISHING_STEPS = 15
EXACT = 1e-12  # of T P^-1 - 1 for each feature: no other place is tried
SPOILT = 1.01  # as much worse a polished solution may be conditioned
SMALL = 1e-9  # residual beyond which a result is refused
ATTEMPTS = 4
BOLDER = 3.0  # each attempt starts so much further away


def along(
    path: Path | FivePath, couplings: int, *, seed: int, steps: int, goal: float | None
) -> list[np.ndarray]:
    """Returns the blocks at the end of a path, in the words of `track`."""
    trouble = ""
    target = path.at(1.0)
    for attempt in range(ATTEMPTS):
        try:
            blocks = _start(path, couplings, seed, path.nudge * BOLDER**attempt)
            blocks = _follow(path, _smoothed(path.at(path.begin), blocks))
            blocks = _descend(target, blocks, steps=steps, goal=goal)
            blocks = refined(_polished(target, blocks), target.matrix)
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


def worst(blocks: Blocks) -> float:
    """Returns the largest condition number of the unit couplings with these blocks."""
    return max(two_by_two_condition(float(norm(block, 2)), 1.0) for block in blocks)


def better(
    target: Target, blocks: Blocks, *, seed: int, steps: int, goal: float | None
) -> list[np.ndarray]:
    """Returns the blocks after descent from a solution, in the words of `tracking.improve`."""
    word = Word(len(blocks), 0)
    found = _smoothed(target, _nudged(word, target, blocks, seed, Path.nudge))
    found = _descend(target, found, steps=steps, goal=goal)
    return _polished(target, found)


def _start(path: Path | FivePath, couplings: int, seed: int, nudge: float) -> list[np.ndarray]:
    """Returns blocks of the rotation: six in closed form amid zero ones, set in motion."""
    few = path.blocks()
    more = couplings - len(few)
    ahead = _before(couplings) if more >= _before(couplings) else 0
    word, target = Word(couplings, ahead), path.at(path.begin)
    zeros = [np.zeros_like(few[i % 2]) for i in range(more)]
    blocks = [*zeros[:ahead], *few, *zeros[ahead:]]
    return _nudged(word, target, blocks, seed, nudge)


def _nudged(
    word: Word, target: Target, blocks: Blocks, seed: int, nudge: float
) -> list[np.ndarray]:
    """Returns a solution a little away from a given one, and some descent further."""
    generator, size = np.random.default_rng(seed), nudge / blocks[0].shape[1] ** 0.5
    moved = [b + size * generator.standard_normal(b.shape) for b in word.unknowns(blocks)]
    moved, error, _ = newton(word, target, moved, tolerance=ON_THE_PATH, steps=FIRST_STEPS)
    if error > ON_THE_PATH:
        raise NumericalError("the start could not be moved within the solution set")
    moved, _ = descend(word, target, moved, power=PATH_POWER, steps=PATH_STEPS)
    moved, _, _ = newton(word, target, moved, tolerance=ELSEWHERE, steps=STEPS)
    return all_blocks(word, target, moved)


def _before(couplings: int) -> int:
    """Returns how many couplings to put before the dependent three, so that these are central."""
    return 2 * ((couplings - 2) // 4)


def _words(couplings: int) -> list[Word]:
    """Returns the places for the dependent three: the middle, where descent is fastest, first."""
    places = sorted(range(0, couplings - 2, 2), key=lambda b: abs(b - _before(couplings)))
    return [Word(couplings, before) for before in places]


def _place(blocks: Blocks) -> Word:
    """Returns the place for descent: the middle, or elsewhere if its block is nearly singular."""
    words = _words(len(blocks))
    if _flatness(words[0], blocks) <= WALL:
        return words[0]
    return min(words, key=lambda word: _flatness(word, blocks))


def _stepped(target: Target, blocks: Blocks, words: list[Word]) -> tuple[list[np.ndarray], int]:
    """Returns blocks for a target from those for one nearby, smoothed, and how hard it was.

    The equation says nothing where the second of its three blocks is singular, and a path may
    have to cross there: then it says all with other three.
    """
    for word in words:
        try:
            values, error, taken = newton(
                word, target, word.unknowns(blocks), tolerance=ON_THE_PATH, steps=STEPS
            )
            found = all_blocks(word, target, values)
        except LinAlgError:
            continue
        if error <= ON_THE_PATH and worst(found) < JUMP * worst(blocks):
            return _smoothed(target, found), taken
    raise NumericalError("no solution was found near the last one")


def _smoothed(target: Target, blocks: Blocks) -> list[np.ndarray]:
    """Returns the blocks after a little descent with a low power, exact enough to go elsewhere."""
    word = _place(blocks)
    values, _ = descend(
        word,
        target,
        word.unknowns(blocks),
        power=PATH_POWER,
        steps=PATH_STEPS,
        least_gain=PATH_GAIN,
    )
    values, _, _ = newton(word, target, values, tolerance=ELSEWHERE, steps=STEPS)
    return all_blocks(word, target, values)


def _follow(path: Path | FivePath, blocks: list[np.ndarray]) -> list[np.ndarray]:
    """Returns blocks for the end of the path, from those for its start."""
    t, stride = path.begin, path.stride(path.begin)
    while t < 1:
        there = min(0.0 if t < 0 else 1.0, t + stride)
        words = [_place(blocks)] if stride > CROSSING else _words(len(blocks))
        try:
            blocks, taken = _stepped(path.at(there), blocks, words)
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
    word = _place(blocks)
    left, power = steps, iter(POWERS)
    current, last = next(power), worst(blocks)
    while left > 0 and not (goal is not None and last <= goal):
        part = min(left, SLICE if goal is None else GOAL_SLICE)
        values, taken = descend(word, target, word.unknowns(blocks), power=current, steps=part)
        blocks = all_blocks(word, target, values)
        left, now = left - max(taken, 1), worst(blocks)
        if taken < part:
            stuck = now > STUCK * last and current > POWERS[0]
            if stuck or (current := next(power, None)) is None:
                break
        last = now
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
