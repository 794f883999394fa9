"""The tables of the experiment on padding: a row a padding, a column a set."""

from collections.abc import Callable, Sequence

import polars as pl

from kappaflow.report.numbers import fixed, significant
from kappaflow_studies.engine.study_content import Table
from kappaflow_studies.padding.cases import PaddingSettings
from kappaflow_studies.padding.charts import FLOOR, words
from kappaflow_studies.padding.order import claimed_steps, ordered
from kappaflow_studies.padding.spec import spec_of

VERDICTS = {1: "confirmed", 0: "open", -1: "refuted"}
NOTHING = "–"
Cell = Callable[[pl.DataFrame], str]


def tables(frame: pl.DataFrame, settings: PaddingSettings) -> list[Table]:
    """Returns those for which something was measured."""
    plane = frame.filter(pl.col("kind").str.starts_with("plane"))
    images = frame.filter(pl.col("kind").str.starts_with("image"))
    paddings = (*settings.compared, *settings.others)
    found = [_order(plane, settings)]
    for rows, sets, names, where, of_nll in (
        (plane, settings.sets, paddings, "planar sets", OF_NLL),
        (images, settings.image_sets, settings.image_paddings, "images", OF_IMAGE_NLL),
    ):
        found += [
            _by_padding(f"Condition number, {where}", rows, sets, names, _conditioning, OF_KAPPA),
            _by_padding(f"Likelihood, {where}", rows, sets, names, _likelihood, of_nll),
            _by_padding(f"Distance of samples, {where}", rows, sets, names, _distance, OF_W2),
        ]
    closed = [name for name in settings.sets if _has(plane, name, "kl")]
    found.append(_by_padding("Divergence, planar sets", plane, closed, paddings, _kl, OF_KL))
    return [table for table in found if table.rows]


OF_KAPPA = "Median over held-out points, and their 5 % and 95 % quantiles; medians over the seeds."
OF_NLL = (
    "NLL in nats a point: by importance weights (exact without padding) with the Monte Carlo "
    "error of the draws, and in brackets the bound of one draw a point; medians over the seeds. "
    "Zeros have no density, and leave no likelihood."
)
OF_IMAGE_NLL = (
    "NLL in nats an image, a bound: that of many draws of the noise in the pixels and of the "
    "padding, importance-weighted, with the Monte Carlo error of the draws, and in brackets that "
    "of one draw; medians over the seeds. Zeros have no density, and leave no likelihood."
)
OF_W2 = (
    "W2 to as many held-out points, exact and sliced, medians over the seeds; the last row is the "
    "floor, two samples of the data themselves. Images have pixels from 0 to 1."
)
OF_KL = (
    "KL divergence in nats of the flow from the density that the points come from, ± the error "
    "over 2,000 points, where that density has a closed form; medians over the seeds."
)


def _order(plane: pl.DataFrame, settings: PaddingSettings) -> Table:
    trained, rows = plane.filter(pl.col("kind") == "plane"), []
    for name in settings.sets:
        steps = claimed_steps(trained.filter(pl.col("set") == name), settings.compared)
        if steps and not trained.is_empty():
            rows.append([words(name), *(s.in_words for s in steps), VERDICTS[ordered(steps)]])
    return Table(
        title="The claimed order of condition numbers, set by set",
        columns=["set", "zero above none", "none above Gaussian", "the order"],
        rows=rows,
        caption="In how many seeds the median condition number of the first is above that of the "
        "second, and the p-value of the two-sided sign test. Confirmed: both steps at 5 %; "
        "refuted: one of them the other way at 5 %.",
    )


def _by_padding(
    title: str,
    frame: pl.DataFrame,
    sets: Sequence[str],
    paddings: Sequence[str],
    cell: Cell,
    caption: str,
) -> Table:
    rows = []
    for padding in paddings:
        of_padding = frame.filter(pl.col("padding") == padding)
        if not of_padding.is_empty():
            cells = [cell(of_padding.filter(pl.col("set") == name)) for name in sets]
            rows.append([spec_of(padding).in_words, *cells])
    floor = frame.filter(pl.col("padding").is_null())
    if cell is _distance and not floor.is_empty():
        cells = [cell(floor.filter(pl.col("set") == name)) for name in sets]
        rows.append([FLOOR, *cells])
    rows = rows if sets else []
    return Table(title=title, columns=["padding", *map(words, sets)], rows=rows, caption=caption)


def _has(frame: pl.DataFrame, name: str, column: str) -> bool:
    return frame.filter(pl.col("set") == name)[column].count() > 0


def _middle(frame: pl.DataFrame, column: str) -> float | None:
    return frame.select(pl.col(column).fill_nan(float("inf")).median()).item()


def _conditioning(frame: pl.DataFrame) -> str:
    low, middle, high = (_middle(frame, f"kappa_{name}") for name in ("p05", "median", "p95"))
    if middle is None:
        return NOTHING
    return f"{significant(middle)} ({significant(low)} to {significant(high)})"


def _likelihood(frame: pl.DataFrame) -> str:
    kinds = frame["likelihood"].drop_nulls()
    if kinds.is_empty():
        return NOTHING
    if kinds[0] == "joint":
        return "none"
    weighted = fixed(_middle(frame, "weighted_nll"), 3)
    if kinds[0] == "exact":
        return weighted
    error = significant(_middle(frame, "weighted_error"), 1)
    return f"{weighted} ± {error} ({fixed(_middle(frame, 'nll'), 3)})"


def _distance(frame: pl.DataFrame) -> str:
    exact, sliced = _middle(frame, "w2"), _middle(frame, "sliced_w2")
    return NOTHING if exact is None else f"{significant(exact)}, {significant(sliced)}"


def _kl(frame: pl.DataFrame) -> str:
    middle = _middle(frame, "kl")
    if middle is None:
        return NOTHING
    return f"{fixed(middle, 3)} ± {significant(_middle(frame, 'kl_error'), 1)}"
