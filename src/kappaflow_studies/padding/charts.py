"""The measurements as charts and tables."""

from collections.abc import Callable, Sequence

import polars as pl

from kappaflow.report.charts import Chart
from kappaflow.report.numbers import fixed, significant
from kappaflow_studies.engine.charts import (
    heat_panel,
    level_series,
    median,
    panel,
    quantile_series,
    ranged,
)
from kappaflow_studies.engine.report import Table
from kappaflow_studies.padding.cases import NONE, PaddingSettings, spec_of
from kappaflow_studies.padding.comparisons import WITHIN, claimed_steps, ordered
from kappaflow_studies.padding.measure import CELLS, PICTURED, span

TONES = {"none": 6, "gaussian": 0, "zero": 4, "uniform": 3, "copy": 5, "learned": 2}
FLOOR, MOST = "two samples of the data", 7  # the eighth tone belongs to the floor


def charts(frame: pl.DataFrame, settings: PaddingSettings) -> list[Chart]:
    """Returns the charts that have measurements."""
    plane, images = frame.filter(kind="plane"), frame.filter(kind="images")
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
    columns = {"epoch": "epochs_measured", "kappa": "kappa_over_training"}
    lines = frame.select("set", "padding", **columns).drop_nulls()
    long = lines.explode("epoch", "kappa") if len(lines) else lines
    panels = []
    for of_set in sets:
        series = [
            quantile_series(here, "epoch", "kappa", name=spec_of(padding).description, tone=tone)
            for tone, padding in _toned(paddings)
            if not (here := long.filter(set=of_set, padding=padding)).is_empty()
        ]
        if series:
            panels.append(panel(words(of_set), "epoch", "condition number", series, log="y"))
    of_images = " of flows of images" if "image" in name else ""
    return Chart(
        name=name,
        title=f"Condition number over the training{of_images}",
        caption="Median over held-out points; the line is the median over the seeds, the band "
        "their quartiles.",
        panels=panels,
        columns=min(3, max(1, len(panels))),
        share_y=True,
    )


def pictures(frame: pl.DataFrame, settings: PaddingSettings, name: str) -> Chart:
    """Returns histograms of a set and of samples of its flows, side by side."""
    planes = frame.filter(pl.col("kind").str.starts_with("plane"), pl.col("set") == name)
    drawn, end = planes.drop_nulls("picture"), span(name)
    held = {"the data": drawn.filter(pl.col("padding").is_null())} | {
        spec_of(padding).description: drawn.filter(padding=padding)
        for padding in settings.compared
    }
    return Chart(
        name=f"densities-{name.replace('_', '-')}",
        title=f"{words(name)}: the data, and samples of each flow",
        caption=f"Histograms of {PICTURED:,} points, for the first seed.",
        panels=[
            heat_panel(title, rows["picture"][0].to_list(), CELLS, end)
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
            here = images.filter(set=name, padding=padding).drop_nulls("picture")
            if not here.is_empty():
                side, title = int(here["picture_side"][0]), spec_of(padding).description
                counts = here["picture"][0].to_list()
                panels.append(heat_panel(f"{name}, {title}", counts, side, 1.0))
    return Chart(
        name="image-samples",
        title="Samples of the flows of images",
        caption="The first 36 samples of the first seed, at temperature 1.",
        panels=panels,
        columns=max(1, len(settings.image_paddings)),
    )


def _against(frame: pl.DataFrame, settings: PaddingSettings, what: str) -> list[Chart]:
    """Returns condition number and distance, by the width or the scale of Gaussian padding."""
    plane = frame.filter(kind="plane")
    named = {name: spec_of(name) for name in (*settings.compared, *settings.others)}
    gaussian = {name: spec for name, spec in named.items() if spec.kind == "gaussian"}
    if what == "width":
        places = {n: float(s.width) for n, s in gaussian.items() if s.scale in (None, 1.0)}
        places |= {name: 0.0 for name in named if name == NONE}
    else:
        doubled = min((s.width for s in gaussian.values() if s.width >= 2), default=2)
        places = {n: s.scale or 1.0 for n, s in gaussian.items() if s.width == doubled}
    if len(places) < 3 or plane.is_empty():
        return []
    key = pl.DataFrame({"padding": list(places), "place": list(places.values())})
    at = plane.join(key, on="padding")
    ends = (min(places.values()), max(places.values()))
    levels = [n for n, s in named.items() if n not in places and s.kind != "gaussian"]
    x = "features of padding" if what == "width" else "standard deviation of the padding"
    found = []
    for y, label, name in (
        ("kappa_median", "condition number", "conditioning"),
        ("w2", "exact W2 to the data", "distance"),
    ):
        panels = []
        for of_set in settings.sets:
            here, rows = at.filter(set=of_set), frame.filter(set=of_set)
            series = [quantile_series(here, "place", y, name="Gaussian", tone=TONES["gaussian"])]
            for tone, padding in _toned(levels):
                about = {"name": spec_of(padding).description, "tone": tone, "kind": "dashed"}
                series += level_series(rows.filter(padding=padding)[y], ends, **about)
            if y == "w2":
                floor = rows.filter(kind="plane floor")[y]
                series += level_series(floor, ends, name=FLOOR, tone=7, kind="dotted")
            log = "xy" if what == "scale" else "y"
            panels.append(panel(words(of_set), x, label, series, log=log))
        caption = "Median over the seeds, and quartiles as a band. Dashed: other paddings."
        caption += " A width of 0 is a flow without padding." if what == "width" else ""
        caption += " Dotted: two samples of the data (the floor)." if y == "w2" else ""
        title = f"{label[0].upper()}{label[1:]} against the {what} of Gaussian padding"
        look = {"panels": panels, "columns": min(3, len(panels))}
        found.append(Chart(name=f"{name}-{what}", title=title, caption=caption, **look))
    return found


def _toned(paddings: Sequence[str]) -> list[tuple[int, str]]:
    """Returns each padding with a tone: its kind's, or another one if that is taken."""
    taken: list[int] = []
    for padding in paddings:
        own = TONES[spec_of(padding).kind]
        free = [own, *(tone for tone in range(MOST) if tone not in TONES.values()), *range(MOST)]
        taken.append(next((tone for tone in free if tone not in taken), own))
    return list(zip(taken, paddings, strict=True))


def words(name: str) -> str:
    """Returns the name of a set on a page, such as "Two moons"."""
    text = name.replace("_", " ").replace("gaussians", "Gaussians")
    return text[0].upper() + text[1:]


NOTHING = "–"
Cell = Callable[[pl.DataFrame], str]
OF_KAPPA = "Median over held-out points, and their 5 % and 95 % quantiles; medians over the seeds."
OF_NLL = (
    "NLL in nats: importance-weighted (exact for planar sets without padding) ± Monte Carlo "
    "error, and in brackets the bound with one sample. Zeros leave no likelihood."
)
OF_W2 = (
    "W2 to as many held-out points, exact and sliced, medians over the seeds; the last row is the "
    "floor, two samples of the data. Images have pixels from 0 to 1."
)
OF_KL = (
    "KL divergence in nats from the density of the data, if it is known, ± the error over "
    "2,000 points; medians over the seeds."
)


def tables(frame: pl.DataFrame, settings: PaddingSettings) -> list[Table]:
    """Returns the tables that have measurements."""
    plane = frame.filter(pl.col("kind").str.starts_with("plane"))
    images = frame.filter(pl.col("kind").str.starts_with("image"))
    paddings = (*settings.compared, *settings.others)
    found = [_order(plane, settings)]
    for rows, sets, names, where in (
        (plane, settings.sets, paddings, "planar sets"),
        (images, settings.image_sets, settings.image_paddings, "images"),
    ):
        found += [
            _by_padding(f"{title}, {where}", rows, sets, names, cell, caption)
            for title, cell, caption in (
                ("Condition number", _conditioning, OF_KAPPA),
                ("Likelihood", _likelihood, OF_NLL),
                ("Distance of samples", _distance, OF_W2),
            )
        ]
    closed = [name for name in settings.sets if plane.filter(set=name)["kl"].count()]
    found.append(_by_padding("Divergence, planar sets", plane, closed, paddings, _kl, OF_KL))
    return [table for table in found if table.rows]


def _order(plane: pl.DataFrame, settings: PaddingSettings) -> Table:
    trained, rows = plane.filter(kind="plane"), []
    for name in settings.sets:
        steps = claimed_steps(trained.filter(set=name), settings.compared)
        if steps and not trained.is_empty():
            rows.append([words(name), *(s.description for s in steps), ordered(steps)])
    return Table(
        title="The claimed order of condition numbers, set by set",
        columns=["set", "zero above none", "none above Gaussian", "the order"],
        rows=rows,
        caption="Seeds in which the first has the larger median condition number, and p-value of "
        "the two-sided sign test. Confirmed: both steps at 5 %; reversed: one of them is; "
        f"alike: sign tests at 5 % find the condition numbers {WITHIN} of each other.",
    )


def _by_padding(
    title: str,
    frame: pl.DataFrame,
    sets: Sequence[str],
    paddings: Sequence[str],
    cell: Cell,
    caption: str,
) -> Table:
    held = {spec_of(padding).description: frame.filter(padding=padding) for padding in paddings}
    if cell is _distance:
        held[FLOOR] = frame.filter(pl.col("padding").is_null())
    rows = [
        [name, *(cell(of_padding.filter(set=one)) for one in sets)]
        for name, of_padding in held.items()
        if sets and not of_padding.is_empty()
    ]
    return Table(title=title, columns=["padding", *map(words, sets)], rows=rows, caption=caption)


def _conditioning(frame: pl.DataFrame) -> str:
    middle, *limits = (median(frame[f"kappa_{name}"]) for name in ("median", "p05", "p95"))
    return NOTHING if middle is None else ranged(significant(middle), *map(significant, limits))


def _likelihood(frame: pl.DataFrame) -> str:
    kinds = frame["likelihood"].drop_nulls()
    if kinds.is_empty():
        return NOTHING
    if kinds[0] == "joint":
        return "none"
    weighted = fixed(median(frame["weighted_nll"]), 3)
    if kinds[0] == "exact":
        return weighted
    error = significant(median(frame["weighted_error"]), 1)
    return f"{weighted} ± {error} ({fixed(median(frame['nll']), 3)})"


def _distance(frame: pl.DataFrame) -> str:
    exact, sliced = median(frame["w2"]), median(frame["sliced_w2"])
    return NOTHING if exact is None else f"{significant(exact)}, {significant(sliced)}"


def _kl(frame: pl.DataFrame) -> str:
    middle = median(frame["kl"])
    if middle is None:
        return NOTHING
    return f"{fixed(middle, 3)} ± {significant(median(frame['kl_error']), 1)}"
