"""Tables of a few rows, and columns that hardly vary: a run, or one clear sentence."""

import re

import numpy as np
import pytest

SMALL = ("--depth", 2, "--hidden", 4, "--max-epochs", 1, "--quiet")


def rows(n, columns=2):
    """Returns normal rows."""
    return np.random.default_rng(n).normal(size=(n, columns))


def last_column(x, values):
    """Returns rows with other values in the last column."""
    return np.column_stack([x[:, :-1], np.broadcast_to(values, len(x))])


def written(folder, x):
    """Returns the path of a table with a column of text, "a" and "b" in turn."""
    lines = [",".join([*map(repr, row), "ab"[i % 2]]) for i, row in enumerate(x.tolist())]
    names = [f"c{i}" for i in range(x.shape[1])]
    path = folder / "tiny.csv"
    path.write_text("\n".join([",".join([*names, "kind"]), *lines]) + "\n")
    return path


def checked(outcome):
    """Asserts that a command ended well or in one sentence, without another library's warning."""
    assert outcome.status in (0, 1, 2)
    assert "Traceback" not in outcome.err
    assert not re.search(r"Warning|degrees of freedom|encountered", outcome.err)
    assert not re.search(r"\b(nan|inf)\b", outcome.out)
    if outcome.status:
        assert outcome.err.startswith("kappaflow: ")
        assert outcome.err.count("\n") == 1
        assert outcome.err.endswith(".\n")


TRAINED = {
    "three rows of one column": (rows(3, 1), ()),
    "five rows of two columns": (rows(5), ()),
    "five rows of tiny numbers": (1e-30 * rows(5), ()),
    "twelve rows, splines": (rows(12), ("--model", "spline")),
    "four rows with a context": (rows(4), ("--context", "c1")),
    "a context that is constant": (last_column(rows(5), 3.0), ("--context", "c1")),
    "four rows and padding": (rows(4, 1), ("--padding", 1)),
    "five rows within bounds": (np.exp(rows(5)), ("--bounds", "c0=positive", "c1=0,100")),
    "twelve rows, six against six": (rows(12), ("--where", "kind=a", "--against", "kind=b")),
    "five rows on disk": (rows(5), ("--on-disk",)),
    "five rows and a budget": (rows(5), ("--condition-budget", 10)),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_few_rows_make_a_run_that_every_command_can_read(name, tmp_path, run):
    """With few rows the verdict says so; no number in it is nan or inf."""
    x, options = TRAINED[name]
    table, folder = written(tmp_path, x), tmp_path / "run"
    fitted = run("fit", table, "--out", folder, *SMALL, *options)
    checked(fitted)
    assert fitted.status == 0
    assert "Use this flow with care" in fitted.out or "Do not" in fitted.out
    for words in (
        ("doctor", folder),
        ("report", folder),
        ("score", folder, table, "--out", tmp_path / "scores.csv"),
        *([] if "--context" in options else [("sample", folder, "-n", 2)]),
    ):
        outcome = run(*words)
        checked(outcome)
        assert outcome.status == 0, words


REFUSED = {
    "one row": (rows(1), (), "1 row is too few"),
    "two rows of one column": (rows(2, 1), (), "at least 3 rows"),
    "two rows of two columns": (rows(2), (), "or leave out 1 column;"),
    "a constant column": (last_column(rows(9), 7.5), (), "'c1' is constant: every row holds 7.5"),
    "a nearly constant column": (
        last_column(rows(9), 1 + 1e-12 * rows(10)[:9, 0]),
        (),
        "'c1' varies by .* around 1, which float32 cannot tell apart",
    ),
    "one different row": (np.repeat(rows(1), 20, 0), (), "only 1 different row among 20"),
    "two different rows": (np.repeat(rows(2), 9, 0), (), "only 2 different rows among 18"),
    "numbers beyond float32": (1e200 * rows(5), (), "up to .*e\\+200, which float32 cannot hold"),
    "three rows on disk": (rows(3), ("--on-disk",), "3 rows, of which only 1 is left to train on"),
    "whitening of few rows": (rows(4), ("--start", "whiten"), "2 rows are too few to whiten 2"),
    "nothing but a context": (rows(5, 1), ("--context", "c0"), "no numeric column to model"),
    "no row that meets a condition": (rows(5), ("--where", "kind=c"), "kind"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_without_enough_to_learn_from_is_refused_in_one_sentence(name, tmp_path, run):
    """The sentence names what is missing, and how much of it there should be."""
    x, options, message = REFUSED[name]
    outcome = run("fit", written(tmp_path, x), "--out", tmp_path / "run", *SMALL, *options)
    checked(outcome)
    assert outcome.status == 2
    assert re.search(message, outcome.err), outcome.err
