"""What a training shows while it runs, on a terminal: a bar, the loss and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Figures = dict[str, Any]


class Show(Protocol):
    """Is told each line of metrics as it is made."""

    def __call__(self, figures: Figures) -> None:
        """Shows an epoch."""


@contextmanager
def progress_bar(
    epochs: int,
    done: int,
    *,
    visible: bool | None,
    name: str = "nll",
    budget: float | None = None,
) -> Iterator[Show]:
    """Shows a bar for as long as it is entered.

    `name` is what the loss is called, `budget` a condition number that is asked for.

    Yields:
        A function that shows an epoch; it does nothing where there is no terminal.
    """
    console = Console(stderr=True)
    if not (console.is_terminal if visible is None else visible):
        yield lambda figures: None
        return
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=epochs, completed=done, text="")

        def show(figures: Figures) -> None:
            bar.update(task, completed=figures["epoch"], text=_in_words(figures, name, budget))

        yield show


@contextmanager
def steps_shown(
    title: str, steps: int, *, visible: bool | None
) -> Iterator[Callable[[str], None]]:
    """Shows a bar over steps that each have a name, for as long as it is entered.

    Yields:
        A function that is told the name of a step as it begins; it does nothing where there is no
        terminal.
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
    """Shows a bar over rows for as long as it is entered, and how long the others will take.

    Yields:
        A function that is told how many rows more are done; it does nothing where there is no
        terminal.
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


def _in_words(figures: Figures, name: str = "nll", budget: float | None = None) -> str:
    measured = figures["condition_number_p95"]
    condition = "" if measured is None else f", cond {_short(measured)}"
    condition += f" of {budget:g}" if budget is not None and condition else ""
    bits = figures.get("validation_bits_per_dimension")
    if bits is not None and figures["train_nll"] is not None:
        train = figures["train_nll"] * bits / figures["validation_nll"]
        return f"bits/dim {_short(train)} train {_short(bits)} held out{condition}"
    return (
        f"{name} {_short(figures['train_nll_standardised'])} train "
        f"{_short(figures['validation_nll_standardised'])} held out{condition}"
    )


def _short(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"
