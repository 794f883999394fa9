"""`kappaflow doctor` on flows that Python code makes, and the choice of findings."""

import json

import numpy as np
import polars as pl
import pytest

from kappaflow.cli.show import shown_step

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


nothing = (doubling, 3)
"""


@pytest.fixture
def code(tmp_path):
    """A file with flows."""
    path = tmp_path / "flows.py"
    path.write_text(FLOWS)
    return path


@pytest.mark.slow
def test_a_flow_of_code_is_examined(run, code):
    """A function that returns flow and points, or flow, points and contexts."""
    done = run("doctor", f"{code}:healthy")
    assert done.status == 0 and "The doctor found no problem" in done.out
    assert "points of the code" in done.out
    assert run("doctor", f"{code}:conditional").status == 0


def test_what_the_code_raises_in_the_middle_is_one_sentence(run, code):
    """With the line of the file; a bijection of the user's own is not wrapped."""
    done = run("doctor", f"{code}:failing")
    assert done.status == 2 and done.err.count("\n") == 1
    assert "flows.py raised RuntimeError in line" in done.err


@pytest.mark.slow
def test_a_fault_is_found_with_exit_status_1(run, code):
    """And can be left out, by its code or by the beginning of it."""
    done = run("doctor", f"{code}:faulty", "--json")
    assert done.status == 1
    assert {one["code"] for one in json.loads(done.out)["findings"]} == {"KF203"}
    for words in (("--ignore", "KF203"), ("--select", "KF1", "KF3"), ("--ignore", "KF2")):
        left = run("doctor", f"{code}:faulty", "--json", *words)
        diagnosis = json.loads(left.out)
        assert left.status == 0 and diagnosis["findings"] == []
        assert diagnosis["verdict"].endswith("1 finding of another code is hidden.")
    kept = run("doctor", f"{code}:faulty", "--select", "KF203", "--ignore", "KF2")
    assert kept.status == 1


@pytest.mark.slow
def test_points_come_from_a_table(run, code, tmp_path):
    """With columns for the context, if the flow has one."""
    rows = np.random.default_rng(0).normal(size=(80, 3))
    path = tmp_path / "rows.csv"
    pl.DataFrame(rows, schema=["a", "b", "c"]).write_csv(path)
    done = run("doctor", f"{code}:doubling", path)
    assert done.status == 0 and f"rows of {path}" in done.out
    assert run("doctor", f"{code}:conditional", path, "--context", "c").status == 0


@pytest.mark.slow
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
        ("deeper", (), "raised TypeError in line 55: "),
        ("sized", (), "should need no arguments, but it requires 'features': write a"),
        ("unasked", (), "NotImplementedError. If it is not conditional, leave 'context'"),
        ("doubling", (), "'x' should be given as a few rows"),
        ("nothing", (), "got a tuple of tuple, int"),
        ("math", (), "'flow' should be a Flow, a flow of zuko"),
        ("healthy", ("--select", "KF9"), "'select' should be codes or prefixes"),
        ("healthy", ("--context", "c"), "'context' names columns of DATA"),
        ("healthy", ("--fix",), "'fix' changes runs only"),
    ],
)
def test_what_cannot_be_examined_is_one_sentence(run, code, name, words, why):
    """Of the code too: with the line in which it stopped."""
    done = run("doctor", f"{code}:{name}", *words)
    assert done.status == 2 and why in done.err and "Traceback" not in done.err


def test_code_that_is_not_there_is_one_sentence(run, tmp_path):
    """A file, or a module."""
    assert "does not exist" in run("doctor", f"{tmp_path}/none.py:flow").err
    assert "No module named" in run("doctor", "nowhere.at_all:flow").err


def test_data_of_another_width_is_one_sentence(run, code, tmp_path):
    """It names the columns that it has, those that are no numbers, and the option for contexts."""
    path = tmp_path / "rows.csv"
    path.write_text("a,b,kind\n1.5,2,x\n2.5,3,y\n")
    done = run("doctor", f"{code}:double", path)
    assert done.status == 2 and len(done.err.splitlines()) == 2  # one is what the code prints
    assert "should have 3 columns of numbers for this flow, in addition to those of" in done.err
    assert done.err.endswith("--context, and has 'a', 'b', and without numbers 'kind'.\n")


def test_code_that_python_cannot_read_is_one_sentence(run, tmp_path):
    """With the line of the file, reported once."""
    path = tmp_path / "flows.py"
    path.write_text("import torch\n\ndef make(:\n")
    assert run("doctor", f"{path}:make").err.endswith("SyntaxError in line 3: invalid syntax\n")


@pytest.mark.parametrize("end", ["", ":", ":my-flow"])
def test_a_file_without_a_name_is_one_sentence(run, code, end):
    """It is no run folder, and the sentence says how to name a flow in it."""
    done = run("doctor", f"{code}{end}")
    assert done.status == 2 and f"{code}:NAME" in done.err


def test_a_page_is_written_beside_what_is_printed(run, code, tmp_path):
    """With the chosen findings only; one that is there is replaced, and with --json too."""
    page = tmp_path / "page.html"
    page.write_text("old")
    done = run("doctor", f"{code}:faulty", "--out", page)
    text = page.read_text(encoding="utf-8")
    assert done.status == 1 and f"page                      {page}" in done.out
    assert "<h1>flows.py:faulty</h1>" in text and "KF203" in text
    assert "points of the code" in text and done.err == ""
    left = run("doctor", f"{code}:faulty", "--ignore", "KF203", "--out", page, "--json")
    assert left.status == 0 and json.loads(left.out)["findings"] == [] and left.err == ""
    assert "<span>KF203</span>" not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_has_a_page_too(run, finished, tmp_path):
    """Named after its folder."""
    done = run("doctor", finished, "--out", tmp_path / "page.html")
    assert done.status in (0, 1)
    assert "<h1>run</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "why"),
    [("page.txt", "should end in .html"), ("none/page.html", "there is no folder")],
)
def test_a_page_that_cannot_be_written_is_refused_before_the_work(run, tmp_path, place, why):
    """The flow is not even looked for."""
    done = run("doctor", f"{tmp_path}/none.py:flow", "--out", tmp_path / place)
    assert done.status == 2 and why in done.err and "Traceback" not in done.err


def test_ctrl_c_leaves_no_page_and_no_traceback(run, code, tmp_path):
    """The status is that of an interrupted program, and what was there stays."""
    (tmp_path / "page.html").write_text("old")
    with code.open("a") as file:
        file.write("\n\ndef stopped():\n    raise KeyboardInterrupt\n")
    done = run("doctor", f"{code}:stopped", "--out", tmp_path / "page.html")
    assert done.status == 130 and "Traceback" not in done.err
    assert (tmp_path / "page.html").read_text() == "old"


def test_words_are_shown_on_a_terminal_alone(capsys):
    """On stderr, and nothing of them in a pipe."""
    with shown_step() as show:
        show("layer 1 of 2")
    assert capsys.readouterr().err == ""
    with shown_step(visible=True) as show:
        show("layer 1 of [2]")
    captured = capsys.readouterr()
    assert captured.out == ""


@pytest.mark.slow
def test_a_run_says_what_its_own_diagnosis_says(run, tmp_path):
    """A flow that is worse than a Gaussian on held-out rows, also when it is examined again."""
    x = np.random.default_rng(0).normal(size=(400, 4)) @ np.diag([1.0, 1.0, 1.0, 1e-2])
    x[:, 3] += x[:, 0] + x[:, 1]
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="a,b,c,d", comments="")
    folder = tmp_path / "run"
    words = ("--depth", 2, "--hidden", 8, "--max-epochs", 1, "--quiet")
    assert run("fit", tmp_path / "x.csv", "--out", folder, *words).status == 0
    stored = json.loads((folder / "diagnosis.json").read_text())
    again = json.loads(run("doctor", folder, "--json").out)
    assert "KF501" in [one["code"] for one in stored["findings"]]
    message = [[(one["code"], one["message"]) for one in d["findings"]] for d in (again, stored)]
    assert message[0] == message[1]
    assert again["verdict"] == stored["verdict"]
    fixed = json.loads(run("doctor", folder, "--fix", "float64", "--json").out)
    assert "KF501" in [one["code"] for one in fixed["after"]["findings"]]
    other = json.loads(run("doctor", folder, tmp_path / "x.csv", "--json").out)
    assert "KF501" not in [one["code"] for one in other["findings"]]  # of other rows
