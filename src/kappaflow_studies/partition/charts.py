"""Charts of the partitions: losses and conditioning against depth, and the rewritten twins."""

import polars as pl
from polars.selectors import numeric

from kappaflow.report.charts import Chart, Panel, Series
from kappaflow.report.numbers import fixed
from kappaflow_studies.engine.report import quantile_series
from kappaflow_studies.partition.measure import HALVES, OF_IMAGES, OF_TABLES, ONE

KINDS = tuple(dict.fromkeys((*OF_TABLES, *OF_IMAGES)))
TONES = {kind: tone for tone, kind in enumerate(KINDS)}
ALL = (0.0, 1.0)  # quantiles of a band over all seeds
DECIMALS = 3
CONDITION = "condition number"
BANDED = (HALVES, "LU maps")  # kinds with a band; more bands would hide each other


def charts(frame: pl.DataFrame) -> list[Chart]:
    """Returns the charts of all rows."""
    sets = frame["data"].unique(maintain_order=True).to_list()
    parts = {name: frame.filter(pl.col("data") == name) for name in sorted(sets)}
    twins = {name: with_twins(part) for name, part in parts.items()}
    return [
        Chart(
            name="loss",
            title="Held-out loss against depth",
            caption=(
                "Median over seeds, all of them as a band. At one depth all flows have equally "
                "many parameters, those of the maps counted. Bananas are turned at random, so "
                "that no feature is special, and their density is known: the loss is the KL "
                "divergence of the flow from it."
            ),
            panels=[_losses(name, common(part)) for name, part in parts.items()],
        ),
        Chart(
            name="twins",
            title="Fixed halves: trained, and reached through another flow",
            caption=(
                "The line is trained from the start. Each point is a flow of the same fixed "
                "halves too, the rewritten twin of a trained flow with other partitions or maps. "
                "A point below the line is what fixed halves can represent at that depth, and "
                "training them did not find."
            ),
            panels=[_reached(name, parts[name], twins[name]) for name in parts],
        ),
        Chart(
            name="conditioning",
            title="Conditioning against depth",
            caption=(
                "Of the whole flow, from standardized data to latent: the median over held-out "
                f"points, and of {' and '.join(BANDED)} the quantiles of 5 % and 95 % as a band; "
                "those of all stand in a table. A twin is the same function and has the same."
            ),
            panels=[_conditioning(name, common(part)) for name, part in parts.items()],
            share_y=True,
        ),
        Chart(
            name="layers",
            title="The worst conditioned layer, before and after rewriting",
            caption=(
                "The median over points of the largest condition number of a layer: of the "
                "trained flow, and dashed of its twin, drawn at the depth of the flow."
            ),
            panels=[_layers(name, part) for name, part in twins.items()],
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


def describe_value(name: str, value: float) -> str:
    """Returns a loss of a set as text."""
    quantity, _, measured_in = unit(name).rpartition(", ")
    number = fixed(value, DECIMALS)
    return f"a {quantity} of {number} {measured_in}" if quantity else f"{number} {measured_in}"


def _losses(name: str, part: pl.DataFrame) -> Panel:
    series = [
        quantile_series(of_kind, "couplings", "loss", name=kind, tone=TONES[kind], spread=ALL)
        for kind, of_kind in _by_kind(part)
    ]
    return Panel(title=name, x="couplings", y=unit(name), x_log=True, series=series)


def _reached(name: str, part: pl.DataFrame, twins: pl.DataFrame) -> Panel:
    halves = part.filter(pl.col("kind") == HALVES)
    series = [
        quantile_series(
            halves, "couplings", "loss", name=f"{HALVES}, trained", tone=TONES[HALVES], spread=ALL
        )
    ]
    for kind, of_kind in _by_kind(twins.filter(pl.col("kind") != ONE)):
        middle = medians(of_kind, "depth")
        series.append(
            Series(
                name=f"twin of {kind}",
                x=middle["twin_couplings_after"].to_list(),
                y=middle["twin_loss"].to_list(),
                tone=TONES[kind],
                dash="none",
            )
        )
    return Panel(title=name, x="couplings", y=unit(name), x_log=True, series=series)


def _conditioning(name: str, part: pl.DataFrame) -> Panel:
    series = []
    for kind, of_kind in _by_kind(part):
        middle = medians(of_kind, "couplings")
        low, high = (middle[f"condition_{end}"].to_list() for end in ("low", "high"))
        series.append(
            Series(
                name=kind,
                x=middle["couplings"].to_list(),
                y=middle["condition_middle"].to_list(),
                low=low if kind in BANDED else None,
                high=high if kind in BANDED else None,
                tone=TONES[kind],
            )
        )
    return Panel(title=name, x="couplings", y=CONDITION, x_log=True, y_log=True, series=series)


def _layers(name: str, twins: pl.DataFrame) -> Panel:
    series = []
    for kind, of_kind in _by_kind(twins):
        look = {"tone": TONES[kind], "spread": None}
        series += [
            quantile_series(of_kind, "couplings", "worst_layer", name=kind, **look),
            quantile_series(
                of_kind,
                "couplings",
                "twin_worst_layer",
                name=f"{kind}, twin",
                dash="dash",
                **look,
            ),
        ]
    return Panel(title=name, x="couplings", y=CONDITION, x_log=True, y_log=True, series=series)


def _by_kind(part: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Returns the existing kinds with their rows, in order."""
    found = [(kind, part.filter(pl.col("kind") == kind)) for kind in KINDS]
    return [(kind, rows) for kind, rows in found if not rows.is_empty()]
