"""Toy distributions on the plane, some with known densities."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kappaflow.data.naming import FloatArray
from kappaflow.data.table import Table
from kappaflow.errors import ArgumentError

Draw = Callable[[int, np.random.Generator], FloatArray]
LogProb = Callable[[FloatArray], FloatArray]

ROWS = 10_000
COLUMNS = ("x0", "x1")
MODE_RADIUS, MODE_NOISE = 2.0, 0.2
RINGS, RING_NOISE = (1.0, 2.0, 3.0, 4.0), 0.08
BOARD = 4  # squares along each edge, of width 1, alternately black and white
MOON_NOISE, ROLL_NOISE = 0.1, 0.1
ARMS, ARM_NOISE, ARM_WIDTH, ARM_TURN = 5, 0.3, 0.1, 0.25


@dataclass(frozen=True)
class ToySet:
    """A two-dimensional data set, generated from a seed.

    `draw` returns n points, (n, 2), from a generator; `log_prob` is their log-density in nats,
    where there is a closed form.
    """

    name: str
    description: str
    draw: Draw
    log_prob: LogProb | None = None


def toy(name: str, n: int = ROWS, *, seed: int = 0) -> Table:
    """Returns n points of a two-dimensional set, the same ones for the same seed.

    Args:
        name: One of `toy_names()`.
        n: Number of points.
        seed: Seed of the PCG64 generator.

    Returns:
        A table of two columns, x0 and x1.

    Raises:
        ArgumentError: There is no such set, or a number is out of its range.

    Source:
        The sets are those that FFJORD (Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud 2019) and
        others draw; the formulas here are our own.

    Example:
        >>> toy("two_moons", 3, seed=1).values.shape
        (3, 2)
    """
    from kappaflow._checks import natural_int, positive_int

    chosen = toy_set(name)
    generator = np.random.Generator(np.random.PCG64(natural_int("seed", seed)))
    return Table(
        values=chosen.draw(positive_int("n", n), generator),
        columns=COLUMNS,
        rows=np.arange(1, n + 1),
        source=name,
    )


def toy_log_prob(name: str, x: FloatArray) -> FloatArray:
    """Returns the log-density of a two-dimensional set, exactly.

    Args:
        name: One of `toy_names()` that has a closed form.
        x: Points, (n, 2).

    Returns:
        (n,), in nats; -inf outside the support.

    Raises:
        ArgumentError: There is no such set, it has no closed form, or x has another shape.

    Example:
        >>> toy_log_prob("checkerboard", np.array([[0.5, 0.5], [0.5, 1.5]])).round(4)
        array([-2.0794,    -inf])
    """
    chosen = toy_set(name)
    if chosen.log_prob is None:
        with_density = ", ".join(entry.name for entry in _SETS if entry.log_prob is not None)
        raise ArgumentError(
            f"'name' should be one of {with_density}, whose density has a closed form, "
            f"got {name!r}."
        )
    points = np.asarray(x, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ArgumentError(f"'x' should have shape (points, 2), got {points.shape}.")
    return chosen.log_prob(points)


def toy_sets() -> tuple[ToySet, ...]:
    """Returns the two-dimensional sets."""
    return _SETS


def toy_names() -> tuple[str, ...]:
    """Returns the names of the two-dimensional sets.

    Example:
        >>> toy_names()[:3]
        ('eight_gaussians', 'four_gaussians', 'two_moons')
    """
    return tuple(entry.name for entry in _SETS)


def toy_set(name: str) -> ToySet:
    """Returns a two-dimensional set by its name; raises ArgumentError if there is none."""
    chosen = next((entry for entry in _SETS if entry.name == name), None)
    if chosen is None:
        raise ArgumentError(f"'name' should be one of {', '.join(toy_names())}, got {name!r}.")
    return chosen


def _mixture(count: int) -> tuple[Draw, LogProb]:
    """Returns a sampler of Gaussians on a circle, and their log-density."""
    angles = 2 * math.pi * np.arange(count) / count
    modes = MODE_RADIUS * np.stack([np.cos(angles), np.sin(angles)], 1)

    def draw(n: int, generator: np.random.Generator) -> FloatArray:
        chosen = modes[generator.integers(count, size=n)]
        return chosen + MODE_NOISE * generator.standard_normal((n, 2))

    def log_prob(x: FloatArray) -> FloatArray:
        squares = ((x[:, None] - modes) ** 2).sum(2) / MODE_NOISE**2
        constant = math.log(2 * math.pi * MODE_NOISE**2 * count)
        return np.logaddexp.reduce(-0.5 * squares, axis=1) - constant

    return draw, log_prob


def _two_moons(n: int, generator: np.random.Generator) -> FloatArray:
    upper = generator.random(n) < 0.5
    angle = math.pi * generator.random(n)
    arc = np.stack([np.cos(angle), np.sin(angle)], 1)
    points = np.where(upper[:, None], arc, np.array([1.0, 0.5]) - arc)
    return points + MOON_NOISE * generator.standard_normal((n, 2))


def _swiss_roll(n: int, generator: np.random.Generator) -> FloatArray:
    """Returns points of a spiral of one and a half turns, uniform in its angle."""
    angle = 1.5 * math.pi * (1 + 2 * generator.random(n))
    points = angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) / 5
    return points + ROLL_NOISE * generator.standard_normal((n, 2))


def _checkerboard(n: int, generator: np.random.Generator) -> FloatArray:
    column = generator.integers(BOARD, size=n)
    row = 2 * generator.integers(BOARD // 2, size=n) + column % 2
    corner = np.stack([column, row], 1) - BOARD / 2
    return corner + generator.random((n, 2))


def _checkerboard_log_prob(x: FloatArray) -> FloatArray:
    square = np.floor(x + BOARD / 2)
    inside = ((square >= 0) & (square < BOARD)).all(1) & (square.sum(1) % 2 == 0)
    return np.where(inside, -math.log(BOARD**2 / 2), -np.inf)


def _rings(n: int, generator: np.random.Generator) -> FloatArray:
    radius = np.array(RINGS)[generator.integers(len(RINGS), size=n)]
    radius = radius + RING_NOISE * generator.standard_normal(n)
    angle = 2 * math.pi * generator.random(n)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _rings_log_prob(x: FloatArray) -> FloatArray:
    """Returns the density of the signed radius, at both signs, spread over the circle."""
    radius = np.hypot(x[:, 0], x[:, 1])[:, None]
    both = np.concatenate([radius - RINGS, -radius - RINGS], axis=1)
    constant = math.log(len(RINGS) * RING_NOISE * math.sqrt(2 * math.pi))
    line = np.logaddexp.reduce(-0.5 * (both / RING_NOISE) ** 2, axis=1) - constant
    with np.errstate(divide="ignore"):  # at the very center the density is infinite
        return line - np.log(2 * math.pi * radius[:, 0])


def _pinwheel(n: int, generator: np.random.Generator) -> FloatArray:
    along = 1 + ARM_NOISE * generator.standard_normal(n)
    across = ARM_WIDTH * generator.standard_normal(n)
    angle = 2 * math.pi * generator.integers(ARMS, size=n) / ARMS + ARM_TURN * np.exp(along)
    cosine, sine = np.cos(angle), np.sin(angle)
    return 2 * np.stack([cosine * along - sine * across, sine * along + cosine * across], 1)


_SETS = (
    ToySet("eight_gaussians", "Eight Gaussians on a circle.", *_mixture(8)),
    ToySet("four_gaussians", "Four Gaussians on a circle.", *_mixture(4)),
    ToySet("two_moons", "Two half circles, each with an end inside the other.", _two_moons),
    ToySet("swiss_roll", "A spiral of one and a half turns.", _swiss_roll),
    ToySet(
        "checkerboard",
        "The black squares of a board of four by four, uniform on each.",
        _checkerboard,
        _checkerboard_log_prob,
    ),
    ToySet("rings", "Four circles around one center.", _rings, _rings_log_prob),
    ToySet("pinwheel", "Five bent arms around a center.", _pinwheel),
)
