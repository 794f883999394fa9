"""How commands print: tables for people, JSON for machines, notes and progress on stderr."""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kappaflow.ranks import is_first

if TYPE_CHECKING:
    from kappaflow.finding import Finding

_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction, surrogates, other line ends
JOINT = (
    "The padding of this flow has no density: the NLL is that of each row together with its "
    "padding, which is not a likelihood of the row. Do not compare it with other flows."
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


def _is_control(sign: str) -> bool:
    return sign not in "\n\t" and unicodedata.category(sign) in _CONTROL


def print_text(text: object = "", *, file: TextIO | None = None) -> None:
    """Prints text without control characters. Every command prints with it."""
    print(printable(str(text)), file=file)


def print_note(text: str) -> None:
    """Prints a note on stderr."""
    print_text(text, file=sys.stderr)


def print_json(value: Any) -> None:  # noqa: ANN401
    """Prints a value as JSON."""
    print_text(json.dumps(value, indent=2))


def print_columns(rows: Iterable[Sequence[str]]) -> None:
    """Prints rows in aligned columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print_text("  ".join(cells).rstrip())


@contextmanager
def first_process_prints() -> Iterator[None]:
    """A context in which only the first of several ranks prints."""
    if is_first():
        yield
        return
    with redirect_stdout(None), redirect_stderr(None):
        yield


def note_unused_cuda(device: str | None) -> None:
    """Prints a note if no device is named and the machine has a CUDA device."""
    import torch

    if device is None and torch.cuda.is_available():
        print_note("runs on the CPU; --device cuda runs on the CUDA device of this machine")


def note_unfinished(run: Path) -> None:
    """Prints a note if a run is not finished."""
    from kappaflow.runs import is_unfinished_run

    if is_unfinished_run(run):
        print_note(f"{run} is not finished: this is its flow of the best epoch so far")


def print_findings(findings: "Iterable[Finding]", *, fixes: bool = False) -> None:
    """Prints findings, a line each; or with cause and fix."""
    for finding in findings:
        layer = f" in layer {finding.layer}" if finding.layer else ""
        print_text(f"{finding.severity} {finding.code}{layer}: {finding.message}")
        if fixes:
            print_text(f"  cause: {finding.cause}\n  fix:   {finding.fix}\n")


@contextmanager
def shown_step(*, visible: bool | None = None) -> Iterator[Callable[[str], None]]:
    """A context that shows the current step and its time on stderr, and clears it afterwards.

    By default it is shown on a terminal only.

    Yields:
        A function that takes the name of a step.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (console.is_terminal if visible is None else visible):
        yield lambda text: None
        return
    text_column = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), text_column, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=printable(text))
