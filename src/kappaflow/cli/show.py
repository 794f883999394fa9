"""How commands print: tables for people, JSON for machines, notes and progress on stderr."""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from kappaflow.ranks import is_first

_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction, surrogates, other line ends
JOINT = (
    "The padding of this flow has no density: the NLL is that of the joint density of a point "
    "and its padding, no likelihood of the point, and compares with no other number."
)


def printable(text: str) -> str:
    r"""Returns text with the control characters of terminals spelled out.

    Example:
        >>> printable("a\x1b[31mb\n")
        'a\\x1b[31mb\n'
    """
    return "".join(
        sign.encode("unicode_escape").decode() if _is_control(sign) else sign for sign in text
    )


def tell(text: object = "", *, file: TextIO | None = None) -> None:
    """Prints text without control characters. Every command prints with it."""
    print(printable(str(text)), file=file)


def say(text: str) -> None:
    """Prints a note on stderr."""
    tell(text, file=sys.stderr)


@contextmanager
def by_the_first() -> Iterator[None]:
    """A context in which only the first process of torchrun prints."""
    if is_first():
        yield
        return
    with redirect_stdout(None), redirect_stderr(None):
        yield


def say_if_unused(device: str | None) -> None:
    """Prints a note if no device is named and the machine has a CUDA device."""
    import torch

    if device is None and torch.cuda.is_available():
        say("runs on the CPU; --device cuda runs on the CUDA device of this machine")


def say_if_unfinished(run: Path) -> None:
    """Prints a note if a run is not finished."""
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
    """Prints rows in aligned columns; the first row has the names."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        tell("  ".join(f"{word:<{w}}" for word, w in zip(row, widths, strict=True)).rstrip())


def number(value: float | None, form: str) -> str:
    """Returns a formatted number; None is a number that is not finite."""
    return "not finite" if value is None else format(value, form)


def numbers(first: float | None, second: float | None, form: str) -> str:
    """Returns two numbers with a comma between them."""
    return f"{number(first, form)}, {number(second, form)}"


def measured_rows(result: Any) -> list[tuple[str, str]]:  # noqa: ANN401
    """Returns labels and values of every run: conditioning, round trips, epochs."""
    condition = result.condition_number_median, result.condition_number_p95
    trips = result.round_trip_data, result.round_trip_latent
    skipped = [("steps skipped", f"{result.skipped_steps:,}")] if result.skipped_steps else []
    budget = getattr(result, "condition_budget", None)
    limit = "" if budget is None else f" (budget {budget:g}, {result.condition_rows:,} rows)"
    return [
        ("condition number, median and 95 %", numbers(*condition, ".3g") + limit),
        ("worst layer", result.worst_layer),
        ("round trip, data and latent", numbers(*trips, ".1e")),
        *skipped,
        ("epochs", f"{result.epochs} in {result.time_s:.0f} s ({result.stopped_because})"),
    ]


def print_json(value: Any) -> None:  # noqa: ANN401
    """Prints a value as JSON."""
    tell(json.dumps(value, indent=2))


@contextmanager
def words_shown(*, visible: bool | None = None) -> Iterator[Callable[[str], None]]:
    """A context that shows the current step and its time on stderr, and clears it afterwards.

    Args:
        visible: Show it; by default on a terminal only.

    Yields:
        A function that shows the name of a step.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (console.is_terminal if visible is None else visible):
        yield lambda text: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda text: shown.update(task, description=printable(text))


def _is_control(sign: str) -> bool:
    return sign not in "\n\t" and unicodedata.category(sign) in _CONTROL
