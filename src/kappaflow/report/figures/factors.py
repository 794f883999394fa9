"""A linear map and its factors: heat maps, condition numbers, and what more couplings buy."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kappaflow.factor import Factorization
from kappaflow.factor.reference import Reference
from kappaflow.factor.trade_off import Trial
from kappaflow.report.figures.base import (
    DATA,
    INK,
    MUTED,
    PAPER,
    SAMPLES,
    SAMPLES_BAND,
    Axis,
    Figure,
    Trace,
    axis,
    band,
    diamond,
    layout,
    line,
    log_axis,
    small_layout,
)
from kappaflow.report.numbers import significant

MOST_CELLS = 96  # on a side: more than that are no longer seen one by one
MOST_FACTORS = 24


def heat_map_of_the_map(found: Factorization) -> Figure:
    """Returns the heat map of T."""
    matrix = found.matrix.numpy()
    return _heat_map(
        matrix,
        "map",
        "The map T",
        f"Heat map of the {_size(matrix)} matrix T; entries lie between "
        f"{significant(matrix.min())} and {significant(matrix.max())}.",
        largest_entry([matrix]),
        large=True,
    )


def heat_maps_of_factors(found: Factorization) -> list[Figure]:
    """Returns a heat map a coupling on one scale of colours; of very many, the first ones."""
    matrices = factor_matrices(found)
    scale = largest_entry(matrices)
    return [
        _heat_map(
            matrix,
            f"factor-{number}",
            f"Coupling {number}",
            f"Heat map of coupling {number} of {len(found)}, condition number "
            f"{significant(coupling.condition_number)}.",
            scale,
        )
        for number, (matrix, coupling) in enumerate(
            zip(matrices, found.couplings, strict=False), start=1
        )
    ]


def factor_matrices(found: Factorization) -> list[np.ndarray]:
    """Returns the matrices of the couplings that are drawn."""
    return [coupling.matrix().numpy() for coupling in found.couplings[:MOST_FACTORS]]


def largest_entry(matrices: Sequence[np.ndarray]) -> float:
    """Returns the largest size of an entry: both ends of the scale of colours."""
    return max((float(np.abs(matrix).max()) for matrix in matrices), default=1.0)


def tile_of(size: int) -> int:
    """Returns how many entries on a side one drawn cell stands for."""
    return -(-size // MOST_CELLS)


def condition_bars(found: Factorization) -> Figure:
    """Returns the condition number of each coupling as a bar, beside the least for so many."""
    values, least = list(found.condition_numbers), _least(found, len(found))
    places = list(range(1, len(values) + 1))
    traces: list[Trace] = [
        {
            "type": "bar",
            "x": places,
            "y": values,
            "name": "condition number",
            "marker": {"color": DATA},
            "hovertemplate": "coupling %{x}: %{y:.4~g}<extra></extra>",
        },
        line(
            [0.4, len(values) + 0.6],
            [least, least],
            "not all can lie below",
            INK,
            width=1.5,
            dash="dot",
            hoverinfo="skip",
        )
        | {"mode": "lines"},
    ]
    y = log_axis("condition number (pure number)", [values, [1.0, least]])
    y["range"] = [0, y["range"][1]]
    return Figure(
        name="condition-bars",
        title="Condition number of each factor",
        alt=f"Bars of the condition numbers of {len(values)} couplings; the largest is "
        f"{significant(found.condition_number)}.",
        caption="Good: bars of one height near the dotted line. Condition numbers multiply, so "
        "the factors of T cannot all be below the root of its condition number.",
        traces=traces,
        layout=layout(_counts("coupling, in the order of the product", places), y, bargap=0.35)
        | {"hovermode": "closest"},
        height=380,
    )


def trade_off_curve(
    found: Factorization, trials: Sequence[Trial], reference: Reference | None = None
) -> Figure | None:
    """Returns the largest condition number of a factor over the number of couplings.

    Args:
        found: The factorization that the page is about.
        trials: What was found for other counts.
        reference: Other maps to compare with; nothing is drawn of it where there is none.

    Returns:
        The figure; None where nothing was found.
    """
    there = [(trial.couplings, trial.found) for trial in trials if trial.found is not None]
    if not there or not len(found):
        return None
    counts = [count for count, _ in there]
    values = [one.condition_number for _, one in there]
    least = [_least(found, count) for count in range(min(counts), max(counts) + 1)]
    traces = _reference(reference)
    traces += [
        line(
            list(range(min(counts), max(counts) + 1)),
            least,
            "no factorization lies below",
            MUTED,
            width=1.5,
            dash="dot",
        )
        | {"mode": "lines"},
        line(counts, values, "this map", DATA) | {"mode": "lines+markers"},
        diamond(len(found), found.condition_number, "this page"),
    ]
    seen = [values, least, [found.condition_number]]
    if reference is not None:
        seen += [reference.low, reference.high]
    shown = [*counts, len(found), *(reference.couplings if reference else ())]
    return Figure(
        name="trade-off",
        title="Largest condition number of a factor against the number of couplings",
        alt="Over "
        + ", ".join(
            f"{count} couplings: {significant(value)}"
            for count, value in zip(counts, values, strict=True)
        )
        + ".",
        caption="The best that was found within so many couplings; the diamond is the "
        "factorization of this page. "
        + ("Dashed, with its quartiles: random maps most like T. " if reference else "")
        + "The dotted line is the root of the condition number of T: "
        "with so many factors, the largest cannot lie below it.",
        traces=traces,
        layout=layout(
            _counts("couplings", sorted(set(shown))),
            log_axis("largest condition number (pure number)", seen),
        ),
        height=380,
    )


def _least(found: Factorization, couplings: int) -> float:
    """Returns the root of cond(T): the product of the condition numbers is at least cond(T)."""
    return float(np.linalg.cond(found.matrix.numpy()) ** (1 / max(1, couplings)))


def _reference(reference: Reference | None) -> list[Trace]:
    if reference is None:
        return []
    x = list(reference.couplings)
    return [
        band(x, list(reference.low), list(reference.high), SAMPLES_BAND),
        line(x, list(reference.median), reference.name, SAMPLES, dash="dash"),
    ]


def _counts(title: str, values: Sequence[float]) -> Axis:
    pad = max(0.6, 0.04 * (max(values) - min(values)))
    ticks = {"tickvals": list(values)} if len(values) <= 16 else {"nticks": 10}
    return axis(title, range=[min(values) - pad, max(values) + pad], **ticks)


def _heat_map(
    matrix: np.ndarray, name: str, title: str, alt: str, scale: float, *, large: bool = False
) -> Figure:
    tile = tile_of(len(matrix))
    axes = (_side("column", len(matrix)), _side("row", len(matrix)))
    axes[1].update(autorange="reversed", scaleanchor="x", constrain="domain")
    axes[0].update(constrain="domain")
    shape = layout if large else small_layout
    made: dict[str, Any] = shape(*axes)
    if large:
        made["margin"] = {"l": 46, "r": 8, "t": 6, "b": 40}
    return Figure(
        name=name,
        title=title,
        alt=alt,
        caption="",
        traces=[
            {
                "type": "heatmap",
                "z": _rounded(_tiled(matrix, tile)),
                "x0": (tile - 1) / 2,
                "dx": tile,
                "y0": (tile - 1) / 2,
                "dy": tile,
                "zmin": -scale,
                "zmax": scale,
                "colorscale": [[0, SAMPLES], [0.5, PAPER], [1, DATA]],
                "showscale": False,
                "hovertemplate": "row %{y}, column %{x}: %{z:.3~g}<extra></extra>",
            }
        ],
        layout=made | {"hovermode": "closest"},
        height=None,
    )


def _side(title: str, size: int) -> Axis:
    return axis(title, showgrid=False, mirror=True, showline=True, nticks=5, tick0=0) | (
        {"dtick": 1} if size <= 6 else {}
    )


def _tiled(matrix: np.ndarray, tile: int) -> np.ndarray:
    """Returns for each tile its entry of the largest size: an average would hide a lone one."""
    if tile == 1:
        return matrix
    cells = -(-len(matrix) // tile)
    padded = np.zeros((cells * tile, cells * tile))
    padded[: len(matrix), : len(matrix)] = matrix
    tiles = padded.reshape(cells, tile, cells, tile).swapaxes(1, 2).reshape(cells, cells, -1)
    largest = np.abs(tiles).argmax(-1, keepdims=True)
    return np.take_along_axis(tiles, largest, -1)[..., 0]


def _rounded(matrix: np.ndarray) -> list[list[float]]:
    """Returns numbers with three significant digits, which is more than a colour shows."""
    return [[float(f"{value:.3g}") for value in row] for row in matrix]


def _size(matrix: np.ndarray) -> str:
    return f"{matrix.shape[0]} by {matrix.shape[1]}"
