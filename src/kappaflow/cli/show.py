"""How commands print: tables for people, JSON for machines, remarks on stderr."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from kappaflow.cli.printable import tell
from kappaflow.ranks import is_first

JOINT = (
    "The padding of this flow has no density: the NLL is that of the joint density of a point "
    "and its padding, no likelihood of the point, and compares with no other number."
)


def say(text: str) -> None:
    """Prints a remark on stderr, where it is in nobody's way."""
    tell(text, file=sys.stderr)


@contextmanager
def by_the_first() -> Iterator[None]:
    """A context in which only the first of the processes that torchrun started prints."""
    if is_first():
        yield
        return
    with redirect_stdout(None), redirect_stderr(None):
        yield


def say_if_unfinished(run: Path) -> None:
    """Remarks that a run is not finished, so that nobody takes its flow for the final one."""
    from kappaflow.runs import is_unfinished_run

    if is_unfinished_run(run):
        say(f"{run} is not finished: this is its flow of the best epoch so far")


def table(rows: Iterable[tuple[str, str]]) -> None:
    """Prints labels and values in two columns."""
    rows = list(rows)
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        tell(f"{label:<{width}}  {value}")


def columns(rows: Iterable[Sequence[str]]) -> None:
    """Prints rows in columns as wide as their widest word, the first row being the names."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        tell("  ".join(f"{word:<{w}}" for word, w in zip(row, widths, strict=True)).rstrip())


def number(value: float | None, form: str) -> str:
    """Returns a number in the given format; None stands for one that is not finite."""
    return "not finite" if value is None else format(value, form)


def numbers(first: float | None, second: float | None, form: str) -> str:
    """Returns two numbers with a comma between them."""
    return f"{number(first, form)}, {number(second, form)}"


def measured_rows(result: Any) -> list[tuple[str, str]]:  # noqa: ANN401
    """Returns labels and values of what every run says: conditioning, round trips, epochs."""
    condition = result.condition_number_median, result.condition_number_p95
    trips = result.round_trip_data, result.round_trip_latent
    skipped = [("steps skipped", f"{result.skipped_steps:,}")] if result.skipped_steps else []
    asked = getattr(result, "condition_budget", None)
    within = "" if asked is None else f" ({asked:g} asked for, {result.condition_rows:,} rows)"
    return [
        ("condition number, median and 95 %", numbers(*condition, ".3g") + within),
        ("worst layer", result.worst_layer),
        ("round trip, data and latent", numbers(*trips, ".1e")),
        *skipped,
        ("epochs", f"{result.epochs} in {result.time_s:.0f} s ({result.stopped_because})"),
    ]


def print_json(value: Any) -> None:  # noqa: ANN401
    """Prints a value as JSON."""
    tell(json.dumps(value, indent=2))
