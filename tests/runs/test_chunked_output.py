"""Scores and samples in chunks: the same as at once, and a file that is whole or not there."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kappaflow.cli.sample import sample
from kappaflow.cli.score import score
from kappaflow.data import chunks
from kappaflow.data.raw import Reading
from kappaflow.errors import ArgumentError, DataError, DataWarning
from kappaflow.runs import (
    ModelConfig,
    TableConfig,
    diagnose_run,
    fit_run,
    sample_run,
    samples,
    score_run,
    scores,
    write_samples,
    write_scores,
)
from kappaflow.runs.tables import TableRunConfig
from kappaflow.training import measure

ROWS = 205
SUFFIXES = [".csv", ".parquet", ".arrow", ".npy", ".npz"]


def table(seed=0, rows=ROWS):
    """Rows of three columns and one of text, of which the run models two."""
    x = np.random.default_rng(seed).normal(size=(rows, 3))
    return pl.DataFrame({"c": x[:, 0], "a": x[:, 1], "kind": ["x"] * rows, "b": x[:, 2]})


def fitted(folder, context=(), **model):
    """Returns a small finished run."""
    source = folder.with_suffix(".csv")
    table(1, 300).write_csv(source)
    arguments = {"depth": 2, "hidden": (8,), **model}
    source = TableConfig(data=str(source), columns=["a", "b"], context=list(context))
    fit_run(source, ModelConfig("real_nvp", arguments), folder, progress=False, max_epochs=1)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on two columns."""
    return fitted(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A run on two columns given a third."""
    return fitted(tmp_path_factory.mktemp("runs") / "given", ("c",))


@pytest.fixture
def small(monkeypatch):
    """Chunks of 48 rows, computed 16 at a time, drawn 20 at a time; at once without."""
    monkeypatch.setattr(measure, "ROWS_AT_ONCE", 16)
    monkeypatch.setattr(samples, "ROWS_AT_ONCE", 20)

    def in_parts(rows=50):
        monkeypatch.setattr(chunks, "CHUNK_ROWS", rows)

    return in_parts


def content(path):
    """What a file holds: its bytes, or where these depend on the layout its columns."""
    if path.suffix in {".parquet", ".arrow"}:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ipc(path)
        return [
            (s.name, s.dtype, s.to_list() if s.dtype == pl.String else s.to_numpy().tobytes())
            for s in frame.get_columns()
        ]
    return path.read_bytes()


def written(folder, frame):
    """Writes a table in all kinds that are read in chunks."""
    frame.write_parquet(folder / "t.parquet")
    frame.write_ipc(folder / "t.arrow")
    frame.write_csv(folder / "t.csv")


@pytest.mark.parametrize("data", ["t.parquet", "t.arrow", "t.csv"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_scores_in_parts_are_those_at_once(run, small, tmp_path, data, suffix):
    """Bit for bit, whatever goes in and comes out; and nothing is left behind."""
    written(tmp_path, table())
    once, parted = tmp_path / f"once{suffix}", tmp_path / f"parted{suffix}"
    write_scores(run, str(tmp_path / data), str(once))
    small()
    result = write_scores(run, str(tmp_path / data), str(parted))
    assert (result.rows, result.columns) == (ROWS, ("row", "log_prob", "percentile"))
    assert content(parted) == content(once)
    expected = score_run(run, str(tmp_path / data))["log_prob"]
    assert len(expected) == ROWS
    assert not list(tmp_path.glob(".*"))


def test_rows_outside_the_range_of_the_training_are_counted(run, small, tmp_path, capsys):
    """By column, in memory and in chunks; a table in other units."""
    frame = table().with_columns(pl.col("a") * 1000, b=pl.lit(0.0))
    frame.write_csv(tmp_path / "t.csv")
    data, out = str(tmp_path / "t.csv"), str(tmp_path / "out.csv")
    with pytest.warns(DataWarning, match="column 'a' in 20.; check that its units"):
        score_run(run, data)
    score(run, data, out=out)
    note = capsys.readouterr().err
    once = write_scores(run, data, out).outside
    assert 200 < once.rows <= ROWS and once.columns == {"a": once.rows}
    assert f"{once.rows} of {ROWS} rows lie outside the range of the training rows" in note
    small()
    assert write_scores(run, data, out).outside == once
    score(run, data, out=out, json=True)
    summary = json.loads(capsys.readouterr().out)
    assert summary["outside"] == {"rows": once.rows, "columns": {"a": once.rows}}


def test_context_rows_outside_the_range_of_the_training_are_counted(conditional, tmp_path, capsys):
    """On stderr by the command, and as a warning in Python."""
    context = str(tmp_path / "c.csv")
    pl.DataFrame({"c": [0.0, 0.1, 500.0]}).write_csv(context)
    sample(conditional, n=2, context=context, out=str(tmp_path / "s.csv"))
    assert "1 of 3 context rows lie outside the range of the training rows" in (
        capsys.readouterr().err
    )
    with pytest.warns(DataWarning, match="1 of 3 context rows .* column 'c' in 1"):
        sample_run(conditional, 2, context=context)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["array", "conditional"])
def test_scores_of_an_array_or_given_a_context_are_those_at_once(request, small, tmp_path, kind):
    """Columns of an npy file are x0, x1; the context is read with the columns."""
    written(tmp_path, table())
    np.save(tmp_path / "t.npy", np.random.default_rng(0).normal(size=(ROWS, 2)))
    data = str(tmp_path / ("t.npy" if kind == "array" else "t.csv"))
    if kind == "array":
        model = ModelConfig("spline", {"depth": 2, "hidden": (8,)})
        run = tmp_path / "run"
        fit_run(TableConfig(data=data), model, run, progress=False, max_epochs=1)
    else:
        run = request.getfixturevalue(kind)
    expected = score_run(run, data)["log_prob"]
    small()
    write_scores(run, data, str(tmp_path / "out.npy"))
    assert np.load(tmp_path / "out.npy")[:, 1].tobytes() == expected.tobytes()


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """A run whose scores are drawn: bounds, with noise next to the rows."""
    return fitted(tmp_path_factory.mktemp("runs") / "padded", padding=1, padding_kind="gaussian")


@pytest.mark.parametrize("name", ["run", "padded"])
def test_an_interrupted_call_leaves_the_file_as_it_was(
    request, small, tmp_path, monkeypatch, name
):
    """Nothing else is left; the next call writes the file that a call in memory does."""
    run = request.getfixturevalue(name)
    written(tmp_path, table())
    data, once, out = str(tmp_path / "t.csv"), tmp_path / "once.csv", tmp_path / "out.csv"
    write_scores(run, data, str(once))
    out.write_text("before")
    small()
    of, left = scores.Scores.of, iter([1, 2])

    def stops(*arguments):
        if not next(left, None):
            raise KeyboardInterrupt
        return of(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scores.Scores, "of", stops)
        with pytest.raises(KeyboardInterrupt):
            write_scores(run, data, str(out))
    assert out.read_text() == "before" and not list(tmp_path.glob(".*"))
    write_scores(run, data, str(out))
    assert out.read_bytes() == once.read_bytes()


CASES = [("run", suffix) for suffix in SUFFIXES] + [("conditional", ".npz"), ("padded", ".npz")]


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_samples_in_parts_are_those_at_once(request, small, tmp_path, name, suffix):
    """For the same seed, bit for bit, with a context and without."""
    run = request.getfixturevalue(name)
    (tmp_path / "rows.csv").write_text("c\n0.5\n-0.5\n1.5\n")
    options = {"context": str(tmp_path / "rows.csv")} if name == "conditional" else {}
    options |= {"seed": 3, "temperature": 0.7}
    once, parted = tmp_path / f"once{suffix}", tmp_path / f"parted{suffix}"
    write_samples(run, 130, str(once), **options)
    expected = sample_run(run, 130, **options)
    small()
    summary = write_samples(run, 130, str(parted), **options)
    assert (summary.rows, summary.columns) == (len(expected["a"]), tuple(expected))
    assert content(parted) == content(once)
    if suffix == ".npz":
        with np.load(parted) as actual:
            assert all(actual[key].tobytes() == expected[key].tobytes() for key in expected)
    assert not list(tmp_path.glob(".*"))


def test_standard_output_gets_each_part_as_it_is_made(run, small, tmp_path, capsys):
    """One header, the same lines, and no parts on disk."""
    written(tmp_path, table())
    write_scores(run, str(tmp_path / "t.csv"), "-")
    write_samples(run, 107, "-")
    expected = capsys.readouterr().out
    small()
    write_scores(run, str(tmp_path / "t.csv"), "-")
    write_samples(run, 107, "-")
    assert capsys.readouterr().out == expected
    assert not list(Path().glob(".-*")) and not list(tmp_path.glob(".*"))


def with_gaps():
    """The table with five values that cannot be scored, and whole numbers that name the rows."""
    frame = table()
    b = frame["b"].to_list()
    b[3], b[100], b[150], b[201], b[202] = 1e39, -math.inf, None, math.nan, None
    names = [f"0{i:03}" for i in range(ROWS)]
    return frame.with_columns(pl.Series("b", b), pl.Series("event", names))


GAPS = [4, 101, 151, 202, 203]  # rows, counted from 1


@pytest.mark.slow
@pytest.mark.parametrize("data", ["t.parquet", "t.arrow", "t.csv"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
def test_rows_that_cannot_be_scored_have_an_empty_value(run, small, tmp_path, data, suffix):
    """And are counted; the others score as without them, at once and in chunks."""
    written(tmp_path, with_gaps())
    once, parted = tmp_path / f"once{suffix}", tmp_path / f"parted{suffix}"
    result = write_scores(run, str(tmp_path / data), str(once), identifier="event")
    assert (result.rows, result.empty, result.first_empty) == (ROWS, 5, 4)
    assert result.first_name == ("line 5" if data == "t.csv" else "row 4")
    small()
    again = write_scores(run, str(tmp_path / data), str(parted), identifier="event")
    assert again == result and content(parted) == content(once)
    scores = read_scores(once)
    assert scores.columns == ["row", "event", "log_prob", "percentile"]
    assert scores["row"].to_list() == list(range(1, ROWS + 1))
    assert scores["event"].to_list() == [f"0{i:03}" for i in range(ROWS)]
    for name in ("log_prob", "percentile"):
        assert scores.filter(pl.col(name).is_null())["row"].to_list() == GAPS
    written(tmp_path, table())
    complete = score_run(run, str(tmp_path / data))["log_prob"]
    kept = scores["log_prob"].is_not_null().to_numpy()
    assert np.allclose(scores["log_prob"].drop_nulls(), complete[kept], rtol=1e-6)


def read_scores(path):
    """A file of scores, identifiers as text."""
    if path.suffix == ".csv":
        return pl.read_csv(path, schema_overrides={"event": pl.String})
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ipc(path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_rows_that_cannot_be_scored_can_be_left_out(run, small, tmp_path, suffix):
    """With repair="drop"; files of arrays have NaN otherwise."""
    written(tmp_path, with_gaps())
    data, once, parted = (str(tmp_path / name) for name in ("t.csv", "o" + suffix, "p" + suffix))
    for options, rows in (({}, ROWS), ({"repair": "drop"}, ROWS - 5)):
        small(10**6)
        result = write_scores(run, data, once, **options)
        assert (result.rows, result.dropped) == (rows, ROWS - rows)
        small()
        assert write_scores(run, data, parted, **options) == result
        assert Path(parted).read_bytes() == Path(once).read_bytes()
    if suffix == ".npy":
        assert np.isfinite(np.load(once)).all() and len(np.load(once)) == ROWS - 5


def test_the_scores_do_not_replace_the_rows(run, tmp_path):
    """A file that is read is not written."""
    data = tmp_path / "t.csv"
    data.write_text("a,b\n1,2\n")
    with pytest.raises(ArgumentError, match="another file than the one to read"):
        write_scores(run, str(data), str(data))
    assert data.read_text() == "a,b\n1,2\n"


@pytest.mark.filterwarnings("ignore:.* lie outside the range")
@pytest.mark.parametrize("decimal", [".", ","])
def test_the_decimal_sign_of_data_to_score_can_be_named(run, small, tmp_path, decimal):
    """A file that leaves it open is refused, and read with the option that the refusal names."""
    rows, data = 120, str(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a;b\n" + "1,234;5,678\n" * rows)
    for _ in range(2):
        with pytest.raises(DataError, match="decimal='.' or decimal=','"):
            write_scores(run, data, str(tmp_path / "out.csv"))
        write_scores(run, data, str(tmp_path / "out.npy"), decimal=decimal)
        result = np.load(tmp_path / "out.npy")[:, 1]
        same = (1.234, 5.678) if decimal == "," else (1234, 5678)
        np.save(tmp_path / "t.npy", np.array([same] * rows))
        plain = pl.DataFrame(np.load(tmp_path / "t.npy"), schema=["a", "b"])
        plain.write_csv(tmp_path / "plain.csv")
        assert (score_run(run, str(tmp_path / "plain.csv"))["log_prob"] == result).all()
        small()


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_without_rows_has_nothing_to_score(run, name, tmp_path):
    """The sentence for a fit would be wrong here."""
    frame = pl.DataFrame({"a": [], "b": []})
    (frame.write_csv if name.endswith("csv") else frame.write_parquet)(tmp_path / name)
    with pytest.raises(DataError, match="rows: there is nothing to score"):
        score_run(run, str(tmp_path / name))


def test_the_separator_and_comments_of_data_to_score_can_be_named(run, tmp_path):
    """They are stored with a run, unless the data to score is written in another way."""
    (tmp_path / "t.csv").write_text("! about\na|b\n0.5|1\n0.25|2\n")
    (tmp_path / "u.csv").write_text("a,b\n0.5,1\n0.25,2\n")
    scores = score_run(run, str(tmp_path / "t.csv"), separator="|", comment="!")["log_prob"]
    assert (scores == score_run(run, str(tmp_path / "u.csv"))["log_prob"]).all()
    source = TableConfig("t.csv", separator="|", comment="!", missing=["-9"])
    config = TableRunConfig(source=source, fingerprints={}, columns=["a", "b"], context_columns=[])
    assert config.reading("score", comment="%") == Reading(
        separator="|", comment="%", missing=("-9",), purpose="score"
    )


def test_samples_and_the_doctor_read_data_with_a_decimal_sign(conditional, run, tmp_path):
    """Contexts and rows to examine are read as the option says."""
    (tmp_path / "c.csv").write_text("c\n" + '"1,234"\n' * 3)
    with pytest.raises(DataError, match="decimal="):
        sample_run(conditional, 2, context=str(tmp_path / "c.csv"))
    drawn = sample_run(conditional, 2, context=str(tmp_path / "c.csv"), decimal=",")
    assert set(drawn["c"]) == {1.234}
    (tmp_path / "t.csv").write_text("a;b\n" + "1,234;0,678\n0,500;-1,250\n" * 9)
    (tmp_path / "u.csv").write_text("a;b\n" + "1.234;0.678\n0.500;-1.250\n" * 9)
    named, plain = (
        diagnose_run(run, str(tmp_path / name), decimal=decimal)[0]
        for name, decimal in (("t.csv", ","), ("u.csv", "."))
    )
    assert named.verdict == plain.verdict


def test_an_identifier_names_a_column_of_the_data(run, tmp_path):
    written(tmp_path, with_gaps())
    with pytest.raises(ArgumentError, match="'id' names column 'evnt'.*did you mean 'event'"):
        write_scores(run, str(tmp_path / "t.csv"), str(tmp_path / "o.csv"), identifier="evnt")


def test_data_that_changes_while_it_is_scored_is_noticed(run, small, tmp_path, monkeypatch):
    """Scores of two tables are not mixed."""
    small()
    written(tmp_path, table())
    of = scores.Scores.of

    def rewritten(*words, **named):
        table(2).write_parquet(tmp_path / "t.parquet")
        return of(*words, **named)

    monkeypatch.setattr(scores.Scores, "of", rewritten)
    with pytest.raises(DataError, match="has changed while it was read"):
        write_scores(run, str(tmp_path / "t.parquet"), str(tmp_path / "out.csv"))


def test_a_terminal_shows_how_many_rows_are_done(run, small, tmp_path, monkeypatch, capsys):
    """And a pipe shows nothing."""
    small()
    written(tmp_path, table())
    write_scores(run, str(tmp_path / "t.csv"), str(tmp_path / "out.csv"))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    write_scores(run, str(tmp_path / "t.csv"), str(tmp_path / "out.csv"))
    message = capsys.readouterr().err
    assert "scoring" in message and "205 of 205 rows" in message
