"""Progress on a terminal or in a notebook: a bar, the loss and the remaining time."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
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


class Bar(Protocol):
    """Moves a bar."""

    def __call__(
        self,
        done: float,
        text: str,
        title: str | None = None,
        below: Callable[[int], Sequence[str]] = ...,
    ) -> None:
        """Shows the finished share, a text, and lines below that depend on the console's width."""


@contextmanager
def bar_shown(
    title: str, text: str = "", *, done: float = 0.0, visible: bool | None = None
) -> Iterator[Bar]:
    """Yields a function that moves a bar, shown by default on a terminal and in a notebook."""
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter if visible is None else visible):
        yield lambda done, text, title=None, below=_nothing: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console)
    task = bar.add_task(title, total=PARTS, completed=int(PARTS * done), text=text)
    with _shown(bar, console) as update:

        def show(
            done: float,
            text: str,
            title: str | None = None,
            below: Callable[[int], Sequence[str]] = _nothing,
        ) -> None:
            bar.update(task, completed=int(PARTS * done), text=text, description=title)
            update(Group(bar, *map(Text, below(console.width))))

        yield show


def _nothing(width: int) -> Sequence[str]:  # noqa: ARG001
    return ()


@contextmanager
def epochs_shown(
    share_done: Callable[[], float],
    *,
    visible: bool | None,
    describe: Callable[[Figures], str],
    begins: str = "",
) -> Iterator[Callable[[Figures], None]]:
    """Yields a function that shows an epoch: a bar, and curves below; `begins` comes first."""
    history = list[Figures]()
    with bar_shown("epoch 1", begins, done=share_done(), visible=visible) as bar:

        def show(figures: Figures) -> None:
            history.append(figures)
            title, below = f"epoch {figures['epoch']}", partial(curves, history)
            bar(share_done(), describe(figures), title, below)

        yield show


@contextmanager
def rows_shown(
    title: str, rows: int, done: int = 0, *, visible: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Yields a function that moves a bar by a number of rows."""
    share = rows and done / rows
    with bar_shown(title, f"{done:,} of {rows:,} rows", done=share, visible=visible) as bar:

        def show(more: int) -> None:
            nonlocal done
            done += more
            bar(done / rows, f"{done:,} of {rows:,} rows")

        yield show


@contextmanager
def _shown(bar: Progress, console: Console) -> Iterator[Callable[[RenderableType], None]]:
    """Yields a function that shows its argument instead of a bar; in a notebook it stays."""
    if not console.is_jupyter:
        with Live(
            bar, console=console, transient=True, refresh_per_second=UPDATES_A_SECOND
        ) as live:
            yield live.update
        return
    from IPython.display import display

    last: RenderableType = bar
    # One output that is replaced a few times a second; this needs no widgets.
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
    """Returns a line for each curve with at least two numbers, and one on skipped steps."""
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
    numbers = [value for value in values if value is not None]
    if len(numbers) < 2:
        return ""
    return f"{short(numbers[0])} {sparkline(values, width, log=log)} {short(numbers[-1])}"


def describe_flow(flow: Flow) -> str:
    """Returns the recipe of a flow, or its class, with its size."""
    try:
        name = registry.describe(flow)["name"]
    except ArgumentError:  # not made by a registered function
        name = type(flow).__name__
    shape = " x ".join(map(str, flow.event_shape))
    return f"{name}, {shape} features, {sum(p.numel() for p in flow.parameters()):,} parameters"


def describe_likelihood(figures: Figures, name: str = "nll", budget: float | None = None) -> str:
    """Returns the metrics of an epoch, with the name of the loss and a condition budget."""
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
