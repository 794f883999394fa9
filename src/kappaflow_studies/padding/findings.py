"""The results of the study, as sentences."""

import math
import statistics

import polars as pl

from kappaflow.report.numbers import count, significant
from kappaflow_studies.engine.charts import ends, filled, median
from kappaflow_studies.engine.report import StudyFindings
from kappaflow_studies.padding.cases import PaddingSettings, spec_of
from kappaflow_studies.padding.charts import charts, tables
from kappaflow_studies.padding.comparisons import (
    LEVEL,
    NEAR,
    WITHIN,
    SignTest,
    claimed_order,
    claimed_steps,
    ordered,
    sign_test,
)
from kappaflow_studies.padding.measure import FLAT

MIN_SEEDS = 6  # least number of seeds for a sign test that can reach 5 %
ENOUGH_SETS = 5 / 7  # share of the sets that must agree for a verdict on the order


def findings(frame: pl.DataFrame, settings: PaddingSettings) -> StudyFindings:
    """Returns the charts, the tables and the sentences on them."""
    frame = filled(frame, COLUMNS)
    plane, floor = frame.filter(kind="plane"), frame.filter(kind="plane floor")
    order = None if plane.is_empty() else claimed_order(settings.compared)
    on_order = []
    if order is not None:
        on_order = [*_on_order(plane, settings, order), _on_likelihood(plane, settings, order)]
    return StudyFindings(
        found=[
            *on_order,
            *on_draws(plane, settings),
            *_on_samples(plane, floor, settings),
            *_on_images(frame, settings),
            *_on_failures(frame),
        ],
        differs=[
            "The source's networks and sets are not known to us. Here every padding has the same "
            "flow, points and steps, paired by seed. Bounded log-scales keep zeros finite.",
            "The condition number is that of the whole map: more dimensions have more directions "
            "to be badly conditioned in.",
        ],
        charts=charts(frame, settings),
        tables=tables(frame, settings),
    )


COLUMNS = {
    pl.Float64: (
        "kappa_median", "kappa_p05", "kappa_p25", "kappa_p75", "kappa_p95", "nll", "nll_error",
        "weighted_nll", "weighted_error", "kl", "kl_error", "w2", "best_epoch",
        "first_weighted_nll", "weighted_change", "weighted_draws",
    ),
    pl.Boolean: ("weighted_flat",),
    pl.String: ("error", "likelihood", "padding"),
    pl.List(pl.Float64): (
        "epochs_measured", "kappa_over_training", "kappa_p95_over_training", "picture",
    ),
}  # fmt: skip


def _on_order(plane: pl.DataFrame, settings: PaddingSettings, order: list[str]) -> list[str]:
    steps = [claimed_steps(plane.filter(set=name), settings.compared) for name in settings.sets]
    tests = _on_pairs(steps) if settings.seeds < MIN_SEEDS else _on_tests(steps, settings.seeds)
    kappas = {padding: plane.filter(padding=padding)["kappa_median"] for padding in order}
    return [*tests, f"Median condition numbers: {_listed(kappas)}."]


def _listed(values: dict[str, pl.Series], digits: int = 3) -> str:
    medians = {padding: median(each) for padding, each in values.items()}
    return ", ".join(
        f"{significant(value, digits)} ({spec_of(padding).description})"
        for padding, value in medians.items()
    )


def _on_tests(steps: list[list[SignTest]], seeds: int) -> list[str]:
    """Returns a verdict on the claimed order, and the results of the sign tests on each set."""
    sets = len(steps)
    above, below = (
        [sum(pair[step].verdict == sign for pair in steps) for step in (0, 1)] for sign in (1, -1)
    )
    orders = [ordered(pair) for pair in steps]
    confirmed, reversed_, alike = (
        orders.count(word) for word in ("confirmed", "reversed", "alike")
    )
    verdict = "not confirmed"
    if confirmed >= ENOUGH_SETS * sets:
        verdict = "confirmed"
    elif reversed_ >= ENOUGH_SETS * sets:
        verdict = "reversed"
    near = sum(pair[1].near for pair in steps)
    tests = sum(map(len, steps))
    strict = [ordered(pair, LEVEL / tests) for pair in steps]
    changed = sum(a != b for a, b in zip(orders, strict, strict=True))
    return [
        f"The source's ordering is {verdict}: zeros have a larger condition number than no "
        f"padding, and this a larger one than Gaussian padding, on {confirmed} of {sets} sets. It "
        f"is reversed on {reversed_} and open on {sets - confirmed - reversed_ - alike}. On "
        f"{alike} the median ratio differs from one by less than {100 * (NEAR - 1):.0f} %, a "
        "margin of ours.",
        f"Zeros are worse conditioned than no padding on {above[0]} of {sets} planar sets, and "
        f"better on {below[0]}; no padding is worse than Gaussian padding on {above[1]}, better "
        f"on {below[1]}, and {WITHIN} of it on {near} (sign tests over {seeds} seeds, 5 %). "
        f"At the Bonferroni level of these {tests} tests, {significant(LEVEL / tests, 2)}, the "
        f"order changes on {count(changed, 'set')}.",
    ]


def _on_pairs(steps: list[list[SignTest]]) -> list[str]:
    pairs = [sum(pair[step].pairs for pair in steps) for step in (0, 1)]
    above = [sum(pair[step].above for pair in steps) for step in (0, 1)]
    return [
        f"Zeros are worse conditioned than no padding in {above[0]} of {pairs[0]} pairs of one "
        f"set and seed, no padding than Gaussian padding in {above[1]} of {pairs[1]}. These are "
        f"too few seeds for sign tests, which need {MIN_SEEDS} of a set: --preset full has them."
    ]


def _on_likelihood(plane: pl.DataFrame, settings: PaddingSettings, order: list[str]) -> str:
    _, none, gaussian = order
    sets = [plane.filter(set=name) for name in settings.sets]
    gains = []
    for rows in sets:
        of_pair = (median(rows.filter(padding=name)["weighted_nll"]) for name in (gaussian, none))
        padded, plain = (float("nan") if value is None else value for value in of_pair)
        gains.append(padded - plain)
    differ = f"the medians differ by {ends(gains, 2)} nats, where more is worse."
    if settings.seeds < MIN_SEEDS:
        return f"Importance-weighted NLL with Gaussian padding and without: {differ}"
    tests = [sign_test(rows, gaussian, none, "weighted_nll") for rows in sets]
    verdicts = [test.verdict for test in tests]
    p_values = ", ".join(f"{test.p_value:.1g}" for test in tests)
    return (
        f"The importance-weighted NLL with Gaussian padding is larger than the NLL without on "
        f"{verdicts.count(1)} of {len(sets)} sets and smaller on {verdicts.count(-1)} (sign "
        f"tests, p = {p_values}); {differ} With padding it is an upper bound, without it is "
        "exact, so the comparison is biased against padding."
    )


def on_draws(plane: pl.DataFrame, settings: PaddingSettings) -> list[str]:
    """Returns a sentence on how far the importance-weighted NLLs are from flat in the draws."""
    rows = plane.filter(likelihood="bound")
    if rows.is_empty():
        return []
    grown = rows.filter(pl.col("weighted_change").is_not_null())
    if grown.is_empty():
        return [
            f"The importance-weighted NLLs are those of {settings.draws} draws. The number was "
            "not increased until they were flat."
        ]
    reached = grown["weighted_draws"].to_list()
    changes = (grown["weighted_nll"] - grown["first_weighted_nll"]).to_list()
    return [
        f"Draws of the padding were doubled, from {settings.draws} to at most "
        f"{settings.max_draws:,}, until a doubling lowered the mean importance-weighted NLL by "
        f"less than {FLAT:g} nats or its paired standard error. This was so in "
        f"{int(grown['weighted_flat'].sum())} of {count(len(grown), 'flow')}, at "
        f"{min(reached):,.0f} to {max(reached):,.0f} draws. The last doubling lowered the mean by "
        f"at most {significant(max(grown['weighted_change']), 2)} nats, and all doublings changed "
        f"it by {ends(changes, 2)}."
    ]


def _on_samples(plane: pl.DataFrame, floor: pl.DataFrame, settings: PaddingSettings) -> list[str]:
    if plane.is_empty() or floor.is_empty():
        return []
    of_floor = floor.group_by("set").agg(floor=pl.col("w2").median())
    over_floor = plane.join(of_floor, on="set").with_columns(pl.col("w2") / pl.col("floor"))
    ratios = {padding: over_floor.filter(padding=padding)["w2"] for padding in settings.compared}
    return [f"Exact W2 of samples to the data, over its floor: {_listed(ratios, 2)}; medians."]


def _on_images(frame: pl.DataFrame, settings: PaddingSettings) -> list[str]:
    sentences = []
    each_set = zip(settings.image_sets, settings.image_sizes, settings.image_epochs, strict=True)
    for name, size, epochs in each_set:
        rows, floor = (frame.filter(set=name, kind=kind) for kind in ("images", "image floor"))
        if rows.is_empty():
            continue
        floor_w2, values = median(floor["w2"]) or float("nan"), []
        for padding in settings.image_paddings:
            flows = rows.filter(padding=padding)
            kappa, w2 = (median(flows[column]) for column in ("kappa_median", "w2"))
            ratio = significant((float("nan") if w2 is None else w2) / floor_w2)
            values.append(f"{significant(kappa)} and {ratio} ({spec_of(padding).description})")
        sentences.append(
            f"On {name} of {size} x {size} pixels, the condition number and W2 over its floor: "
            f"{', '.join(values)}; medians over {count(settings.image_seeds, 'seed')}."
            f"{on_convergence(rows, epochs)}"
        )
    return sentences


def on_convergence(rows: pl.DataFrame, epochs: int) -> str:
    """Returns sentences on whether the trainings were long enough; empty without trainings."""
    best = rows.filter(pl.col("best_epoch").is_not_null())
    if best.is_empty():
        return ""
    last = best.filter(best_epoch=epochs)
    early = sorted(best.filter(pl.col("best_epoch") < epochs)["best_epoch"])
    if not early:
        text = f"The validation NLL fell to the end of {count(epochs, 'epoch')}"
    else:
        ends = " to ".join(dict.fromkeys(f"{epoch:.0f}" for epoch in (early[0], early[-1])))
        text = f"The validation NLL was lowest after {ends} of {epochs} epochs"
        names = last["padding"].unique(maintain_order=True)
        to_the_end = ", ".join(spec_of(name).description for name in names)
        if to_the_end:
            text += f"; in {count(len(last), 'training')} ({to_the_end}) it fell to the end"
    return f" {text}.{_on_last_quarter(best, epochs)}"


def _on_last_quarter(rows: pl.DataFrame, epochs: int) -> str:
    """Returns a sentence on the change of the condition number; empty if it is not known."""
    changes = []
    curves = rows.select("epochs_measured", "kappa_over_training").iter_rows()
    for measured_at, kappas in curves:
        late = [k for epoch, k in zip(measured_at, kappas, strict=True) if epoch >= 0.75 * epochs]
        if len(late) > 1 and all(map(math.isfinite, late)):
            changes.append(abs(math.log(late[-1] / late[0])))
    if not changes:
        return ""
    factor = significant(math.exp(statistics.median(changes)))
    return (
        " In the last quarter of the training the condition number changed by a factor of "
        f"{factor} (median)."
    )


def _on_failures(frame: pl.DataFrame) -> list[str]:
    failed = frame.filter(pl.col("error").is_not_null())
    if failed.is_empty():
        return []
    names = failed.select("set", "padding").unique(maintain_order=True).rows()
    listed = ", ".join(f"{name} with {spec_of(padding).description}" for name, padding in names)
    return [f"{len(failed)} trainings stopped because steps were not finite: {listed}."]
