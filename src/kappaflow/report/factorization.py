"""Charts of a factorization: the map, its factors and their condition numbers."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kappaflow.factor import Factorization
from kappaflow.report.charts import DATA, INK, Chart, Heat, Numbers, Panel, line, single_chart
from kappaflow.report.numbers import count

MOST_FEATURES_LISTED = 8
MOST_CELLS = 96  # largest number of cells per side of a heat map; more are too small to see
MOST_FACTORS = 24


def changes(factorization: Factorization, number: int) -> str:
    """Returns the features, counted from 0, that a coupling, counted from 1, changes."""
    features = factorization.couplings[number - 1].partition.changed
    if len(features) == 1:
        return f"feature {features[0]}"
    if features == tuple(range(features[0], features[-1] + 1)):
        return f"features {features[0]} to {features[-1]}"
    listed = ", ".join(map(str, features[:MOST_FEATURES_LISTED]))
    more = f", ... ({len(features)})" if len(features) > MOST_FEATURES_LISTED else ""
    return f"features {listed}{more}"


def map_chart(factorization: Factorization) -> Chart:
    """Returns the heat map of the matrix T."""
    matrix = factorization.matrix.numpy()
    panel = _heat_map(matrix, "The map T", _largest_entry([matrix]))
    return Chart(name="map", title="The map T", panels=[panel], height=None)


def factors_chart(factorization: Factorization) -> Chart | None:
    """Returns heat maps of the couplings (the first of many), all with the same colors."""
    if not len(factorization):
        return None
    couplings = factorization.couplings[:MOST_FACTORS]
    matrices = [coupling.matrix().numpy() for coupling in couplings]
    limit = _largest_entry(matrices)
    panels = [
        _heat_map(matrix, f"Coupling {number}", limit)
        for number, matrix in enumerate(matrices, start=1)
    ]
    left_out = ""
    if len(factorization) > MOST_FACTORS:
        left_out = f" The page shows the first {MOST_FACTORS} of {len(factorization)}."
    return Chart(
        name="factors",
        title="Its factors",
        caption="All factors use the same colors. Pale blocks are better: one factor has to undo "
        f"the large entries of another.{left_out}",
        panels=panels,
        small=True,
        height=None,
    )


def factorization_chart(factorization: Factorization) -> Chart:
    """Returns the map, the condition numbers of its factors, and the factors, in one chart."""
    factors = factors_chart(factorization)
    charts = [map_chart(factorization)]
    if factors is not None:
        charts += [condition_bars(factorization), factors]
    panels = [
        replace(panel, title=panel.title or chart.title)
        for chart in charts
        for _, _, panel in chart.placed
    ]
    return Chart(
        name="factorization",
        title=f"{count(len(factorization.matrix), 'feature')} in "
        f"{count(len(factorization), 'coupling')}",
        panels=panels,
        columns=4,
    )


def condition_bars(factorization: Factorization) -> Chart:
    """Returns the condition number of each coupling as a bar, with the lower bound."""
    values = list(factorization.condition_numbers)
    least = factorization.lower_bound
    positions = list(range(1, len(values) + 1))
    return single_chart(
        "condition-bars",
        "Condition number of each factor",
        "The bars should be equally high and close to the dotted line, a lower bound for the "
        "highest: norms multiply, so the factors of T cannot all be below a root of its norm.",
        **count_axis("coupling, in the order of the product", positions),
        y="condition number (pure number)",
        y_log=True,
        y_range=(1.0, 1.3 * max(*values, least, 5.0)),
        series=[
            line("condition number", positions, values, DATA, kind="bars"),
            line(
                "not all can be smaller", [0.4, len(values) + 0.6], [least] * 2, INK, kind="dotted"
            ),
        ],
    )


def count_axis(title: str, values: Sequence[int]) -> dict:
    """Returns the settings of an axis of counts."""
    pad = max(0.6, 0.04 * (max(values) - min(values)))
    return {"x": title, "x_range": (min(values) - pad, max(values) + pad), "x_whole": True}


def _heat_map(matrix: np.ndarray, title: str, limit: float) -> Panel:
    tile = tile_size(len(matrix))
    cells = _tiled(matrix, tile)
    first = (tile - 1) / 2
    ends = (first, first + tile * (len(cells) - 1))
    # Three digits are more than a color shows.
    values: list[Numbers] = [[float(f"{value:.3g}") for value in row] for row in cells]
    heat = Heat(values=values, x=ends, y=ends, limit=limit)
    return Panel(title=title, x="column", y="row", heat=heat)


def _largest_entry(matrices: Sequence[np.ndarray]) -> float:
    """Returns the largest absolute value of an entry, the end of the color scale."""
    return max((float(np.abs(matrix).max()) for matrix in matrices), default=1.0)


def tile_size(size: int) -> int:
    """Returns the number of entries per side that one cell stands for."""
    return -(-size // MOST_CELLS)


def _tiled(matrix: np.ndarray, tile: int) -> np.ndarray:
    """Returns the entry of largest absolute value of each tile; a mean would hide it."""
    if tile == 1:
        return matrix
    cells = -(-len(matrix) // tile)
    padded = np.zeros((cells * tile, cells * tile))
    padded[: len(matrix), : len(matrix)] = matrix
    tiles = padded.reshape(cells, tile, cells, tile).swapaxes(1, 2).reshape(cells, cells, -1)
    largest = np.abs(tiles).argmax(-1, keepdims=True)
    return np.take_along_axis(tiles, largest, -1)[..., 0]
