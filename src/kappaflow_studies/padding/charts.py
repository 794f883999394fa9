"""The measurements as charts and tables."""

from collections.abc import Callable, Sequence

import polars as pl

from kappaflow.report.charts import Chart, Heat, Panel, Series
from kappaflow.report.numbers import fixed, significant
from kappaflow_studies.engine.report import Table, quantile_series
from kappaflow_studies.padding.cases import NONE, PaddingSettings, spec_of
from kappaflow_studies.padding.comparisons import claimed_steps, ordered
from kappaflow_studies.padding.measure import CELLS, PICTURED, span

TONES = {"none": 6, "gaussian": 0, "zero": 4, "uniform": 3, "copy": 5, "learned": 2}
FLOOR, MOST = "two samples of the data", 7  # the eighth tone belongs to the floor


def charts(frame: pl.DataFrame, settings: PaddingSettings) -> list[Chart]:
    """Returns the charts that have measurements."""
    plane = frame.filter(pl.col("kind") == "plane")
    images = frame.filter(pl.col("kind") == "images")
    found = [
        over_training(plane, settings.sets, settings.compared, "conditioning"),
        *(pictures(frame, settings, name) for name in settings.sets),
        *_against(frame, settings, "width"),
        *_against(frame, settings, "scale"),
        over_training(images, settings.image_sets, settings.image_paddings, "image-conditioning"),
        sheets(images, settings),
    ]
    return [chart for chart in found if chart.panels]


def over_training(
    frame: pl.DataFrame, sets: Sequence[str], paddings: Sequence[str], name: str
) -> Chart:
    """Returns the condition number over the epochs, with a panel for each set."""
    lines = frame.select(
        "set",
        "padding",
        pl.col("epochs_measured").alias("epoch"),
        pl.col("kappa_over_training").alias("kappa"),
    ).drop_nulls()
    long = lines.explode("epoch", "kappa") if len(lines) else lines
    panels = []
    for of_set in sets:
        series = [
            quantile_series(here, "epoch", "kappa", name=spec_of(padding).description, tone=tone)
            for tone, padding in _toned(paddings)
            for here in [_of(long, of_set, padding)]
            if not here.is_empty()
        ]
        if series:
            panels.append(
                Panel(title=words(of_set), x="epoch", y="condition number", y_log=True,
                      series=series)
            )  # fmt: skip
    return Chart(
        name=name,
        title="Condition number over the training"
        + (" of flows of images" if "image" in name else ""),
        caption="Each flow's median over held-out points, of the weights that are validated; the "
        "line is the median over the seeds, the band their quartiles.",
        panels=panels,
        columns=min(3, max(1, len(panels))),
        share_y=True,
    )


def pictures(frame: pl.DataFrame, settings: PaddingSettings, name: str) -> Chart:
    """Returns histograms of a set and of samples of its flows, side by side."""
    drawn = frame.filter(pl.col("kind").str.starts_with("plane") & (pl.col("set") == name))
    drawn, end = drawn.drop_nulls("picture"), span(name)
    held = {"the data": drawn.filter(pl.col("padding").is_null())}
    held |= {
        spec_of(padding).description: drawn.filter(pl.col("padding") == padding)
        for padding in settings.compared
    }
    return Chart(
        name=f"densities-{name.replace('_', '-')}",
        title=f"{words(name)}: the data, and what each flow draws",
        caption=f"Histograms of {PICTURED:,} points, of the first seed.",
        panels=[
            _heat(title, rows["picture"][0].to_list(), CELLS, end)
            for title, rows in held.items()
            if not rows.is_empty()
        ],
        columns=len(held),
    )


def sheets(images: pl.DataFrame, settings: PaddingSettings) -> Chart:
    """Returns samples of each flow of images."""
    panels = []
    for name in settings.image_sets:
        for padding in settings.image_paddings:
            here = _of(images, name, padding).drop_nulls("picture")
            if not here.is_empty():
                side = int(here["picture_side"][0])
                title = f"{name}, {spec_of(padding).description}"
                panels.append(_heat(title, here["picture"][0].to_list(), side, 1.0))
    return Chart(
        name="image-samples",
        title="Samples of the flows of images",
        caption="The first 36 samples of the first seed, at temperature 1.",
        panels=panels,
        columns=max(1, len(settings.image_paddings)),
    )


def _heat(title: str, counts: Sequence[float | None], columns: int, end: float) -> Panel:
    rows: list[list[float | None]] = [
        list(counts[start : start + columns]) for start in range(0, len(counts), columns)
    ]
    return Panel(title=title, heat=Heat(values=rows, x=(-end, end), y=(-end, end)))


def _against(frame: pl.DataFrame, settings: PaddingSettings, what: str) -> list[Chart]:
    """Returns condition number and distance, by the width or the scale of Gaussian padding."""
    plane = frame.filter(pl.col("kind") == "plane")
    named = {name: spec_of(name) for name in (*settings.compared, *settings.others)}
    gaussian = {name: spec for name, spec in named.items() if spec.kind == "gaussian"}
    doubled = min((s.width for s in gaussian.values() if s.width >= 2), default=2)
    if what == "width":
        places = {n: float(s.width) for n, s in gaussian.items() if s.scale in (None, 1.0)}
        places |= {name: 0.0 for name in named if name == NONE}
    else:
        places = {n: s.scale or 1.0 for n, s in gaussian.items() if s.width == doubled}
    if len(places) < 3 or plane.is_empty():
        return []
    key = pl.DataFrame({"padding": list(places), "place": list(places.values())})
    at = plane.join(key, on="padding")
    charts = []
    for y, label in (("kappa_median", "condition number"), ("w2", "exact W2 to the data")):
        panels = [
            _panel(at, frame, settings, name, what, y, label, places) for name in settings.sets
        ]
        noun = "width" if what == "width" else "scale"
        charts.append(
            Chart(
                name=f"{'conditioning' if y == 'kappa_median' else 'distance'}-{noun}",
                title=f"{label[0].upper()}{label[1:]} against the {noun} of Gaussian padding",
                caption="The line is the median over the seeds, the band their quartiles. "
                + ("A width of 0 is a flow without padding. " if what == "width" else "")
                + "Paddings of other kinds are lines across, where they were trained"
                + (
                    "."
                    if y == "kappa_median"
                    else "; the dotted line is the floor, what two samples of the data are apart."
                ),
                panels=panels,
                columns=min(3, len(panels)),
            )
        )
    return charts


def _panel(
    at: pl.DataFrame,
    frame: pl.DataFrame,
    settings: PaddingSettings,
    name: str,
    what: str,
    y: str,
    label: str,
    places: dict[str, float],
) -> Panel:
    here = at.filter(pl.col("set") == name)
    series = [quantile_series(here, "place", y, name="Gaussian", tone=TONES["gaussian"])]
    ends = (min(places.values()), max(places.values()))
    named = (*settings.compared, *settings.others)
    others = [n for n in named if n not in places and spec_of(n).kind != "gaussian"]
    for tone, padding in _toned(others):
        rows = _of(frame, name, padding)
        series += _across(rows, y, ends, spec_of(padding).description, tone, "dash")
    if y == "w2":
        floor = frame.filter((pl.col("kind") == "plane floor") & (pl.col("set") == name))
        series += _across(floor, y, ends, FLOOR, 7, "dot")
    unit = "features of padding" if what == "width" else "standard deviation of the padding"
    return Panel(
        title=words(name), x=unit, y=label, x_log=what == "scale", y_log=True, series=series
    )


def _across(
    rows: pl.DataFrame, y: str, ends: tuple[float, float], name: str, tone: int, dash: str
) -> list[Series]:
    """Returns a horizontal line at the median; none if there is no median."""
    value = rows.select(pl.col(y).fill_nan(float("inf")).median()).item()
    if value is None:
        return []
    line = {"x": list(ends), "y": [value, value], "tone": tone, "dash": dash}
    return [Series.model_validate({"name": name, **line})]


def _of(frame: pl.DataFrame, name: str, padding: str) -> pl.DataFrame:
    return frame.filter((pl.col("set") == name) & (pl.col("padding") == padding))


def _toned(paddings: Sequence[str]) -> list[tuple[int, str]]:
    """Returns each padding with a tone: its kind's, or another one if that is taken."""
    taken: list[int] = []
    for padding in paddings:
        own = TONES[spec_of(padding).kind]
        free = [own, *(tone for tone in range(MOST) if tone not in TONES.values()), *range(MOST)]
        taken.append(next((tone for tone in free if tone not in taken), own))
    return list(zip(taken, paddings, strict=True))


def words(name: str) -> str:
    """Returns the name of a set on a page.

    Example:
        >>> words("two_moons")
        'Two moons'
    """
    text = name.replace("_", " ").replace("gaussians", "Gaussians")
    return text[0].upper() + text[1:]


VERDICTS = {1: "confirmed", 0: "open", -1: "refuted"}
NOTHING = "–"
Cell = Callable[[pl.DataFrame], str]


def tables(frame: pl.DataFrame, settings: PaddingSettings) -> list[Table]:
    """Returns the tables that have measurements."""
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
            rows.append([words(name), *(s.description for s in steps), VERDICTS[ordered(steps)]])
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
            rows.append([spec_of(padding).description, *cells])
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
