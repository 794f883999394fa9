"""Progress display on a terminal: a bar, the loss and the remaining time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from kappaflow import registry
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.summary import Facts, sparkline

Figures = dict[str, Any]
HELD_OUT = "validation_nll_standardized"
PARTS = 1000  # resolution of a progress bar


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
    lines = []
    for name, curve in curve_facts(history, max(10, width - 40)):
        first, _, rest = curve.partition(" ")
        lines.append(f"{name:<15}{first:>10} {rest}")
    skipped = history[-1].get("skipped_steps")
    return [*lines, f"{skipped} steps were not finite and were skipped"] if skipped else lines


def curve_facts(history: Sequence[Figures], width: int = 40) -> Facts:
    """Returns the curves of likelihood and conditioning: name, first value, line, last value."""
    bits = "validation_bits_per_dimension" in history[-1]
    facts = [
        ("held out", curve("validation_bits_per_dimension" if bits else HELD_OUT, history, width)),
        ("condition 95 %", curve("condition_number_p95", history, width, log=True)),
    ]
    return [(name, text) for name, text in facts if text]


def curve(name: str, history: Sequence[Figures], width: int = 40, *, log: bool = False) -> str:
    """Returns the first value of a figure, a sparkline, and its last value; empty without two."""
    values = [figures.get(name) for figures in history]
    there = [value for value in values if value is not None]
    if len(there) < 2:
        return ""
    return f"{short(there[0])} {sparkline(values, width, log=log)} {short(there[-1])}"


def describe_flow(flow: Flow) -> str:
    """Returns the recipe of a flow, or its class, with its size."""
    try:
        name = registry.describe(flow)["name"]
    except ArgumentError:  # not made by a registered function
        name = type(flow).__name__
    shape = " x ".join(map(str, flow.event_shape))
    return f"{name}, {shape} features, {sum(p.numel() for p in flow.parameters()):,} parameters"


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
