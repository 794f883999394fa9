"""What held-out likelihoods, and their course over a training, say about a flow."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.measures.references import Comparison

DECIDED = 0.1  # nats a row: a difference known this well (two standard errors) counts as known
FEW_ROWS, UNCERTAIN = 100, 0.2  # rows, and nats of standard error of the mean of so few
LAST = 0.1  # share of the epochs whose gain shows whether a training had come to its end
STILL_GAINED, STILL_GAINED_BITS = 0.05, 0.005  # nats a row, bits per dimension of an image
P99_ROSE, MAX_ROSE = 1.0, 10.0  # nats
WORSE_CURE = "Train longer, give more rows, or take fewer and smaller layers (depth, hidden)."
RAISE = {"max_epochs": "max_epochs (--max-epochs)", "max_time_s": "max_time_s (--max-time-s)"}


def worse_than_a_reference(m: Measured) -> Iterator[Finding]:
    """KF501, KF504, KF505: the flow compared with a Gaussian and a mixture at the rows given."""
    yield from comparison_findings(m.comparisons)


def comparison_findings(
    comparisons: Sequence[Comparison],
    standard_error: float | None = None,
    rows: int = FEW_ROWS,
) -> Iterator[Finding]:
    """KF501, KF504, KF505: the flow compared with a Gaussian and a mixture on held-out rows.

    Args:
        comparisons: The Gaussian first, then the mixture; none for no comparison.
        standard_error: Of the flow's own mean NLL; None where it is not known.
        rows: How many held-out rows that mean is over.

    Yields:
        A warning for each reference that the flow is worse than by more than two standard errors
        of the paired difference, a warning where the rows are too few to tell, and a note where
        the flow is not better.
    """
    told = False
    for one in _distinct(comparisons):
        if math.isnan(one.nll):
            continue
        reach = 2 * one.standard_error
        if not math.isfinite(one.difference) or one.difference > reach:
            told = True
            yield _worse(one)
        elif one.fair and not told and one.difference > -reach:
            told = True
            yield _undecided(one) if not reach <= DECIDED else _no_better(one)
    if not told and standard_error is not None and rows < FEW_ROWS:
        if not standard_error <= UNCERTAIN:
            yield _uncertain(rows, standard_error)


def _distinct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Returns the comparisons without a mixture of one component, which is the Gaussian."""
    return [one for one in comparisons if one.kind == "Gaussian" or one.components > 1]


def _worse(one: Comparison) -> Finding:
    fitted = "" if one.fair else " fitted to the other half of them"
    amount = f"{one.difference:.2f} ± {one.standard_error:.2f} nats a row worse than"
    if not math.isfinite(one.difference):
        amount = "without a finite likelihood on some rows, and so worse than"
    return Finding(
        code="KF501" if one.kind == "Gaussian" else "KF504",
        severity="warning",
        layer=None,
        message=f"On {one.rows:,} held-out rows the flow is {amount} {one.name}{fitted}.",
        cause="Too little training, or so few training rows that they were learnt by heart.",
        cure=WORSE_CURE,
        evidence=_evidence(one),
    )


def _undecided(one: Comparison) -> Finding:
    better = "better" if one.difference < 0 else "worse"
    known = f": it is {abs(one.difference):.2f} ± {one.standard_error:.2f} nats a row {better}"
    if not math.isfinite(one.standard_error):  # one row, of which no error is known
        known = ""
    return Finding(
        code="KF505",
        severity="warning",
        layer=None,
        message=(
            f"There are too few held-out rows ({one.rows:,}) to tell whether the flow is better "
            f"than {one.name}{known}."
        ),
        cause="The difference is within two standard errors of zero.",
        cure="Give more rows, or use the simpler density.",
        evidence=_evidence(one),
    )


def _no_better(one: Comparison) -> Finding:
    return Finding(
        code="KF501" if one.kind == "Gaussian" else "KF504",
        severity="note",
        layer=None,
        message=(
            f"On {one.rows:,} held-out rows the flow is no better than {one.name}: the difference "
            f"is {one.difference:.2f} ± {one.standard_error:.2f} nats a row."
        ),
        cause="The data is as simple as that density, or the flow has not learnt more than it.",
        cure="Use the simpler density, or train longer.",
        evidence=_evidence(one),
    )


def _uncertain(rows: int, standard_error: float) -> Finding:
    return Finding(
        code="KF505",
        severity="warning",
        layer=None,
        message=(
            f"There are too few held-out rows ({rows:,}) to tell the likelihood: its standard "
            f"error is {standard_error:.2f} nats a row."
        ),
        cause="The mean of few rows depends on which rows were held out.",
        cure="Give more rows.",
        evidence={"rows": rows, "standard_error": standard_error},
    )


def _evidence(one: Comparison) -> dict[str, float | int | str | None]:
    return {
        "nll": one.nll + one.difference,
        "reference_nll": one.nll,
        "difference": one.difference,
        "standard_error": one.standard_error,
        "components": one.components,
        "rows": one.rows,
    }


def training_findings(
    history: Sequence[Mapping[str, Any]], stopped_because: str, *, of_images: bool = False
) -> Iterator[Finding]:
    """KF506, KF507: a training cut short by a limit, and tails that grew while the mean fell.

    Args:
        history: The figures of each epoch, as in metrics.jsonl.
        stopped_because: What ended the training.
        of_images: Whether the likelihood is one of images, in bits per dimension.

    Yields:
        The findings.
    """
    yield from _cut_short(history, stopped_because, of_images=of_images)
    if not of_images:
        yield from _tails_grow(history)


def _cut_short(
    history: Sequence[Mapping[str, Any]], stopped_because: str, *, of_images: bool
) -> Iterator[Finding]:
    """KF506: a limit ended a training whose last tenth still gained.

    The learning rate falls to zero towards the limit, so that the best epoch is among the last
    whatever happens; a gain of so many nats in the last tenth is more than that explains.
    """
    name = "validation_bits_per_dimension" if of_images else "validation_nll"
    values = [value for value in _column(history, name) if math.isfinite(value)]
    limit = RAISE.get(stopped_because)
    if limit is None or not values:
        return
    last = max(1, round(LAST * len(values)))
    gain = min(values[:-last], default=math.inf) - min(values)
    least, unit = (
        (STILL_GAINED_BITS, "bits per dimension") if of_images else (STILL_GAINED, "nats a row")
    )
    if not gain > least:
        return
    epochs = "1 epoch" if len(values) == 1 else f"{len(values):,} epochs"
    still = (
        ""
        if len(values) == 1
        else (f", the last {'one' if last == 1 else last} of which still gained {gain:.2g} {unit}")
    )
    yield Finding(
        code="KF506",
        severity="warning",
        layer=None,
        message=f"Training was cut short by {stopped_because} after {epochs}{still}.",
        cause="The limit came before the validation likelihood had settled.",
        cure=f"Raise {limit} and train again in a new folder.",
        evidence={"epochs": len(values), "gain": gain if math.isfinite(gain) else None},
    )


def _tails_grow(history: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """KF507: the worst validation rows became worse while the mean improved."""
    means = _column(history, "validation_nll_standardised")
    if not any(map(math.isfinite, means)):
        return
    best = min(range(len(means)), key=means.__getitem__)
    for name, words, least in (("p99", "99 % quantile", P99_ROSE), ("max", "maximum", MAX_ROSE)):
        tail = _column(history, f"validation_nll_{name}")
        start = min(range(best + 1), key=tail.__getitem__)
        low, high, fell = tail[start], tail[best], means[start] - means[best]
        if not math.isfinite(high) or high - low <= least or not fell > 0:
            continue
        yield Finding(
            code="KF507",
            severity="warning",
            layer=None,
            message=(
                f"From epoch {history[start]['epoch']} to {history[best]['epoch']} the {words} of "
                f"the validation NLL rose from {low:.2f} to {high:.2f} nats while the mean fell "
                f"by {fell:.2f}: a few rows pay for the others."
            ),
            cause="The flow gives rows in the tails less and less density, as when it overfits.",
            cure=(
                "Look at these rows; bound the log-scales (scale_bound), train for fewer epochs, "
                "or transform columns with heavy tails."
            ),
            evidence={"quantile": name, "before": low, "after": high, "mean_fell": fell},
        )
        return


def _column(history: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Returns a figure of each epoch, infinite where it was not measured or not finite."""
    values = (line.get(name) for line in history)
    return [math.inf if value is None or value - value != 0 else value for value in values]


def warning_findings(warnings: Sequence[str]) -> Iterator[Finding]:
    """KF607: what reading the data has warned of.

    Args:
        warnings: One sentence each.

    Yields:
        A finding for each.
    """
    for text in warnings:
        sentence = text.strip().rstrip(".")
        yield Finding(
            code="KF607",
            severity="warning",
            layer=None,
            message=f"{sentence[:1].upper()}{sentence[1:]}.",
            cause="The data is not what a likelihood can be trusted on as it stands.",
            cure="Look at the rows or columns named, and correct the data or leave them out.",
        )


def image_likelihood_findings(
    bits: float | None, standard_error: float | None, independent: float | None
) -> Iterator[Finding]:
    """KF502: the flow is not better than the histograms of single pixels on held-out images.

    Args:
        bits: Mean bits per dimension of held-out images; None where there are none.
        standard_error: Of the difference of the two over the images; of `bits` where that of the
            difference is not known.
        independent: The same images with each pixel on its own.

    Yields:
        The finding, where the flow is not better by more than twice the standard error.
    """
    if bits is None or independent is None or math.isnan(bits):
        return
    worse, error = bits - independent, standard_error or 0.0
    if not worse > -2 * error:
        return
    amount = f"needs {worse:.2f} bits per dimension more than"
    if worse <= 2 * error:
        amount = f"is no better ({worse:.3f} ± {error:.3f} bits per dimension) than"
    yield Finding(
        code="KF502",
        severity="warning",
        layer=None,
        message=(
            f"On held-out images the flow {amount} the histograms of single pixels, which know "
            "nothing of images."
        ),
        cause="Too little training, or so few images that they were learnt by heart.",
        cure="Train longer, give more images, or take a smaller model (steps, hidden).",
        evidence={
            "bits_per_dimension": bits,
            "independent_bits_per_dimension": independent,
            "standard_error": standard_error,
        },
    )
