"""Small runs and files that the command-line tests share."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kappaflow.cli.app import main

SMALL = ("--depth", 2, "--hidden", 8, "--max-epochs", 2, "--quiet")
TINY = ("--levels", 1, "--steps", 1, "--hidden", 4, "--quiet")
AGAINST = ("--where", "kind=even", "--against", "kind=odd")


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


def refused(outcome, message, status=2):
    """Asserts that a command ended with one sentence on stderr that has these words."""
    assert outcome.status == status, outcome
    assert outcome.out == ""
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("kappaflow: ") and message in lines[0], (
        outcome.err
    )


def read(folder, name):
    """Returns what a JSON file of a run folder holds."""
    return json.loads((folder / name).read_text())


def fitted(tmp_path_factory, *words):
    """Returns the folder of a run that is fitted by a command."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["fit", *map(str, words), "--out", str(folder)]) == 0
    return folder


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


@pytest.fixture(scope="session")
def finished(table, tmp_path_factory) -> Path:
    """A finished run on the table."""
    return fitted(tmp_path_factory, table, *AGAINST, *SMALL)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 45 small pictures in color, in three classes, of 8 x 12 pixels."""
    folder = tmp_path_factory.mktemp("pictures") / "set"
    rng = np.random.default_rng(0)
    for i in range(45):
        name = ("blue", "green", "red")[i % 3]
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (8, 12, 3), np.uint8)
        pixels[..., 2 - i % 3] += 150
        Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A finished run on the digits, two epochs of a tiny Glow."""
    return fitted(tmp_path_factory, "digits", *TINY, "--max-epochs", 2)


@pytest.fixture(scope="session")
def class_run(pictures, tmp_path_factory):
    """A finished run on the pictures, given their class."""
    words = ("--by-class", "--size", 8, "--flip", "--max-epochs", 3)
    return fitted(tmp_path_factory, pictures, *TINY, *words)


FLOWS = """
import math
import torch
import kappaflow as kf

torch.manual_seed(0)


def encode(x):
    return 2 * x, torch.full((len(x),), x.shape[1] * math.log(2))


def decode(z):
    return z / 2, torch.full((len(z),), -z.shape[1] * math.log(2))


def wrong(z):
    return z / 2, torch.full((len(z),), -math.log(2))


doubling = (encode, decode)


def healthy():
    return (encode, decode), torch.randn(64, 3)


def faulty():
    return (encode, wrong), torch.randn(64, 3)


def conditional():
    flow = kf.real_nvp(2, depth=2, hidden=(4,), context_features=1)
    return flow, torch.randn(64, 2), torch.randn(64, 1)


def double():
    print("making a flow")
    return kf.real_nvp(3, depth=2, hidden=(4,)).double()


def leaving():
    raise SystemExit(0)


def broken():
    raise ValueError("no such weights")


def sized(features, depth=2, **more):
    return kf.real_nvp(features, depth=depth, **more)


def deeper():
    return torch.nn.Sequential(3)


class Failing(kf.Bijection):
    def forward(self, x, context=None):
        return x[:, :5] @ torch.ones(5, 2), x.new_zeros(len(x))

    inverse = forward


def failing():
    return kf.Flow(kf.StandardNormal(2), kf.Chain([Failing()]))


class Choosing:
    def encode(self, x, context=None):
        if context is not None:
            raise NotImplementedError
        return x, torch.zeros(len(x))

    decode = encode


def unasked():
    return Choosing(), torch.randn(64, 2), torch.randn(64, 1)


def stopped():
    raise KeyboardInterrupt


def three():
    return kf.nice(3, depth=2, hidden=(4,))


nothing = (doubling, 3)
"""


@pytest.fixture
def code(tmp_path):
    """A file with flows."""
    path = tmp_path / "flows.py"
    path.write_text(FLOWS)
    return path
