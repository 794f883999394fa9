"""Progress on a terminal or in a notebook: a bar, the loss and the remaining time."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
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
UPDATES_A_SECOND = 4
NOTEBOOK_WIDTH = 100  # characters


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
    the bar is shown on a terminal and in a notebook. `begins` is the text before the first epoch.

    Yields:
        A function that shows an epoch; it does nothing if the bar is not visible.
    """
    console = Console(stderr=True)
    if not _is_visible(console, visible):
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
    with _shown(bar, console) as update:

        def show(figures: Figures) -> None:
            history.append(figures)
            epoch, text = figures["epoch"], describe(figures)
            completed = int(PARTS * share_done())
            bar.update(task, completed=completed, epoch=epoch, text=text)
            update(Group(bar, *map(Text, curves(history, console.width))))

        yield show


def _is_visible(console: Console, visible: bool | None) -> bool:
    return console.is_terminal or console.is_jupyter if visible is None else visible


@contextmanager
def _shown(bar: Progress, console: Console) -> Iterator[Callable[[RenderableType], None]]:
    """Shows a bar inside the context.

    On a terminal it disappears at the end. In a notebook it is one output, which is replaced a few
    times a second and stays; this needs no widgets.

    Yields:
        A function that shows its argument in place of the bar.
    """
    if not console.is_jupyter:
        with Live(
            bar, console=console, transient=True, refresh_per_second=UPDATES_A_SECOND
        ) as live:
            yield live.update
        return
    from IPython.display import display

    last: RenderableType = bar
    output: Any = display(_as_text(last), raw=True, display_id=True)
    written = time.monotonic()

    def update(content: RenderableType) -> None:
        nonlocal last, written
        last = content
        if time.monotonic() - written >= 1 / UPDATES_A_SECOND:
            output.update(_as_text(last), raw=True)
            written = time.monotonic()

    try:
        yield update
    finally:
        output.update(_as_text(last), raw=True)


def _as_text(content: RenderableType) -> dict[str, str]:
    """Returns what a terminal would show, as an output of a notebook."""
    console = Console(
        file=io.StringIO(), width=NOTEBOOK_WIDTH, force_jupyter=False, color_system=None
    )
    with console.capture() as text:
        console.print(content)
    return {"text/plain": text.get().rstrip()}


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
    if not _is_visible(console, visible):
        yield lambda text: None
        return
    columns = (TextColumn(title), MofNCompleteColumn(), BarColumn(bar_width=10))
    bar = Progress(*columns, TextColumn("{task.fields[text]}"), console=console)
    task = bar.add_task(title, total=steps, completed=-1, text="")
    with _shown(bar, console) as update:

        def show(text: str) -> None:
            bar.update(task, advance=1, text=text)
            update(bar)

        yield show


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
    if not _is_visible(console, visible):
        yield lambda more: None
        return
    columns = (TextColumn(title), BarColumn(bar_width=20), TextColumn("{task.fields[text]}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=console)
    task = bar.add_task(title, total=rows, completed=done, text=f"{done:,} of {rows:,} rows")
    with _shown(bar, console) as update:

        def show(more: int) -> None:
            nonlocal done
            done += more
            bar.update(task, completed=done, text=f"{done:,} of {rows:,} rows")
            update(bar)

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
