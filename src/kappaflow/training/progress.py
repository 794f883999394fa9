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
    in_words: Callable[[Figures], str],
) -> Iterator[Show]:
    """Shows a bar for as long as it is entered.

    `in_words` is what it says of an epoch beside how many there were.

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
            bar.update(task, completed=figures["epoch"], text=in_words(figures))

        yield show


def likelihood_in_words(figures: Figures, name: str = "nll", budget: float | None = None) -> str:
    """Returns an epoch of a fit in words.

    `name` is what the loss is called, `budget` a condition number that is asked for.
    """
    measured = figures["condition_number_p95"]
    condition = "" if measured is None else f", cond {short(measured)}"
    condition += f" of {budget:g}" if budget is not None and condition else ""
    bits = figures.get("validation_bits_per_dimension")
    if bits is not None and figures["train_nll"] is not None:
        train = figures["train_nll"] * bits / figures["validation_nll"]
        return f"bits/dim {short(train)} train {short(bits)} held out{condition}"
    return (
        f"{name} {short(figures['train_nll_standardised'])} train "
        f"{short(figures['validation_nll_standardised'])} held out{condition}"
    )


def short(value: float | None) -> str:
    """Returns a figure with as many digits as a terminal needs."""
    return "not finite" if value is None else f"{value:.3g}"
