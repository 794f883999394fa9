"""`SearchBudget`: how long a search may take, and where it reports its progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

OVERHEAD = 2e5  # operations that take as long as the calls of numpy for one small product
POLISHING = 0.5  # share of a limit that is added for the polishing of what a search has found


class OutOfBudget(Exception):
    """The search has used up its time or its operations."""


class SearchBudget:
    """Limits a search by wall time, or by floating-point operations, which depend on no clock."""

    def __init__(
        self,
        *,
        max_time_s: float = float("inf"),
        operations: float = float("inf"),
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.progress, self.is_over = progress, False
        # The limits of the search itself; the rest is for polishing.
        self._seconds = max_time_s / (1 + POLISHING)
        self._operations = operations / (1 + POLISHING)
        self._spent, self._since = 0.0, time.monotonic()

    @contextmanager
    def active(self) -> Iterator[None]:
        """A context in which `spend` and `report` use this budget."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def spend(self, operations: float) -> None:
        """Counts operations; raises OutOfBudget at the limit, and again at that of polishing."""
        self._spent += operations + OVERHEAD
        more = 1 + POLISHING * self.is_over
        late = time.monotonic() - self._since > more * self._seconds
        if late or self._spent > more * self._operations:
            self.is_over = True
            raise OutOfBudget


_current: ContextVar[SearchBudget | None] = ContextVar("budget", default=None)


def spend(operations: float) -> None:
    """Counts operations; raises OutOfBudget once the limit is reached, and again for polishing."""
    budget = _current.get()
    if budget is not None:
        budget.spend(operations)


def is_over() -> bool:
    """Returns whether the budget of the search is used up, so that only polishing is left."""
    budget = _current.get()
    return budget is not None and budget.is_over


def report(text: str) -> None:
    """Reports a step of the search."""
    budget = _current.get()
    if budget is not None:
        budget.progress(text)
