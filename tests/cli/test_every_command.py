"""Each command runs once, as on each Python that the classifiers name."""

import subprocess
import sys

import numpy as np
import pytest
from tests.cli.conftest import SMALL, fitted

from kappaflow.cli.app import COMMANDS

SHORT = ("--hidden", 4, "--max-epochs", 1, "--quiet")
STUDY = """
ensembles = ["orthogonal"]
sizes = [4]
draws = [1]
couplings = [6]
"""


@pytest.fixture(scope="module")
def mixed(table, tmp_path_factory):
    """A finished run on all columns of the table, its labels too."""
    return fitted(tmp_path_factory, table, "--kinds", "auto", *SMALL)


@pytest.fixture
def words(table, finished, mixed, tmp_path):
    """Returns the arguments of each command by its name, as words."""
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    np.save(tmp_path / "matrix.npy", np.array([[2.0, 1.0], [0.5, 1.5]]))
    out = tmp_path / "out"
    return {
        "fit": (table, "--depth", 2, *SHORT, "--out", out),
        "sample": (finished, "-n", 3),
        "score": (finished, table),
        "impute": (mixed, table),
        "doctor": (finished,),
        "report": (finished,),
        "export": (finished, "--out", out),
        "factor": (tmp_path / "matrix.npy",),
        "rewrite": (finished, "--out", out),
        "prune": (finished, "--out", out, "--epochs", 1),
        "depth": (table, "--out", out, "--max-depth", 2, "--partitions", "half", *SHORT),
        "reproduce": ("factor-tradeoff", "--config", study, "--out", out, "--quiet"),
        "data": (),
    }


@pytest.mark.parametrize("command", [command.__name__ for command in COMMANDS])
def test_each_command_runs(command, words, run):
    """A command that Python cannot even import, or that fails on a plain run, fails here."""
    outcome = run(command, *words[command])
    assert outcome.status == 0, outcome.err


def test_the_version_is_printed_by_a_process():
    """A process of its own prints the version, as `kappaflow --version` does."""
    done = subprocess.run(
        [sys.executable, "-m", "kappaflow", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("0."), done.stderr
