"""Charts of the partitions: losses and conditioning against depth, and the rewritten twins."""

import polars as pl
from polars.selectors import numeric

from kappaflow.report.charts import Chart, Panel, Series
from kappaflow_studies.engine.charts import column_series, groups, panel, quantile_series
from kappaflow_studies.partition.measure import HALVES, OF_IMAGES, OF_TABLES, ONE

KINDS = tuple(dict.fromkeys((*OF_TABLES, *OF_IMAGES)))
TONES = {kind: tone for tone, kind in enumerate(KINDS)}
ALL = (0.0, 1.0)  # quantiles of a band over all seeds
COUPLINGS, CONDITION = "couplings", "condition number"
BANDED = (HALVES, "LU maps")  # kinds with a band; more bands would hide each other


def charts(parts: dict[str, pl.DataFrame]) -> list[Chart]:
    """Returns the charts of the rows of each set."""
    return [
        Chart(
            name="loss",
            title="Held-out loss against depth",
            caption="Median over seeds, and all of them as a band, with equally many parameters "
            "at each depth. For bananas the loss is the KL divergence from the known density.",
            panels=[_losses(name, common(part)) for name, part in parts.items()],
        ),
        Chart(
            name="twins",
            title="Fixed halves: trained, and rewritten from another flow",
            caption="The line is trained from the start; each point is the twin of another flow. "
            "A point below the line: fixed halves can represent it, and training missed it.",
            panels=[_reached(name, part) for name, part in parts.items()],
        ),
        Chart(
            name="conditioning",
            title="Conditioning against depth",
            caption="The whole flow, from standardized data to latent: the median over held-out "
            f"points, and of {' and '.join(BANDED)} the quantiles of 5 % and 95 % as a band. A "
            "twin is the same function and has the same.",
            panels=[_conditioning(name, common(part)) for name, part in parts.items()],
            share_y=True,
        ),
        Chart(
            name="layers",
            title="The worst conditioned layer, before and after rewriting",
            caption="Median over points of the largest condition number of a layer: the trained "
            "flow, and dashed its twin, at the depth of the flow.",
            panels=[_layers(name, with_twins(part)) for name, part in parts.items()],
            share_y=True,
        ),
    ]


def common(frame: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows at depths that each kind has."""
    return frame.filter(pl.col("kind").n_unique().over("depth") > 1)


def with_twins(frame: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows of flows that have a twin."""
    return frame.drop_nulls("twin_loss") if "twin_loss" in frame.columns else frame.clear()


def medians(frame: pl.DataFrame, by: str) -> pl.DataFrame:
    """Returns the medians of all numbers for each value of a column, ascending."""
    return frame.group_by(by).agg(numeric().exclude(by).median()).sort(by)


def unit(name: str) -> str:
    """Returns the name of the loss of a set, with its unit."""
    if name.startswith("bananas-"):
        return "KL divergence, nats"
    return "bits per dimension" if name == "digits" else "held-out NLL, nats"


def _losses(name: str, part: pl.DataFrame) -> Panel:
    series = [
        quantile_series(rows, "couplings", "loss", name=kind, tone=TONES[kind], spread=ALL)
        for kind, rows in groups(part, "kind", KINDS).items()
    ]
    return panel(name, COUPLINGS, unit(name), series, log="x")


def _reached(name: str, part: pl.DataFrame) -> Panel:
    halves, trained = part.filter(kind=HALVES), f"{HALVES}, trained"
    series = [
        quantile_series(halves, "couplings", "loss", name=trained, tone=TONES[HALVES], spread=ALL)
    ]
    for kind, rows in groups(with_twins(part), "kind", KINDS).items():
        if kind != ONE:
            middle, x, y = medians(rows, "depth"), "twin_couplings_after", "twin_loss"
            title, tone = f"twin of {kind}", TONES[kind]
            series.append(column_series(middle, x, y, name=title, tone=tone, dash="none"))
    return panel(name, COUPLINGS, unit(name), series, log="x")


def _conditioning(name: str, part: pl.DataFrame) -> Panel:
    series = []
    for kind, rows in groups(part, "kind", KINDS).items():
        band = ("condition_low", "condition_high") if kind in BANDED else (None, None)
        middle, y = medians(rows, "couplings"), "condition_middle"
        series.append(
            column_series(middle, "couplings", y, name=kind, tone=TONES[kind], band=band)
        )
    return panel(name, COUPLINGS, CONDITION, series)


def _layers(name: str, twins: pl.DataFrame) -> Panel:
    series: list[Series] = []
    for kind, rows in groups(twins, "kind", KINDS).items():
        x, look = "couplings", {"tone": TONES[kind], "spread": None}
        twin = f"{kind}, twin"
        series.append(quantile_series(rows, x, "worst_layer", name=kind, **look))
        series.append(quantile_series(rows, x, "twin_worst_layer", name=twin, dash="dash", **look))
    return panel(name, COUPLINGS, CONDITION, series)
