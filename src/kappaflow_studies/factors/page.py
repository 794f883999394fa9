"""The page of a factorization: the map, its factors, and the gain by more couplings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kappaflow.factor import Factorization, LinearCoupling
from kappaflow.report.charts import DATA, MUTED, WORST, Chart, line, single_chart
from kappaflow.report.factorization import (
    changes,
    condition_bars,
    count_axis,
    factors_chart,
    map_chart,
    tile_size,
)
from kappaflow.report.numbers import count, significant
from kappaflow.report.page import (
    Block,
    Charts,
    KeyFigure,
    Page,
    Section,
    Text,
    TextTable,
    glossary_section,
    render_page,
)
from kappaflow_studies.factors.trade_off import CountResult, trade_off

TERMS = ("Coupling", "Singular values", "Condition number", "Residual", "Method")


def factors_page(
    factorization: Factorization,
    matrix: Tensor | np.ndarray,
    source: str,
    *,
    known: Mapping[int, Factorization],
    **search: Any,
) -> str:
    """Returns the page of a factorization, with other numbers of couplings for its matrix."""
    trials = trade_off(matrix, known=known, **search)
    return render_factors(factorization, source, trials=trials)


def render_factors(
    factorization: Factorization, source: str, *, trials: Sequence[CountResult] = ()
) -> str:
    """Returns the page of a factorization, one HTML document that makes no request."""
    sections = [_map_section(factorization)]
    if len(factorization):
        sections.append(_couplings_section(factorization))
    if trials:
        sections.append(_trials_section(factorization, trials))
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


def trade_off_curve(factorization: Factorization, trials: Sequence[CountResult]) -> Chart | None:
    """Returns the largest condition number of a factor over the number of couplings."""
    points = [
        (trial.couplings, best.condition_number)
        for trial in trials
        if (best := trial.factorization) is not None
    ]
    if not points or not len(factorization):
        return None
    counts, values = [n for n, _ in points], [value for _, value in points]
    every, condition = range(min(counts), max(counts) + 1), _condition_of_map(factorization)
    least = [condition ** (1 / max(1, n)) for n in every]  # norms of factors multiply
    diamond = {"kind": "points", "mark": "diamond"}
    series = [
        line("no factorization is below", every, least, MUTED, kind="dotted"),
        line("this map", counts, values, DATA),
        line(
            "this page", [len(factorization)], [factorization.condition_number], WORST, **diamond
        ),
    ]
    return single_chart(
        "trade-off",
        "Largest condition number of a factor against the number of couplings",
        "The best factorization found with at most so many couplings. The diamond is the "
        "factorization of this page. The dotted line is the root of the condition number of T: "
        "with so many factors, the largest cannot be below it.",
        **count_axis("couplings", sorted({*counts, len(factorization)})),
        y="largest condition number (pure number)",
        y_log=True,
        series=series,
    )


def _map_section(factorization: Factorization) -> Section:
    tile = tile_size(len(factorization.matrix))
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
    last = Charts([factors]) if factors else Text("The identity has no factors.")
    return Section("map", "The map and its factors", [Text(text), charts, last])


def _couplings_section(factorization: Factorization) -> Section:
    rows = [
        [
            str(number), changes(factorization, number), significant(coupling.condition_number),
            _diagonal(coupling),
        ]
        for number, coupling in enumerate(factorization.couplings, start=1)
    ]  # fmt: skip
    table = TextTable(("Coupling", "Changes", "Condition number", "Diagonal"), rows)
    note = Text("Features are counted from 0.", style="quiet")
    return Section("couplings", "The couplings in numbers", [table, note])


def _trials_section(factorization: Factorization, trials: Sequence[CountResult]) -> Section:
    curve = trade_off_curve(factorization, trials)
    blocks: list[Block] = [
        Text("The same map with other numbers of couplings: more depth for better conditioning.")
    ]
    if curve is not None:
        blocks.append(Charts([curve], wide=True))
    rows = [
        [
            str(trial.couplings), str(len(best)), significant(best.condition_number),
            significant(best.residual, 2), best.method,
        ]
        for trial in trials
        if (best := trial.factorization) is not None
    ]  # fmt: skip
    columns = ("Allowed", "Used", "Largest condition number", "Residual", "Method")
    blocks.append(TextTable(columns, rows))
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
