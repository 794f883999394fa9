"""What comes from data commands no terminal, and no job asks anybody outside."""

import ast
import contextlib
import socket
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl

from kappaflow.cli import app
from kappaflow.cli.app import main

COMMANDS = Path(__file__).parents[2] / "src" / "kappaflow" / "cli"
NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}


def write_table(path, names):
    """Writes 200 rows of two columns."""
    numbers = np.random.default_rng(0).normal(size=(200, 2)).round(4)
    pl.DataFrame(numbers, schema=list(names)).write_csv(path)


def test_names_of_columns_send_no_commands_to_a_terminal(tmp_path, capsys):
    """An escape sequence in a name is spelled out in messages."""
    (tmp_path / "t.csv").write_text("a\x1b]0;owned\x07\x9b31m,b\nx,1\n2,3\n4,5\n6,7\n")
    assert main(["fit", str(tmp_path / "t.csv"), "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr()
    assert "\\x1b]0;owned\\x07\\x9b31m" in message.err
    assert not {"\x1b", "\x07", "\x9b"} & set(message.err + message.out)


def test_a_warning_is_a_line_without_commands(capfd, monkeypatch):
    """Python's own way shows a line of our code, and passes names on as they are."""

    def warns(*words, **how):
        warnings.warn("of \x1b[31mred", UserWarning, stacklevel=1)

    monkeypatch.setattr(app, "app", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([]) == 0
    assert capfd.readouterr().err == "kappaflow: warning: of \\x1b[31mred\n"


def test_all_commands_print_in_one_way():
    """A bare print would pass names on as they are."""
    for path in COMMANDS.glob("*.py"):
        calls = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]
        printed = [call for call in calls if ast.unparse(call.func) == "print"]
        assert len(printed) == (path.name == "show.py"), path.name


def test_no_job_asks_for_the_network(tmp_path):
    """Fitting, scoring, sampling, the report and the doctor open no connection."""
    write_table(tmp_path / "t.csv", "ab")
    run = tmp_path / "run"
    small = "--model real_nvp --depth 2 --hidden 4 --max-epochs 1"
    jobs = [
        f"fit {tmp_path}/t.csv --out {run} {small}",
        f"score {run} {tmp_path}/t.csv --out {tmp_path}/scores.csv",
        f"sample {run} -n 10 --out {tmp_path}/draws.csv",
        f"report {run}",
        f"doctor {run}",
    ]
    guarding, requested = True, []

    def guard(event, given):  # which Python cannot take away again
        if guarding and event in NETWORK:
            requested.append((event, given[1:]))

    sys.addaudithook(guard)
    try:
        assert [main(job.split()) for job in jobs] == [0, 0, 0, 0, 0]
        assert requested == []
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        assert ("socket.connect", (("127.0.0.1", 9),)) in requested
    finally:
        guarding = False
