"""Buffers of a run of couplings on a chunk of rows, kept from one training step to the next.

Memory that is allocated anew at each step costs a fifth of it, in page faults. A buffer is checked
out for as long as it holds something, so that two forward passes never share one. What lies idle
is given up after some seconds, and buffers of other sizes as soon as a new size is wanted: of each
kind two sizes are kept, that of most batches and that of the last one of an epoch.
"""

import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")

IDLE_S = 10.0
MOST_SIZES = 2


class Pool:
    """Objects that are expensive to make, by kind and size."""

    def __init__(self) -> None:
        # Not a plain lock: garbage may be collected under it, and a pass gives its buffers back.
        self._lock = threading.RLock()
        self._free: dict[Hashable, OrderedDict[int, list[object]]] = defaultdict(OrderedDict)
        self._used = False
        self._sweeper: threading.Timer | None = None

    def take(self, kind: Hashable, size: int, make: Callable[[], T]) -> T:
        """Returns an object of a kind and a size that lies idle, or a new one."""
        with self._lock:
            self._used = True
            free = self._free[kind]
            if free.get(size):
                free.move_to_end(size)
                return free[size].pop()  # pyright: ignore[reportReturnType]
            while len(free) >= MOST_SIZES and size not in free:
                free.popitem(last=False)
        return make()

    def give(self, kind: Hashable, size: int, item: object) -> None:
        """Takes back an object, which must not be used by the giver any more."""
        with self._lock:
            self._used = True
            free = self._free[kind]
            free.setdefault(size, []).append(item)
            free.move_to_end(size)
            if self._sweeper is None:
                self._watch()

    def idle(self) -> int:
        """Returns how many objects lie idle."""
        with self._lock:
            return sum(len(items) for sizes in self._free.values() for items in sizes.values())

    def forget(self) -> None:
        """Lets go of all that lies idle."""
        with self._lock:
            self._free.clear()

    def _watch(self) -> None:
        self._used = False
        self._sweeper = threading.Timer(IDLE_S, self._sweep)
        self._sweeper.daemon = True
        self._sweeper.start()

    def _sweep(self) -> None:
        with self._lock:
            self._sweeper = None
            if self._used:
                self._watch()
            else:
                self._free.clear()

    def _after_fork(self) -> None:
        """A forked process has neither the thread that sweeps nor a use for what lies here."""
        self._lock, self._sweeper = threading.RLock(), None
        self._free.clear()


POOL = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL._after_fork)
