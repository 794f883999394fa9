"""Buffers of a run of couplings on a chunk of rows, kept from one training step to the next.

Memory that is allocated anew at each step costs a fifth of it, in page faults. A buffer is checked
out for as long as it holds something, so that two forward passes never share one, and all that lie
idle are given up after some seconds.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")

IDLE_S = 10.0


class Pool:
    """Objects that are expensive to make, by key."""

    def __init__(self) -> None:
        # Not a plain lock: garbage may be collected under it, and a pass gives its buffers back.
        self._lock = threading.RLock()
        self._free: dict[Hashable, list[object]] = defaultdict(list)
        self._used = False
        self._sweeper: threading.Timer | None = None

    def take(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns an object that lies idle under a key, or a new one."""
        with self._lock:
            self._used = True
            free = self._free[key]
            if free:
                return free.pop()  # pyright: ignore[reportReturnType]
        return make()

    def give(self, key: Hashable, item: object) -> None:
        """Takes back an object, which must not be used by the giver any more."""
        with self._lock:
            self._used = True
            self._free[key].append(item)
            if self._sweeper is None:
                self._watch()

    def idle(self) -> int:
        """Returns how many objects lie idle."""
        with self._lock:
            return sum(map(len, self._free.values()))

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
