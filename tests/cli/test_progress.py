"""What a command prints while it trains, where there is no terminal for a bar."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from kappaflow.options import COMMAND, PYTHON
from kappaflow.training import progress

PROGRAM = """
import sys
from kappaflow.cli.app import main
from kappaflow.training import progress

progress.LINES_EVERY_S = float(sys.argv.pop(1))
sys.exit(main(sys.argv[1:]))
"""
LINE = re.compile(r"epoch \d+, nll [-\d.]+ train [-\d.]+ held out(?:, cond [\d.]+)?, (\d+) % done")


def piped(folder, every, *words):
    """Returns the lines on stderr of a fit in a process whose stderr is a pipe."""
    np.savetxt(
        folder / "t.csv",
        np.random.default_rng(0).normal(size=(200, 2)),
        header="a,b",
        comments="",
        delimiter=",",
    )
    fit = ("fit", folder / "t.csv", "--model", "real_nvp", "--depth", 2, "--hidden", 8)
    words = (every, *fit, "--max-epochs", 3, "--out", folder / "run", *words)
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("command", "every", "visible", "expected"),
    [
        ("kappaflow fit", 0, None, ["epoch 1, a loss, 33 % done", "epoch 2, a loss, 67 % done"]),
        ("kappaflow fit", 600, None, []),
        ("kappaflow fit", 0, False, []),
        (PYTHON, 0, None, []),
    ],
)
def test_lines_are_printed_by_commands_alone(
    command, every, visible, expected, capsys, monkeypatch
):
    """Not by Python, not if the user wants quiet, and not before their time."""
    monkeypatch.setattr(progress, "LINES_EVERY_S", every)
    before = COMMAND.set(command)
    try:
        with progress.bar_shown("epoch 1", visible=visible) as bar:
            bar(1 / 3, "a loss")
            bar(2 / 3, "a loss", "epoch 2")
    finally:
        COMMAND.reset(before)
    assert capsys.readouterr().err.splitlines() == expected


@pytest.mark.slow
def test_a_piped_training_prints_epoch_losses_and_share(tmp_path):
    """Here after each epoch, because the interval is 0."""
    lines = piped(tmp_path, 0)
    shares = [int(match[1]) for match in map(LINE.fullmatch, lines) if match]
    assert shares == [33, 67, 100], lines
    assert lines.index(next(filter(LINE.fullmatch, lines))) < len(lines) - 1


@pytest.mark.slow
def test_a_piped_training_prints_no_line_before_the_interval_or_if_quiet(tmp_path):
    """A short training prints what it did without lines; quiet is silent."""
    assert not any(map(LINE.fullmatch, piped(tmp_path, 600)))
    shutil.rmtree(tmp_path / "run")
    assert piped(tmp_path, 0, "--quiet") == []
