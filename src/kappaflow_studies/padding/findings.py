"""The results of the study, as sentences."""

import polars as pl

from kappaflow.report.numbers import significant
from kappaflow_studies.engine.report import Findings
from kappaflow_studies.padding.cases import PaddingSettings, spec_of
from kappaflow_studies.padding.charts import charts, tables
from kappaflow_studies.padding.comparisons import (
    Signs,
    claimed_order,
    claimed_steps,
    ordered,
    signs,
)

FEWEST = 6  # least number of seeds for a sign test that can reach 5 %
ENOUGH = 5 / 7  # share of the sets that must agree for a verdict on the order


def findings(frame: pl.DataFrame, settings: PaddingSettings) -> Findings:
    """Returns the charts, the tables and the sentences on them."""
    frame = with_every_column(frame)
    plane = frame.filter(pl.col("kind") == "plane")
    floor = frame.filter(pl.col("kind") == "plane floor")
    return Findings(
        found=[
            *_on_order(plane, settings),
            *_on_likelihood(plane, settings),
            *_on_samples(plane, floor, settings),
            *_on_images(frame, settings),
            *_on_failures(frame),
        ],
        differs=[
            "The source compares no padding, zeros and Gaussian noise by pictures and condition "
            "numbers; its networks, sets and numbers of steps are not known to us. Here the same "
            "flow is trained on the same points in the same number of steps with each padding, "
            "and each comparison is paired by seed.",
            "With padding of zeros the joint density has no bound, so that there is no likelihood "
            "to compare: such flows are judged by their samples and their conditioning alone. "
            "Here log-scales are bounded, which keeps the training finite.",
            "The condition number is that of the whole map, data and padding in standardized "
            "units; a map of more dimensions has more directions to be badly conditioned in.",
        ],
        charts=charts(frame, settings),
        tables=tables(frame, settings),
    )


COLUMNS = (
    "kappa_median", "kappa_p05", "kappa_p25", "kappa_p75", "kappa_p95", "nll", "nll_error",
    "weighted_nll", "weighted_error", "kl", "kl_error", "w2", "sliced_w2", "picture_side",
)  # fmt: skip
LISTS = ("epochs_measured", "kappa_over_training", "kappa_p95_over_training", "picture")
WORDS = ("error", "likelihood", "padding")


def with_every_column(frame: pl.DataFrame) -> pl.DataFrame:
    """Returns the raw results with all columns, filled with null if no case has a column."""
    kinds = [*((name, pl.Float64) for name in COLUMNS), *((name, pl.String) for name in WORDS)]
    kinds += [(name, pl.List(pl.Float64)) for name in LISTS]
    absent = [pl.lit(None, kind).alias(name) for name, kind in kinds if name not in frame.columns]
    return frame.with_columns(absent)


def _on_order(plane: pl.DataFrame, settings: PaddingSettings) -> list[str]:
    order = claimed_order(settings.compared)
    if order is None or plane.is_empty():
        return []
    steps = {
        name: claimed_steps(plane.filter(pl.col("set") == name), settings.compared)
        for name in settings.sets
    }
    if settings.seeds < FEWEST:
        sentences = _on_pairs(steps)
    else:
        sentences = _on_tests(steps, settings.seeds)
    medians = {
        padding: _median(plane.filter(pl.col("padding") == padding), "kappa_median")
        for padding in order
    }
    values = ", ".join(
        f"{significant(value)} ({spec_of(padding).description})"
        for padding, value in medians.items()
    )
    return [
        *sentences,
        f"Condition numbers, the median over held-out points, seeds and sets: {values}.",
    ]


def _on_tests(steps: dict[str, list[Signs]], seeds: int) -> list[str]:
    """Returns the results of the sign tests on each set, and a verdict on the claimed order."""
    count = len(steps)
    above = [sum(pair[place].verdict == 1 for pair in steps.values()) for place in (0, 1)]
    below = [sum(pair[place].verdict == -1 for pair in steps.values()) for place in (0, 1)]
    whole = [ordered(pair) for pair in steps.values()]
    confirmed, refuted = whole.count(1), whole.count(-1)
    if confirmed >= ENOUGH * count:
        verdict = "the ordering of the source is confirmed"
    elif refuted >= ENOUGH * count:
        verdict = "the ordering of the source is refuted"
    else:
        verdict = "the ordering of the source is neither confirmed nor refuted on most of them"
    return [
        f"Zero padding is worse conditioned than none on {above[0]} of {count} planar sets, and "
        f"better on {below[0]}; none is worse conditioned than Gaussian padding on {above[1]}, "
        f"and better on {below[1]} (sign tests over {seeds} seeds, 5 %).",
        f"Zero above none above Gaussian: confirmed on {confirmed} of {count} sets, refuted on "
        f"{refuted}, open on {count - confirmed - refuted}; so {verdict}.",
    ]


def _on_pairs(steps: dict[str, list[Signs]]) -> list[str]:
    """Returns the same if there are too few seeds for a test."""
    pairs = [sum(pair[place].pairs for pair in steps.values()) for place in (0, 1)]
    above = [sum(pair[place].above for pair in steps.values()) for place in (0, 1)]
    return [
        f"Zero padding is worse conditioned than none in {above[0]} of {pairs[0]} pairs of one "
        f"set and seed, none than Gaussian padding in {above[1]} of {pairs[1]}. These are too few "
        f"seeds for sign tests, which need {FEWEST} of a set: --preset full has them."
    ]


def _on_likelihood(plane: pl.DataFrame, settings: PaddingSettings) -> list[str]:
    order = claimed_order(settings.compared)
    if order is None or plane.is_empty():
        return []
    _, none, gaussian = order
    here = [
        (plane.filter(pl.col("set") == name), signs(plane.filter(pl.col("set") == name), *pair))
        for name in settings.sets
        for pair in [(gaussian, none, "weighted_nll")]
    ]
    gains = [
        _median(rows.filter(pl.col("padding") == gaussian), "weighted_nll")
        - _median(rows.filter(pl.col("padding") == none), "weighted_nll")
        for rows, _ in here
    ]
    ends = f"{significant(min(gains), 2)} to {significant(max(gains), 2)} nats"
    if settings.seeds < FEWEST:
        return [
            "By importance weights the NLL with Gaussian padding differs from that without by "
            f"{ends} in the medians of the sets, where more is worse."
        ]
    worse, better = (sum(one.verdict == sign for _, one in here) for sign in (1, -1))
    return [
        f"By importance weights Gaussian padding costs likelihood on {worse} of {len(here)} sets "
        f"and gains it on {better} (sign tests); the medians differ by {ends}, where more is "
        "worse."
    ]


def _on_samples(plane: pl.DataFrame, floor: pl.DataFrame, settings: PaddingSettings) -> list[str]:
    if plane.is_empty() or floor.is_empty():
        return []
    of_floor = floor.group_by("set").agg(pl.col("w2").median().alias("floor"))
    over = plane.join(of_floor, on="set").with_columns(pl.col("w2") / pl.col("floor"))
    values = ", ".join(
        f"{significant(_median(over.filter(pl.col('padding') == padding), 'w2'), 2)} "
        f"({spec_of(padding).description})"
        for padding in settings.compared
    )
    return [
        "Exact W2 of samples to held-out points, over that of two samples of the data themselves "
        f"(the floor), the median over seeds and sets: {values}."
    ]


def _on_images(frame: pl.DataFrame, settings: PaddingSettings) -> list[str]:
    sentences = []
    for name in settings.image_sets:
        rows = frame.filter((pl.col("kind") == "images") & (pl.col("set") == name))
        floor = frame.filter((pl.col("kind") == "image floor") & (pl.col("set") == name))
        if rows.is_empty():
            continue
        values = ", ".join(
            f"{significant(_median(one, 'kappa_median'))} and "
            f"{significant(_median(one, 'w2') / _median(floor, 'w2'), 3)} "
            f"({spec_of(padding).description})"
            for padding in settings.image_paddings
            for one in [rows.filter(pl.col("padding") == padding)]
        )
        seeds = "1 seed" if settings.image_seeds == 1 else f"{settings.image_seeds} seeds"
        sentences.append(
            f"On {name} the condition number, and W2 over its floor, come to {values}; medians "
            f"over {seeds}."
        )
    return sentences


def _on_failures(frame: pl.DataFrame) -> list[str]:
    failed = frame.filter(pl.col("error").is_not_null())
    if failed.is_empty():
        return []
    names = failed.select("set", "padding").unique(maintain_order=True).rows()
    listed = ", ".join(f"{name} with {spec_of(padding).description}" for name, padding in names)
    return [f"{len(failed)} trainings stopped because steps were not finite: {listed}."]


def _median(frame: pl.DataFrame, column: str) -> float:
    found = frame.select(pl.col(column).fill_nan(float("inf")).median()).item()
    return float("nan") if found is None else float(found)
