"""`factor-tradeoff`: how much better conditioned a factorization is with more couplings."""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from kappaflow.errors import NumericalError
from kappaflow.factor import factor_linear
from kappaflow.report.charts import Chart, Numbers, Series
from kappaflow.report.numbers import significant
from kappaflow_studies import ensembles
from kappaflow_studies.engine.charts import groups, median, panel, quantile_series, ranged
from kappaflow_studies.engine.presets import Counts, Ensemble, Many, NotEmpty
from kappaflow_studies.engine.report import StudyFindings, StudyTable
from kappaflow_studies.engine.study import Case, Row, Study, StudySettings
from kappaflow_studies.theory import min_condition_number

SEARCH_TIME_S = 1e6  # seconds of a search, effectively unlimited
CouplingCount = Annotated[int, Field(ge=6)]  # six couplings are enough for all maps of even size


class TradeOffSettings(StudySettings):
    """Settings of the maps, and the numbers of couplings."""

    ensembles: Annotated[tuple[Ensemble, ...], NotEmpty]
    sizes: Annotated[tuple[Many, ...], NotEmpty]  # numbers of features
    draws: Counts  # number of maps of each ensemble, for each size
    couplings: Annotated[tuple[CouplingCount, ...], NotEmpty]  # the largest allowed numbers

    @model_validator(mode="after")
    def _check(self) -> "TradeOffSettings":
        if len(self.sizes) != len(self.draws):
            raise ValueError("'draws' should have a number for each size")
        return self


def cases(settings: TradeOffSettings, seed: int) -> list[Case]:
    """Returns a case for each map and count; large maps come first."""
    first = 1000 * seed
    return [
        {"ensemble": name, "n": n, "draw": first + draw, "couplings": max_couplings}
        for n, draws in sorted(zip(settings.sizes, settings.draws, strict=True), reverse=True)
        for draw in range(draws)
        for name in settings.ensembles
        if ensembles.has_size(name, n)
        for max_couplings in settings.couplings
    ]


def measure(case: Case) -> list[Row]:
    """Returns the factorization of one map with at most `couplings` couplings, or the error."""
    matrix = ensembles.draw(case["ensemble"], case["n"], case["draw"])
    map_condition = float(np.linalg.cond(matrix))
    started = time.perf_counter()
    try:
        factorization = factor_linear(
            matrix, couplings=case["couplings"], max_time_s=SEARCH_TIME_S
        )
    except NumericalError as error:
        return [{"error": str(error), "of_the_map": map_condition}]
    return [
        {
            "found": len(factorization),
            "method": factorization.method,
            "condition_number": factorization.condition_number,
            "residual": factorization.residual,
            "time_s": time.perf_counter() - started,
            "of_the_map": map_condition,
        }
    ]


SHOWN_FEATURES = 64  # features of the maps in the sentences, if they were measured
FIXED_CONDITION = "geometric"  # ensembles with maps of equal condition number


def findings(frame: pl.DataFrame, settings: TradeOffSettings) -> StudyFindings:
    """Returns the curve, its tables and the sentences on them."""
    solved = frame.drop_nulls("condition_number")
    failed = len(frame) - len(solved)
    outcome = f"all {len(frame):,} searches ended with a factorization"
    if failed:
        outcome = f"{failed} of {len(frame):,} searches ended without one and are left out"
    return StudyFindings(
        found=[
            _headline(solved),
            f"The largest relative residual of a product is "
            f"{significant(solved['residual'].max(), 2)}; {outcome}.",
        ],
        differs=[
            "The source counts couplings and does not ask for their conditioning. The count of "
            "six is Urschel's (2023), by a theorem of Thompson (1961); the curve is ours."
        ],
        charts=[_chart(solved, settings)],
        tables=[*(_table(solved, settings, name) for name in settings.ensembles), _times(solved)],
    )


def _headline(frame: pl.DataFrame) -> str:
    sizes = frame["n"].unique().to_list()
    n = SHOWN_FEATURES if SHOWN_FEATURES in sizes else max(sizes)
    of_size = frame.filter(n=n)
    fewest, most = min(of_size["couplings"]), max(of_size["couplings"])
    values = []
    for name, rows in groups(of_size, "ensemble", sorted(of_size["ensemble"].unique())).items():
        extremes = (rows.filter(couplings=m)["condition_number"] for m in (fewest, most))
        values.append(f"{title(name)} {' and '.join(significant(median(c)) for c in extremes)}")
    return (
        f"More couplings are better conditioned. At {n} features, the largest condition number of "
        f"a factor with {fewest} couplings and with {most} (median of "
        f"{of_size['draw'].n_unique()} maps): {'; '.join(values)}."
    )


def _chart(frame: pl.DataFrame, settings: TradeOffSettings) -> Chart:
    panels, tones = [], {n: tone for tone, n in enumerate(settings.sizes)}
    for name in settings.ensembles:
        of_name = frame.filter(ensemble=name)
        series = []
        for n, rows in groups(of_name, "n", settings.sizes).items():
            style = {"name": f"{n} features", "tone": tones[n]}
            series.append(quantile_series(rows, "couplings", "condition_number", **style))
        if name.startswith(FIXED_CONDITION) and series:
            map_condition = max(1.0, *of_name["of_the_map"].to_list())
            counts = sorted(settings.couplings)
            x: Numbers = [float(count) for count in counts]
            y: Numbers = [min_condition_number(map_condition, count) for count in counts]
            series.append(Series(name="lower bound", x=x, y=y, tone=7, kind="dotted"))
        label = "largest condition number of a factor"
        panels.append(panel(title(name), "couplings", label, series, log="y"))
    return Chart(
        name="trade-off",
        title="Largest condition number of a factor against the number of couplings",
        caption="Medians and quartiles over the draws. Dotted: the m-th root of the condition "
        "number of the map, which the worst of m factors cannot be below.",
        panels=panels,
        share_y=True,
    )


def title(name: str) -> str:
    """Returns the name of an ensemble on a page: "Gaussian maps", "Geometric spectrum of ..."."""
    kind, _, condition = name.partition(" ")
    if condition:
        return f"{kind.capitalize()} spectrum of condition number {condition}"
    text = "permutations" if kind == "permutation" else f"{kind} maps"
    return text[0].upper() + text[1:]


def _table(frame: pl.DataFrame, settings: TradeOffSettings, name: str) -> StudyTable:
    rows = [
        [str(n), str(draws["draw"].n_unique())]
        + [_cell(draws.filter(couplings=m)["condition_number"]) for m in settings.couplings]
        for n, draws in groups(frame.filter(ensemble=name), "n", settings.sizes).items()
    ]
    return StudyTable(
        title=title(name),
        columns=["features", "draws", *map(str, settings.couplings)],
        rows=rows,
        caption="Median of the largest condition number of a factor, and its quartiles.",
    )


def _cell(values: pl.Series) -> str:
    if values.is_empty():
        return "none"
    middle, low, high = (significant(values.quantile(q, "linear")) for q in (0.5, 0.25, 0.75))
    return middle if len(values) == 1 else ranged(middle, low, high)


def _times(frame: pl.DataFrame) -> StudyTable:
    counts = sorted(frame["couplings"].unique())
    slowest = frame.group_by("n", "couplings", "ensemble").agg(pl.col("time_s").median())
    rows = []
    for n in sorted(frame["n"].unique()):
        times = [slowest.filter(n=n, couplings=m)["time_s"].max() for m in counts]
        rows.append([str(n), *(significant(time_s, 2) for time_s in times)])
    return StudyTable(
        title="Time",
        columns=["features", *map(str, counts)],
        rows=rows,
        caption="Seconds for one factorization on one thread: the median of the slowest ensemble.",
    )


FACTOR_TRADEOFF = Study(
    name="factor-tradeoff",
    title="What more couplings buy",
    about="the largest condition number of a factor, from six couplings to sixteen",
    claim=(
        "A constant number of couplings of a fixed partition replaces any linear layer; how well "
        "conditioned they are, and what more of them buy, is left open."
    ),
    settings=TradeOffSettings,
    presets=Path(__file__).with_suffix(".toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
