"""What a command shows while it works, on a terminal: a word and how long it has taken."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kappaflow.cli.printable import printable


@contextmanager
def words_shown(*, visible: bool | None = None) -> Iterator[Callable[[str], None]]:
    """Shows what is done now for as long as it is entered, on stderr, and then nothing is left.

    Args:
        visible: Whether; where stderr is a terminal if None.

    Yields:
        A function that shows a few words.
    """
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
