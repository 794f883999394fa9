"""Data against samples: a small histogram for each column, a cloud of points for each pair."""

from kappaflow.report.content import Marginal, Pairs
from kappaflow.report.figures.base import (
    DATA,
    DATA_BAND,
    SAMPLES,
    Figure,
    Trace,
    axis,
    empty_note,
    filled_steps,
    label,
    nothing_to_draw,
    outlined_steps,
    small_layout,
)
from kappaflow.report.numbers import drawable, what_is_not_drawn

MOST_MARGINALS = 40
MOST_PAIRED_COLUMNS = 5
MOST_POINTS = 6000  # on the whole page: each is an element of the document

Range = tuple[float, float]


def marginals(parts: list[Marginal]) -> list[Figure]:
    """Returns a histogram for each column; of very many, those that differ most."""
    if len(parts) > MOST_MARGINALS:
        worst = sorted(parts, key=difference, reverse=True)[:MOST_MARGINALS]
        kept = {id(part) for part in worst}
        parts = [part for part in parts if id(part) in kept]
    return [_marginal(part, i) for i, part in enumerate(parts)]


def difference(part: Marginal) -> float:
    """Returns the total variation distance of two histograms, 1 where it cannot be told."""
    edges, data, samples = drawable(part.edges), drawable(part.data), drawable(part.samples)
    total = 0.0
    for left, right, a, b in zip(edges[:-1], edges[1:], data, samples, strict=False):
        if left is None or right is None or a is None or b is None:
            return 1.0
        total += abs(a - b) * (right - left) / 2
    return total


def _marginal(part: Marginal, number: int) -> Figure:
    traces = [
        filled_steps(part.edges, part.data, "data", DATA, DATA_BAND),
        outlined_steps(part.edges, part.samples, "samples", SAMPLES, width=1.8),
    ]
    return Figure(
        name=f"marginal-{number}",
        title=part.column,
        alt=f"Histograms of the column {part.column}, held-out data against samples.",
        caption="",
        traces=traces,
        layout=small_layout(
            axis("value (column's unit)"),
            axis("density (per unit)", rangemode="tozero"),
            annotations=[empty_note()] if nothing_to_draw(traces) else [],
        ),
        remark=what_is_not_drawn([part.edges, part.data, part.samples]),
        height=150,
    )


def pairs(parts: Pairs) -> list[Figure]:
    """Returns the lower triangle: a cloud of points for each two columns, with its place."""
    count = min(len(parts.columns), MOST_PAIRED_COLUMNS)
    cells = count * (count - 1) // 2
    if cells == 0 or not parts.data:
        return []
    points = MOST_POINTS // (2 * cells)
    data = [drawable(row[:count]) for row in parts.data[:points]]
    samples = [drawable(row[:count]) for row in parts.samples[:points]]
    frames = [_frame([row[i] for row in data]) for i in range(count)]
    return [
        _pair(parts.columns, (j, i), data, samples, (frames[j], frames[i]))
        for i in range(1, count)
        for j in range(i)
    ]


def _pair(
    columns: list[str],
    at: tuple[int, int],
    data: list[list[float | None]],
    samples: list[list[float | None]],
    frames: tuple[Range, Range],
) -> Figure:
    j, i = at
    outside = sum(
        _is_outside(row[j], frames[0]) or _is_outside(row[i], frames[1]) for row in samples
    )
    return Figure(
        name=f"pair-{i}-{j}",
        title=f"{columns[i]} against {columns[j]}",
        alt=f"Points of the columns {columns[j]} and {columns[i]}, held-out data against samples; "
        f"{outside} of {len(samples)} samples lie outside the frame.",
        caption="",
        traces=[
            _cloud(data, at, "data", DATA, "circle"),
            _cloud(samples, at, "samples", SAMPLES, "circle"),
        ],
        layout=small_layout(
            axis(label(columns[j], 22), range=list(frames[0])),
            axis(label(columns[i], 22), range=list(frames[1])),
        ),
        remark=f"{outside:,} of {len(samples):,} samples outside" if outside else "",
        height=None,
        place=(i, j + 1),
    )


def _cloud(
    rows: list[list[float | None]], at: tuple[int, int], name: str, color: str, symbol: str
) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [row[at[0]] for row in rows],
        "y": [row[at[1]] for row in rows],
        "name": name,
        "marker": {"color": color, "size": 3.2, "opacity": 0.5, "symbol": symbol},
    }


def _frame(values: list[float | None]) -> Range:
    """Returns the range of the data, with a quarter more on each side for samples that stray."""
    known = [value for value in values if value is not None]
    if not known:
        return 0.0, 1.0
    pad = 0.2 * (max(known) - min(known)) or 0.5
    return min(known) - pad, max(known) + pad


def _is_outside(value: float | None, frame: Range) -> bool:
    return value is None or not frame[0] <= value <= frame[1]
