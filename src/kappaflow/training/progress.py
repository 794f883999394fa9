"""Progress display on a terminal: a bar, the loss and the remaining time."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

Figures = dict[str, Any]
HELD_OUT = "validation_nll_standardized"
PARTS = 1000  # resolution of a progress bar
LEVELS = "▁▂▃▄▅▆▇█"


class Show(Protocol):
    """Shows the metrics of each epoch."""

    def __call__(self, figures: Figures) -> None:
        """Shows the metrics of an epoch."""


@contextmanager
def progress_bar(
    share_done: Callable[[], float],
    *,
    visible: bool | None,
    describe: Callable[[Figures], str],
    begins: str = "",
) -> Iterator[Show]:
    """Shows a progress bar and curves of likelihood and conditioning inside the context.

    `share_done` returns the completed fraction of the training, from 0 to 1. If `visible` is None,
    the bar is shown only on a terminal. `begins` is the text before the first epoch.

    Yields:
        A function that shows an epoch; it does nothing if the bar is not visible.
    """
    console = Console(stderr=True)
    if not (console.is_terminal if visible is None else visible):
        yield lambda figures: None
        return
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    bar, history = Progress(*columns, console=console), list[Figures]()
    task = bar.add_task(
        "training", total=PARTS, completed=int(PARTS * share_done()), text=begins, epoch=1
    )
    with Live(bar, console=console, transient=True, refresh_per_second=4) as live:

        def show(figures: Figures) -> None:
            history.append(figures)
            epoch, text = figures["epoch"], describe(figures)
            completed = int(PARTS * share_done())
            bar.update(task, completed=completed, epoch=epoch, text=text)
            live.update(Group(bar, *map(Text, curves(history, console.width))))

        yield show


def curves(history: Sequence[Figures], width: int) -> list[str]:
    """Returns the curves of likelihood and conditioning as lines of text, for a terminal's width.

    There is a line for each curve with at least two numbers, and a warning if steps were skipped.
    """
    bits = "validation_bits_per_dimension" in history[-1]
    lines = [
        _curve("held out", "validation_bits_per_dimension" if bits else HELD_OUT, history, width),
        _curve("condition 95 %", "condition_number_p95", history, width, log=True),
    ]
    skipped = history[-1].get("skipped_steps")
    warning = [f"{skipped} steps were not finite and were skipped"] if skipped else []
    return [line for line in lines if line] + warning


def _curve(
    title: str, name: str, history: Sequence[Figures], width: int, *, log: bool = False
) -> str:
    values = [figures.get(name) for figures in history]
    there = [value for value in values if value is not None]
    if len(there) < 2:
        return ""
    line = sparkline(values, max(10, width - 40), log=log)
    return f"{title:<15}{short(there[0]):>10} {line} {short(there[-1])}"


@contextmanager
def steps_shown(
    title: str, steps: int, *, visible: bool | None
) -> Iterator[Callable[[str], None]]:
    """Shows a progress bar over named steps inside the context.

    Yields:
        A function that takes the name of each step at its start; it does nothing if the bar is not
        visible.
    """
    console = Console(stderr=True)
    if not (console.is_terminal if visible is None else visible):
        yield lambda text: None
        return
    columns = (TextColumn(title), MofNCompleteColumn(), BarColumn(bar_width=10))
    with Progress(
        *columns, TextColumn("{task.fields[text]}"), console=console, transient=True
    ) as bar:
        task = bar.add_task(title, total=steps, completed=-1, text="")
        yield lambda text: bar.update(task, advance=1, text=text)


@contextmanager
def rows_shown(
    title: str, rows: int, done: int, *, visible: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar over rows, with the remaining time, inside the context.

    Yields:
        A function that takes the number of rows done since the last call; it does nothing if the
        bar is not visible.
    """
    console = Console(stderr=True)
    if not (console.is_terminal if visible is None else visible):
        yield lambda more: None
        return
    columns = (TextColumn(title), BarColumn(bar_width=20), TextColumn("{task.fields[text]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(title, total=rows, completed=done, text=f"{done:,} of {rows:,} rows")

        def show(more: int) -> None:
            nonlocal done
            done += more
            bar.update(task, completed=done, text=f"{done:,} of {rows:,} rows")

        yield show


def describe_likelihood(figures: Figures, name: str = "nll", budget: float | None = None) -> str:
    """Returns the metrics of an epoch as text.

    `name` is the name of the loss, and `budget` is a bound on the condition number.
    """
    measured = figures["condition_number_p95"]
    condition = "" if measured is None else f", cond {short(measured)}"
    condition += f" of {budget:g}" if budget is not None and condition else ""
    bits = figures.get("validation_bits_per_dimension")
    if bits is not None and figures["train_nll"] is not None:
        train = figures["train_nll"] * bits / figures["validation_nll"]
        return f"bits/dim {short(train)} train {short(bits)} held out{condition}"
    return (
        f"{name} {short(figures['train_nll_standardized'])} train "
        f"{short(figures['validation_nll_standardized'])} held out{condition}"
    )


def short(value: float | None) -> str:
    """Returns a number as text with three digits, or "not finite" for None."""
    return "not finite" if value is None else f"{value:.3g}"


def sparkline(values: Sequence[float | None], width: int, *, log: bool = False) -> str:
    """Returns values as a line of blocks with eight heights; empty if no value can be shown.

    None and non-finite numbers are gaps, and on a logarithmic scale so are numbers that are not
    positive. With more values than `width`, every k-th value is shown, up to the last.

    Example:
        >>> sparkline([1.0, 2.0, None, 8.0], 10)
        '▁▂ █'
        >>> sparkline([1.0, 10.0, 100.0], 10, log=True)
        '▁▅█'
    """
    step = max(1, math.ceil(len(values) / width))
    heights = [_height(value, log=log) for value in values[::-1][::step][::-1]]
    results = [height for height in heights if height is not None]
    if not results:
        return ""
    low, span = min(results), max(results) - min(results)
    top = len(LEVELS) - 1
    return "".join(
        " " if height is None else LEVELS[round(top * (height - low) / span) if span else 0]
        for height in heights
    )


def _height(value: float | None, *, log: bool) -> float | None:
    if value is None or not math.isfinite(value) or (log and value <= 0):
        return None
    return math.log(value) if log else value
