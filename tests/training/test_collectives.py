"""Connections of ranks, on which the system looks for signs of life."""

import os
import socket

import pytest

from kappaflow.training import collectives
from kappaflow.training.collectives import heartbeat


def connected():
    """Returns both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        end = socket.create_connection(server.getsockname())
        return end, server.accept()[0]


def has_keepalive(connection):
    return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def test_connections_that_are_made_inside_have_keepalive(monkeypatch, tmp_path):
    """Both ends, which stay open; those from before and after are left alone."""
    before = connected()
    with heartbeat():
        inside, pair = connected(), socket.socketpair()
    count = len(os.listdir("/dev/fd"))
    with heartbeat():
        pass
    assert len(os.listdir("/dev/fd")) == count
    monkeypatch.setattr(collectives, "DESCRIPTORS", tmp_path / "none")
    with heartbeat():  # where the system does not list descriptors
        after = connected()
    assert all(map(has_keepalive, inside))
    assert not any(map(has_keepalive, [*before, *after, *pair]))
    inside[0].sendall(b"still there")
    assert inside[1].recv(20) == b"still there"
    for end in [*before, *inside, *after, *pair]:
        end.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="of Linux")
def test_silence_of_three_quarters_of_a_minute_is_the_end():
    """Where nothing is sent, and where what was sent is not received."""
    with heartbeat():
        end, other = connected()
    idle, interval, count, timeout = (
        end.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    )
    end.close(), other.close()
    assert idle + interval * count == 45 and timeout == 45_000
