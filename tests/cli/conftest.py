"""One small run that the command-line tests share."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from kappaflow.cli.app import main


@dataclass(frozen=True)
class Outcome:
    """Exit status and what was printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys):
    """Runs a command line in this process."""

    def call(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """A csv of 600 rows: three columns of numbers, one of text."""
    path = tmp_path_factory.mktemp("table") / "data.csv"
    x = np.random.default_rng(0).normal(size=(600, 3))
    x[:, 1] += x[:, 0] ** 2
    kind = np.where(np.arange(600) % 3 == 0, "odd", "even")
    lines = [f"{a:.6f},{b:.6f},{c:.6f},{k}" for (a, b, c), k in zip(x, kind, strict=True)]
    path.write_text("\n".join(["a,b,c,kind", *lines]) + "\n")
    return path


SMALL = ("--depth", 2, "--hidden", 8, "--max-epochs", 2, "--quiet")


@pytest.fixture(scope="session")
def finished(table, tmp_path_factory) -> Path:
    """A finished run on the table."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = [
        "fit",
        table,
        "--out",
        folder,
        "--where",
        "kind=even",
        "--against",
        "kind=odd",
        *SMALL,
    ]
    assert main([str(word) for word in words]) == 0
    return folder
