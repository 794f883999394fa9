"""Connections that are asked for signs of life."""

import os
import socket

import pytest

from kappaflow.training import collectives
from kappaflow.training.collectives import heartbeat


def connected():
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


def is_asked(connection):
    """Whether the system asks the other end for signs of life."""
    return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def test_only_connections_made_inside_have_keepalive():
    """Both ends; those from before and after, and what is no TCP connection, are left alone."""
    before = connected()
    with heartbeat():
        inside, pair = connected(), socket.socketpair()
    after = connected()
    assert all(map(is_asked, inside))
    assert not any(map(is_asked, [*before, *after, *pair]))
    for one in [*before, *inside, *after, *pair]:
        one.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="of Linux")
def test_silence_of_three_quarters_of_a_minute_is_the_end():
    """Where nothing is sent, and where what was sent is not received."""
    with heartbeat():
        one, other = connected()
    found = {
        name: one.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    }
    one.close(), other.close()
    assert found["TCP_KEEPIDLE"] + found["TCP_KEEPINTVL"] * found["TCP_KEEPCNT"] == 45
    assert found["TCP_USER_TIMEOUT"] == 45_000


def test_connections_stay_open_and_no_descriptor_is_left():
    """What is set on a copy of a descriptor holds for the connection; the copy is closed."""
    with heartbeat():
        one, other = connected()
    count = len(os.listdir("/dev/fd"))
    with heartbeat():
        pass
    assert len(os.listdir("/dev/fd")) == count
    one.sendall(b"still there")
    assert other.recv(20) == b"still there"
    one.close(), other.close()


def test_a_system_that_does_not_list_descriptors_changes_nothing(monkeypatch, tmp_path):
    """No error either."""
    monkeypatch.setattr(collectives, "DESCRIPTORS", tmp_path / "none")
    with heartbeat():
        one, other = connected()
    assert not is_asked(one)
    one.close(), other.close()
