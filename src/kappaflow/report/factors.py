"""The page of a factorization: the map, its factors, and the gain by more couplings."""

from collections.abc import Sequence

import numpy as np

from kappaflow.factor import Factorization, LinearCoupling
from kappaflow.factor.trade_off import Reference, Trial
from kappaflow.report.charts import (
    DATA,
    INK,
    MUTED,
    SAMPLES,
    WORST,
    Chart,
    Heat,
    Numbers,
    Panel,
    band,
    line,
    single_chart,
)
from kappaflow.report.numbers import count, significant
from kappaflow.report.page import (
    Block,
    Charts,
    KeyFigure,
    Page,
    Panels,
    Section,
    Table,
    Text,
    glossary_section,
    render_page,
)

MOST_FEATURES_LISTED = 8
MOST_CELLS = 96  # largest number of cells per side of a heat map; more are too small to see
MOST_FACTORS = 24
MOST_TICKS = 16


def render_factors(
    factorization: Factorization,
    source: str,
    *,
    trials: Sequence[Trial] = (),
    reference: Reference | None = None,
) -> str:
    """Returns the page of a factorization, one HTML document that makes no request.

    `source` names the matrix. `trials` are factorizations with other numbers of couplings; the
    curve is left out without them. `reference` is the curve of other maps, for comparison.
    """
    sections = [_map_section(factorization)]
    if len(factorization):
        sections.append(_couplings_section(factorization))
    if trials:
        sections.append(_trials_section(factorization, trials, reference))
    sections.append(glossary_section(TERMS))
    why = (
        [Text(f"Why so many: {factorization.note}.", style="quiet")] if factorization.note else []
    )
    return render_page(
        Page(
            command="kappaflow factor",
            title=f"{source} as {count(len(factorization), 'coupling')}",
            key_figures=_key_figures(factorization),
            intro=why,
            without_script="The tables do not.",
            sections=sections,
            has_links=False,
        )
    )


def changes(factorization: Factorization, number: int) -> str:
    """Returns the features, counted from 0, that a coupling, counted from 1, changes.

    Example:
        >>> import torch, kappaflow as kf
        >>> changes(kf.factor_linear(torch.eye(4)[[1, 2, 0, 3]]), 1)
        'features 2 to 3'
    """
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
    size = f"{matrix.shape[0]} by {matrix.shape[1]}"
    alt = (
        f"Heat map of the {size} matrix T. Its entries lie between {significant(matrix.min())} "
        f"and {significant(matrix.max())}."
    )
    panel = _heat_map(matrix, "The map T", alt, _largest_entry([matrix]))
    return Chart(name="map", title="The map T", caption="", panels=[panel], height=None)


def factors_chart(factorization: Factorization) -> Chart | None:
    """Returns heat maps of the couplings (the first of many), all with the same colors."""
    if not len(factorization):
        return None
    couplings = factorization.couplings[:MOST_FACTORS]
    matrices = [coupling.matrix().numpy() for coupling in couplings]
    limit = _largest_entry(matrices)
    panels = [
        _heat_map(
            matrix,
            f"Coupling {number}",
            f"Heat map of coupling {number} of {len(factorization)}, with condition number "
            f"{significant(coupling.condition_number)}.",
            limit,
        )
        for number, (matrix, coupling) in enumerate(zip(matrices, couplings, strict=True), start=1)
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
        panel.model_copy(update={"title": panel.title or chart.title})
        for chart in charts
        for panel in chart.panels
    ]
    return Chart(
        name="factorization",
        title=f"{count(len(factorization.matrix), 'feature')} in "
        f"{count(len(factorization), 'coupling')}",
        caption="",
        panels=panels,
        columns=4,
        height=240,
        legend_each=True,
    )


def condition_bars(factorization: Factorization) -> Chart:
    """Returns the condition number of each coupling as a bar, with the lower bound."""
    values = list(factorization.condition_numbers)
    least = factorization.lower_bound
    places = list(range(1, len(values) + 1))
    dotted = {"kind": "outline", "dash": "dot", "width": 1.5}
    return single_chart(
        "condition-bars",
        "Condition number of each factor",
        "The bars should be equally high and close to the dotted line, a lower bound for the "
        "highest: norms multiply, so the factors of T cannot all be below a root of its norm.",
        height=380,
        **_count_axis("coupling, in the order of the product", places),
        y="condition number (pure number)",
        y_log=True,
        y_range=(1.0, 1.3 * max(*values, least, 5.0)),
        series=[
            line("condition number", places, values, DATA, kind="bars"),
            line("not all can be smaller", [0.4, len(values) + 0.6], [least] * 2, INK, **dotted),
        ],
        alt=f"Bars of the condition numbers of {count(len(values), 'coupling')}. The largest is "
        f"{significant(factorization.condition_number)}.",
    )


def trade_off_curve(
    factorization: Factorization, trials: Sequence[Trial], reference: Reference | None = None
) -> Chart | None:
    """Returns the largest condition number of a factor over the number of couplings.

    It returns None if no trial found a factorization. `reference` has other maps to compare with.
    """
    done = [(trial.couplings, trial.found) for trial in trials if trial.found is not None]
    if not done or not len(factorization):
        return None
    counts, values = [n for n, _ in done], [one.condition_number for _, one in done]
    every, condition = range(min(counts), max(counts) + 1), _condition_of_map(factorization)
    dotted = {"kind": "outline", "dash": "dot", "width": 1.5}
    diamond = {"dash": "none", "mark": "diamond", "mark_size": 13}
    series = [
        line(
            "no factorization is below",
            every,
            [_least(condition, n) for n in every],
            MUTED,
            **dotted,
        ),
        line("this map", counts, values, DATA),
        line(
            "this page", [len(factorization)], [factorization.condition_number], WORST, **diamond
        ),
    ]
    shown, others = {*counts, len(factorization)}, ""
    if reference is not None:
        quantiles = (reference.low, reference.median, reference.high)
        series.insert(
            0, band(reference.name, reference.couplings, quantiles, SAMPLES, dash="dash")
        )
        shown |= set(reference.couplings)
        others = "The dashed line and its quartiles show random maps similar to T. "
    pairs = zip(counts, values, strict=True)
    points = ", ".join(f"{n} couplings: {significant(value)}" for n, value in pairs)
    return single_chart(
        "trade-off",
        "Largest condition number of a factor against the number of couplings",
        "The best factorization found with at most so many couplings. The diamond is the "
        f"factorization of this page. {others}The dotted line is the root of the condition number "
        "of T: with so many factors, the largest cannot be below it.",
        height=380,
        **_count_axis("couplings", sorted(shown)),
        y="largest condition number (pure number)",
        y_log=True,
        series=series,
        alt=f"Largest condition number of a factor. {points}.",
    )


def _count_axis(title: str, values: Sequence[int]) -> dict:
    pad = max(0.6, 0.04 * (max(values) - min(values)))
    ticks = values if len(values) <= MOST_TICKS else None
    return {"x": title, "x_range": (min(values) - pad, max(values) + pad), "x_ticks": ticks}


def _map_section(factorization: Factorization) -> Section:
    tile = _tile_size(len(factorization.matrix))
    text = (
        "T = M₁ M₂ …: the last factor acts first. Each factor is a coupling: it keeps some of the "
        "features, and scales the others and adds a combination of the kept ones to them. One "
        "subtraction and one division invert it."
    )
    if tile > 1:
        text += (
            f" Each cell stands for {tile} by {tile} entries and shows the one with the largest "
            "absolute value."
        )
    factors = factors_chart(factorization)
    charts = Charts(
        [map_chart(factorization), condition_bars(factorization)]
        if factors
        else [map_chart(factorization)]
    )
    last = Panels(factors) if factors else Text("The identity has no factors.")
    return Section("map", "The map and its factors", [Text(text), charts, last])


def _couplings_section(factorization: Factorization) -> Section:
    rows = [
        [
            str(number), changes(factorization, number), significant(coupling.condition_number),
            _diagonal(coupling),
        ]
        for number, coupling in enumerate(factorization.couplings, start=1)
    ]  # fmt: skip
    table = Table(("Coupling", "Changes", "Condition number", "Diagonal"), rows)
    note = Text("Features are counted from 0.", style="quiet")
    return Section("couplings", "The couplings in numbers", [table, note])


def _trials_section(
    factorization: Factorization, trials: Sequence[Trial], reference: Reference | None
) -> Section:
    curve = trade_off_curve(factorization, trials, reference)
    blocks: list[Block] = [
        Text("The same map with other numbers of couplings: more depth for better conditioning.")
    ]
    if curve is not None:
        blocks.append(Charts([curve], wide=True))
    rows = [
        [
            str(trial.couplings), str(len(one)), significant(one.condition_number),
            significant(one.residual, 2), one.method,
        ]
        for trial in trials
        if (one := trial.found) is not None
    ]  # fmt: skip
    columns = ("Allowed", "Used", "Largest condition number", "Residual", "Method")
    blocks.append(Table(columns, rows))
    blocks += [
        Text(f"{count(trial.couplings, 'coupling')}: {trial.why_not}", style="quiet")
        for trial in trials
        if trial.why_not
    ]
    return Section("trade-off", "What more couplings bring", blocks)


def _key_figures(factorization: Factorization) -> list[KeyFigure]:
    condition = _condition_of_map(factorization)
    least = significant(factorization.lower_bound)
    gain = ""
    if factorization.before_search is not None:
        gain = f"; {significant(factorization.before_search)} in closed form, before the search"
    sign = "none" if factorization.flipped is None else f"in coupling {factorization.flipped + 1}"
    return [
        KeyFigure("Couplings", str(len(factorization)), "", f"method: {factorization.method}"),
        KeyFigure(
            "Largest condition number of a factor",
            significant(factorization.condition_number),
            "",
            f"{least} is the lower bound for so many factors{gain}",
        ),
        KeyFigure("Condition number of T", significant(condition), "", "1 is perfect"),
        KeyFigure(
            "Residual",
            significant(factorization.residual, 2),
            "",
            "difference between the product of the couplings and T, relative to T",
        ),
        KeyFigure("Features", str(len(factorization.matrix)), "", "rows and columns of T"),
        KeyFigure("Negative entry", sign, "", "one diagonal has it where det T is negative"),
    ]


def _diagonal(coupling: LinearCoupling) -> str:
    """Returns the range of the entries of a diagonal."""
    values = coupling.diagonal.detach()
    low, high = significant(values.min().item()), significant(values.max().item())
    return low if low == high else f"{low} to {high}"


def _condition_of_map(factorization: Factorization) -> float:
    return float(np.linalg.cond(factorization.matrix.numpy()))


def _least(condition: float, couplings: int) -> float:
    """Returns the root of cond(T): the product of the condition numbers is at least cond(T)."""
    return condition ** (1 / max(1, couplings))


def _heat_map(matrix: np.ndarray, title: str, alt: str, limit: float) -> Panel:
    tile = _tile_size(len(matrix))
    cells = _tiled(matrix, tile)
    first = (tile - 1) / 2
    ends = (first, first + tile * (len(cells) - 1))
    # Three digits are more than a color shows.
    values: list[Numbers] = [[float(f"{value:.3g}") for value in row] for row in cells]
    heat = Heat(values=values, x=ends, y=ends, limit=limit)
    return Panel(title=title, x="column", y="row", heat=heat, alt=alt)


def _largest_entry(matrices: Sequence[np.ndarray]) -> float:
    """Returns the largest absolute value of an entry, the end of the color scale."""
    return max((float(np.abs(matrix).max()) for matrix in matrices), default=1.0)


def _tile_size(size: int) -> int:
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


TERMS = (
    "Coupling",
    "Singular values",
    "Condition number",
    "Residual",
    "Method",
)
