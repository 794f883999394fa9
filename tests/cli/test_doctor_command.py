"""`kappaflow doctor` on flows that Python code makes, and the choice of findings."""

import json

import numpy as np
import polars as pl
import pytest

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


nothing = (doubling, 3)
"""


@pytest.fixture
def code(tmp_path):
    """A file with flows."""
    path = tmp_path / "flows.py"
    path.write_text(FLOWS)
    return path


def test_a_flow_of_code_is_examined(run, code):
    """A function that returns flow and points, or flow, points and contexts."""
    done = run("doctor", f"{code}:healthy")
    assert done.status == 0 and "Nothing speaks against this flow" in done.out
    assert "points that the code gives" in done.out
    assert run("doctor", f"{code}:conditional").status == 0


def test_a_fault_is_found_with_exit_status_1(run, code):
    """And can be left out, by its code or by the beginning of it."""
    done = run("doctor", f"{code}:faulty", "--json")
    assert done.status == 1
    assert {one["code"] for one in json.loads(done.out)["findings"]} == {"KF203"}
    for words in (("--ignore", "KF203"), ("--select", "KF1", "KF3"), ("--ignore", "KF2")):
        left = run("doctor", f"{code}:faulty", "--json", *words)
        assert left.status == 0 and json.loads(left.out)["findings"] == []
    kept = run("doctor", f"{code}:faulty", "--select", "KF203", "--ignore", "KF2")
    assert kept.status == 1


def test_points_come_from_a_table(run, code, tmp_path):
    """With columns for the context, if the flow has one."""
    rows = np.random.default_rng(0).normal(size=(80, 3))
    path = tmp_path / "rows.csv"
    pl.DataFrame(rows, schema=["a", "b", "c"]).write_csv(path)
    done = run("doctor", f"{code}:doubling", path)
    assert done.status == 0 and f"rows of {path}" in done.out
    assert run("doctor", f"{code}:conditional", path, "--context", "c").status == 0


def test_rows_keep_their_digits_for_a_flow_in_float64(run, code, tmp_path):
    """What float32 cannot hold is not rounded on the way; what the code prints is no JSON."""
    rows = np.random.default_rng(0).normal(size=(80, 3))
    path = tmp_path / "rows.csv"
    pl.DataFrame(rows * 1e-6 + 1, schema=["a", "b", "c"]).write_csv(path)
    done = run("doctor", f"{code}:double", path, "--json")
    diagnosis = json.loads(done.out)
    assert diagnosis["measured"]["dtype"] == "float64"
    assert "KF602" not in {one["code"] for one in diagnosis["findings"]}


def test_discrete_columns_are_named_as_in_the_table(run, code, tmp_path):
    """Of a flow of code; a run's data was looked at when it was fitted."""
    rows = np.random.default_rng(0).integers(-3, 4, size=(80, 3))
    path = tmp_path / "rows.csv"
    pl.DataFrame(rows, schema=["energy", "b", "c"]).write_csv(path)
    assert "KF603: Column 'energy' holds" in run("doctor", f"{code}:doubling", path).out


@pytest.mark.parametrize(
    ("name", "words", "why"),
    [
        ("missing", (), "has no 'missing'"),
        ("broken", (), "raised ValueError in line 47: no such weights"),
        ("leaving", (), "raised SystemExit in line 43"),
        ("doubling", (), "'x' should be given, a few points"),
        ("nothing", (), "got a tuple of tuple, int"),
        ("math", (), "'flow' should be a Flow, a flow of zuko"),
        ("healthy", ("--select", "KF9"), "'select' should name findings"),
        ("healthy", ("--context", "c"), "'context' should be left out without data"),
    ],
)
def test_what_cannot_be_examined_is_one_sentence(run, code, name, words, why):
    """Of the code too: with the line in which it stopped."""
    done = run("doctor", f"{code}:{name}", *words)
    assert done.status == 2 and why in done.err and "Traceback" not in done.err


def test_code_that_is_not_there_is_one_sentence(run, tmp_path):
    """A file, or a module."""
    assert "is not there" in run("doctor", f"{tmp_path}/none.py:flow").err
    assert "No module named" in run("doctor", "nowhere.at_all:flow").err
