"""Checks of the course of a training: KF506 to KF508."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kappaflow.diagnosis.check import Symptom, check
from kappaflow.finding import Finding
from kappaflow.options import option

LAST = 0.4  # share of the epochs, the last ones, in which the gain is measured
STILL_GAINED, STILL_GAINED_BITS = 0.1, 0.01  # reported gain: nats per row, bits per dimension
P99_ROSE, MAX_ROSE = 3.0, 10.0  # nats of increase of the 99 % quantile and maximum for a report
FELL = 0.1  # share of the highest learning rate that the last step may have
LEAST_ROWS = 500  # held-out rows needed for a reliable 99 % quantile
LIMITS = ("max_epochs", "max_time_s")
History = Sequence[Mapping[str, Any]]


def training_findings(
    history: History,
    stopped_because: str,
    *,
    held_out: int | None = None,
    of_images: bool = False,
) -> Iterator[Finding]:
    """Runs the checks KF506 to KF508 on the history of a training.

    The history has the figures of each epoch, as in metrics.jsonl. `stopped_because` is such as
    "max_epochs". `held_out` is the number of held-out rows; None if unknown.

    Yields:
        The findings.
    """
    yield from cut_short(history, stopped_because, of_images=of_images)
    yield from learning_rate_stayed(history, stopped_because)
    if not of_images and (held_out is None or held_out >= LEAST_ROWS):
        yield from tails_grow(history)


@check(
    "KF506",
    "training stopped at a limit while still improving",
    subject="run",
    severity="warning",
    cause="The limit came before the validation likelihood had converged.",
    fix="Raise the limit and train again in a new folder.",
)
def cut_short(history: History, stopped_because: str, *, of_images: bool) -> Iterator[Symptom]:
    """`max_epochs` or `max_time_s` ended the training, and the last 40 % of its epochs gained more
    than 0.1 nats per row on the validation rows (0.01 bits per dimension on images). These values
    were chosen on twelve development tables, where they decide correctly on eleven whether four
    times the time gains more than 0.1 nats (`python -m benchmarks cut-short` of commit a797bcd8).
    A shorter end decides less well, because the learning rate falls to zero towards the limit.
    """
    name = "validation_bits_per_dimension" if of_images else "validation_nll"
    values = [value for value in _column(history, name) if math.isfinite(value)]
    if stopped_because not in LIMITS or not values:
        return
    last, gain = last_gain(values)
    least, unit = (
        (STILL_GAINED_BITS, "bits per dimension") if of_images else (STILL_GAINED, "nats per row")
    )
    if not gain > least:
        return
    ended = f"Training stopped at {stopped_because} after"
    message = f"{ended} {len(values):,} epochs; the last {last} still gained {gain:.2g} {unit}."
    if len(values) == 1:
        message = f"{ended} 1 epoch."
    yield Symptom(
        message,
        {"epochs": len(values), "gain": gain if math.isfinite(gain) else None},
        fix=f"Raise {option(stopped_because)} and train again in a new folder.",
    )


@check(
    "KF508",
    "training ended at a high learning rate",
    subject="run",
    severity="warning",
    cause="The limit left too few steps for the learning rate to fall, so the weights are noisy.",
    fix="Raise the limit and train again in a new folder.",
)
def learning_rate_stayed(history: History, stopped_because: str) -> Iterator[Symptom]:
    """`max_epochs` or `max_time_s` ended the training, and the learning rate of its last step was
    above a tenth of the highest. The rate falls to zero at whichever limit comes first, unless
    that leaves room for a few steps only: after a model search on a busy machine, for example, or
    with one epoch of few batches.
    """
    share = history[-1].get("learning_rate_share") if history else None
    if stopped_because not in LIMITS or share is None or share <= FELL:
        return
    yield Symptom(
        f"Training stopped at {stopped_because} with a learning rate of "
        f"{history[-1]['learning_rate']:.2g}, {100 * share:.0f} % of the highest.",
        {"epochs": len(history), "share": share},
        fix=f"Raise {option(stopped_because)} and train again in a new folder.",
    )


def last_gain(values: Sequence[float], share: float = LAST) -> tuple[int, float]:
    """Returns the number of last epochs, and by how much they lowered the best value before."""
    last = max(1, round(share * len(values)))
    return last, min(values[:-last], default=math.inf) - min(values)


@check(
    "KF507",
    "the worst validation rows got worse while the mean improved",
    subject="run",
    severity="warning",
    cause="The flow gives rows in the tails less and less density: a sign of overfitting.",
    fix="Look at these rows; bound the log-scales (scale_bound), train for fewer epochs, or "
    "transform columns with heavy tails.",
)
def tails_grow(history: History) -> Iterator[Symptom]:
    """Between its lowest value and the best epoch, the 99 % quantile of the validation NLL
    rose by more than three nats, or its maximum by more than ten, while the mean fell. The check
    needs 500 held-out rows. The report lists the test rows of lowest density.
    """
    means = _column(history, "validation_nll_standardized")
    if not any(map(math.isfinite, means)):
        return
    best = min(range(len(means)), key=means.__getitem__)
    for name, words, least in (("p99", "99 % quantile", P99_ROSE), ("max", "maximum", MAX_ROSE)):
        tail = _column(history, f"validation_nll_{name}")
        start = min(range(best + 1), key=tail.__getitem__)
        low, high, fell = tail[start], tail[best], means[start] - means[best]
        if not math.isfinite(high) or high - low <= least or not fell > 0:
            continue
        yield Symptom(
            f"From epoch {history[start]['epoch']} to {history[best]['epoch']} the {words} of the "
            f"validation NLL rose from {low:.2f} to {high:.2f} nats while the mean fell by "
            f"{fell:.2f}.",
            {"quantile": name, "before": low, "after": high, "mean_fell": fell},
        )
        return


def _column(history: History, name: str) -> list[float]:
    """Returns one figure for each epoch; infinity if it is missing or not finite."""
    values = (line.get(name) for line in history)
    return [math.inf if value is None or value - value != 0 else value for value in values]
