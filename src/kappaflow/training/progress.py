"""Progress: a bar on a terminal or in a notebook, lines where a command writes to a file."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from kappaflow import registry
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.options import COMMAND, PYTHON
from kappaflow.summary import Facts, sparkline
from kappaflow.training.objective import Figures

HELD_OUT = "validation_nll_standardized"
PARTS = 1000  # resolution of a progress bar
LINES_EVERY_S = 10.0
FORMAT = "{desc} {bar:10}{postfix}, {remaining} left"


class Bar(Protocol):
    """Moves a bar."""

    def __call__(self, done: float, text: str, title: str | None = None) -> None:
        """Shows the finished share and a text, and another title if one is passed."""


@contextmanager
def bar_shown(
    title: str, text: str = "", *, done: float = 0.0, visible: bool | None = None
) -> Iterator[Bar]:
    """Yields a function that moves a bar, shown by default on a terminal and in a notebook.

    A command that writes elsewhere prints a line every ten seconds by default.
    """
    if visible is None:
        visible = sys.stderr.isatty() or "ipykernel" in sys.modules
        if not visible and COMMAND.get() != PYTHON:
            yield _lines(title)
            return
    if not visible:
        yield lambda done, text, title=None: None
        return
    from tqdm import tqdm  # starts a thread

    begun = int(PARTS * done)
    with tqdm(
        total=PARTS, initial=begun, desc=title, bar_format=FORMAT, miniters=0, leave=False
    ) as bar:
        bar.set_postfix_str(text)

        def show(done: float, text: str, title: str | None = None) -> None:
            bar.set_description_str(title or bar.desc, refresh=False)
            bar.set_postfix_str(text, refresh=False)
            bar.update(int(PARTS * done) - bar.n)  # drawn a few times a second
            if done >= 1:
                bar.refresh()

        yield show


def _lines(title: str) -> Bar:
    """Returns a function that prints a line if the last one is old enough."""
    last, named = time.monotonic(), title

    def show(done: float, text: str, title: str | None = None) -> None:
        nonlocal last, named
        named = title or named
        if time.monotonic() - last >= LINES_EVERY_S:
            last = time.monotonic()
            print(f"{named}, {text}, {done * 100:.0f} % done", file=sys.stderr, flush=True)

    return show


@contextmanager
def epochs_shown(
    share_done: Callable[[], float],
    *,
    visible: bool | None,
    describe: Callable[[Figures], str],
    begins: str = "",
) -> Iterator[Callable[[Figures], None]]:
    """Yields a function that shows an epoch; the text of the bar is `begins` before the first."""
    with bar_shown("epoch 1", begins, done=share_done(), visible=visible) as bar:
        yield lambda figures: bar(share_done(), describe(figures), f"epoch {figures['epoch']}")


@contextmanager
def rows_shown(
    title: str, rows: int, *, visible: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Yields a function that moves a bar by a number of rows."""
    done = 0
    with bar_shown(title, visible=visible) as bar:

        def show(more: int) -> None:
            nonlocal done
            done += more
            bar(done / rows, f"{done:,} of {rows:,} rows")

        yield show


def curve_facts(history: Sequence[Figures]) -> Facts:
    """Returns the curves of likelihood and conditioning: name, first value, line, last value."""
    bits = "validation_bits_per_dimension" in history[-1]
    facts = [
        ("held out", curve("validation_bits_per_dimension" if bits else HELD_OUT, history)),
        ("condition 95 %", curve("condition_number_p95", history, log=True)),
    ]
    return [(name, text) for name, text in facts if text]


def curve(name: str, history: Sequence[Figures], *, log: bool = False) -> str:
    """Returns the first value of a figure, a sparkline, and its last value; empty without two."""
    values = [figures.get(name) for figures in history]
    numbers = [value for value in values if value is not None]
    if len(numbers) < 2:
        return ""
    return f"{short(numbers[0])} {sparkline(values, 40, log=log)} {short(numbers[-1])}"


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
