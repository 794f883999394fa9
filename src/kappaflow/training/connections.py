"""Connections that notice when their other end is no longer heard of.

A machine that loses its power or its network sends nothing, not even that it is gone; who waits
for it without a limit waits for ever. The system can ask for signs of life by itself, over TCP.
"""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SILENT_S, ASKS, EVERY_S = 15, 3, 10  # 15 s of silence, then three questions, 10 s apart
OPTIONS = {
    "TCP_KEEPIDLE": SILENT_S,
    "TCP_KEEPALIVE": SILENT_S,  # its name on macOS
    "TCP_KEEPINTVL": EVERY_S,
    "TCP_KEEPCNT": ASKS,
    "TCP_USER_TIMEOUT": 1000 * (SILENT_S + ASKS * EVERY_S),  # of what was sent and not received
}
DESCRIPTORS = Path("/dev/fd")


@contextmanager
def kept_alive() -> Iterator[None]:
    """A context whose new TCP connections fail after 45 s without a sign of life.

    Whatever library makes them. Where a system does not let this be set, they stay as they are.
    """
    before = _sockets()
    yield
    for descriptor in _sockets() - before:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            _keep_alive(connection)


def _sockets() -> set[int]:
    """Returns the descriptors of this process that are sockets."""
    found = set()
    with suppress(OSError):
        for name in os.listdir(DESCRIPTORS):
            with suppress(OSError):  # that of the list itself is closed again
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    found.add(int(name))
    return found


def _keep_alive(connection: socket.socket) -> None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in OPTIONS.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
