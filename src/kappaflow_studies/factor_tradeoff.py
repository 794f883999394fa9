"""`factor-tradeoff`: how much better conditioned a factorization is with more couplings."""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from kappaflow.errors import NumericalError
from kappaflow.factor import factor_linear
from kappaflow.report.charts import Chart, Panel, Series
from kappaflow.report.numbers import significant
from kappaflow.theory import min_condition_number
from kappaflow_studies import ensembles
from kappaflow_studies.engine.presets import Counts, Ensemble, Many, NotEmpty
from kappaflow_studies.engine.report import Findings, Table, quantile_series
from kappaflow_studies.engine.study import Case, Row, Study, StudySettings

Enough = Annotated[int, Field(ge=6)]  # six couplings are enough for all maps


class TradeOffSettings(StudySettings):
    """Settings: the maps, and the numbers of couplings.

    Attributes:
        ensembles: Names of `kappaflow_studies.ensembles`.
        sizes: Numbers of features of the maps.
        draws: Number of maps of each ensemble, for each size.
        couplings: The largest allowed numbers of couplings, at least six: fewer are not always
            enough.
    """

    ensembles: Annotated[tuple[Ensemble, ...], NotEmpty]
    sizes: Annotated[tuple[Many, ...], NotEmpty]
    draws: Counts
    couplings: Annotated[tuple[Enough, ...], NotEmpty]

    @model_validator(mode="after")
    def _check(self) -> "TradeOffSettings":
        if len(self.sizes) != len(self.draws):
            raise ValueError("'draws' should have a number for each size")
        return self


def cases(settings: TradeOffSettings, seed: int) -> list[Case]:
    """Returns a case for each map and count; large maps come first."""
    first = 1000 * seed
    return [
        {"ensemble": name, "n": n, "draw": first + draw, "couplings": most}
        for n, draws in sorted(zip(settings.sizes, settings.draws, strict=True), reverse=True)
        for draw in range(draws)
        for name in settings.ensembles
        if ensembles.has_size(name, n)
        for most in settings.couplings
    ]


def measure(case: Case) -> list[Row]:
    """Returns the result for one map and one largest count, or why there is none."""
    matrix = ensembles.draw(case["ensemble"], case["n"], case["draw"])
    of_the_map = float(np.linalg.cond(matrix))
    started = time.perf_counter()
    try:
        found = factor_linear(matrix, couplings=case["couplings"])
    except NumericalError as error:
        return [{"error": str(error), "of_the_map": of_the_map}]
    return [
        {
            "found": len(found),
            "method": found.method,
            "condition_number": found.condition_number,
            "residual": found.residual,
            "time_s": time.perf_counter() - started,
            "of_the_map": of_the_map,
        }
    ]


SHOWN = 64  # features of the maps in the first sentence, if they were measured
SAME_BOUND = "geometric"  # ensembles with maps of equal condition number


def findings(frame: pl.DataFrame, settings: TradeOffSettings) -> Findings:
    """Returns the curve, its tables and the sentences on them."""
    there = frame.drop_nulls("condition_number")
    lost = len(frame) - len(there)
    return Findings(
        found=[
            *_headlines(there),
            f"The largest relative residual of a product is "
            f"{significant(there['residual'].max(), 2)}; "
            + (
                f"all {len(frame):,} searches ended with a factorization."
                if not lost
                else f"{lost} of {len(frame):,} searches ended without one and are left out."
            ),
        ],
        differs=[
            "The source counts couplings and does not ask for their conditioning. The count is "
            "Urschel's (2023); the step that makes it work, that every matrix of determinant 1 "
            "is a commutator, Thompson's (1961); the curve is a new result, and ours. It is what "
            "a search finds, no bound: better factors may exist.",
        ],
        charts=[_chart(there, settings)],
        tables=[*(_table(there, settings, name) for name in settings.ensembles), _times(there)],
    )


def _headlines(frame: pl.DataFrame) -> list[str]:
    sizes = frame["n"].unique().to_list()
    n = SHOWN if SHOWN in sizes else max(sizes)
    here = frame.filter(pl.col("n") == n)
    sentences = []
    for name in here["ensemble"].unique(maintain_order=True).sort():
        of_name = here.filter(pl.col("ensemble") == name)
        counts = sorted(of_name["couplings"].unique())
        medians = {m: _median(of_name.filter(pl.col("couplings") == m)) for m in counts}
        draws = of_name["draw"].n_unique()
        ends = dict.fromkeys((counts[0], counts[-1]))
        values = " and ".join(f"{significant(medians[m])} with {m}" for m in ends)
        sentences.append(f"{title(name)}, {n} features: {values} (median of {draws}).")
    return sentences


def _median(frame: pl.DataFrame) -> float:
    return frame.select(pl.col("condition_number").median()).item()


def _chart(frame: pl.DataFrame, settings: TradeOffSettings) -> Chart:
    panels = []
    for name in settings.ensembles:
        of_name = frame.filter(pl.col("ensemble") == name)
        series = [
            quantile_series(
                of_name.filter(pl.col("n") == n),
                "couplings",
                "condition_number",
                name=f"{n} features",
                tone=tone,
            )
            for tone, n in enumerate(settings.sizes)
            if not of_name.filter(pl.col("n") == n).is_empty()
        ]
        if name.startswith(SAME_BOUND) and not of_name.is_empty():
            series.append(_none_below(of_name, settings))
        panels.append(
            Panel(
                title=title(name),
                x="couplings",
                y="largest condition number of a factor",
                y_log=True,
                series=series,
            )
        )
    return Chart(
        name="trade-off",
        title="Largest condition number of a factor against the number of couplings",
        caption="Medians over the draws, quartiles as bands; where a size has no band it is a "
        "single draw. The condition number of a product is at most the product of the condition "
        "numbers, so that the worst of m factors has at least the m-th root of that of the map: "
        "dotted, where the maps of a panel share it.",
        panels=panels,
        share_y=True,
    )


def _none_below(frame: pl.DataFrame, settings: TradeOffSettings) -> Series:
    of_the_map = max(1.0, *frame["of_the_map"].to_list())
    counts = sorted(settings.couplings)
    return Series(
        name="none lies below",
        x=list(map(float, counts)),
        y=[min_condition_number(of_the_map, count) for count in counts],
        tone=7,
        dash="dot",
    )


def title(name: str) -> str:
    """Returns the name of an ensemble on a page.

    Example:
        >>> title("Gaussian"), title("geometric 1e2")
        ('Gaussian maps', 'Geometric spectrum of condition number 1e2')
    """
    kind, _, condition = name.partition(" ")
    if condition:
        return f"{kind.capitalize()} spectrum of condition number {condition}"
    words = "permutations" if kind == "permutation" else f"{kind} maps"
    return words[0].upper() + words[1:]


def _table(frame: pl.DataFrame, settings: TradeOffSettings, name: str) -> Table:
    rows = []
    for n in settings.sizes:
        here = frame.filter((pl.col("ensemble") == name) & (pl.col("n") == n))
        if here.is_empty():
            continue
        cells = [_cell(here.filter(pl.col("couplings") == m)) for m in settings.couplings]
        rows.append([str(n), str(here["draw"].n_unique()), *cells])
    return Table(
        title=title(name),
        columns=["features", "draws", *map(str, settings.couplings)],
        rows=rows,
        caption="Median of the largest condition number of a factor, and its quartiles.",
    )


def _cell(frame: pl.DataFrame) -> str:
    if frame.is_empty():
        return "none"
    value = pl.col("condition_number")
    low, middle, high = frame.select(
        value.quantile(level, "linear").alias(str(level)) for level in (0.25, 0.5, 0.75)
    ).row(0)
    if len(frame) == 1:
        return significant(middle)
    return f"{significant(middle)} ({significant(low)} to {significant(high)})"


def _times(frame: pl.DataFrame) -> Table:
    counts = sorted(frame["couplings"].unique())
    rows = []
    for n in sorted(frame["n"].unique()):
        cells = []
        for count in counts:
            here = frame.filter((pl.col("n") == n) & (pl.col("couplings") == count))
            slowest = here.group_by("ensemble").agg(pl.col("time_s").median())["time_s"].max()
            cells.append(significant(slowest, 2))
        rows.append([str(n), *cells])
    return Table(
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
        "Any linear layer can be replaced by a constant number of couplings of a fixed partition; "
        "what they cost in conditioning, and what more of them buy, is left open."
    ),
    settings=TradeOffSettings,
    presets=Path(__file__).with_suffix(".toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
