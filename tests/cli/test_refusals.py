"""Bad input: one clear sentence on stderr, status 2, nothing half-written."""

import json
import shutil

import pytest
from tests.cli.conftest import SMALL

from kappaflow import fit_auto
from kappaflow.errors import DataError
from kappaflow.options import COMMAND, option

GOOD = "a,b\n" + "".join(f"{i * 0.37 % 1:.4f},{i * 0.73 % 1:.4f}\n" for i in range(60))


def files(tmp_path):
    """The bad tables, by what is wrong with them."""
    lines = GOOD.splitlines()
    row_7 = lines.copy()
    row_7[7] = row_7[7].split(",")[0] + ","
    return {
        "empty": b"",
        "binary": bytes(range(256)) * 20,
        "text": "a,b\n" + "x,y\n" * 50,
        "one_row": "\n".join(lines[:2]) + "\n",
        "missing": "\n".join(row_7) + "\n",
        "infinite": GOOD + "inf,0.5\n",
        "constant": "a,b\n" + "".join(f"{i * 0.37 % 1:.4f},2.5\n" for i in range(60)),
        "dependent": "a,b,c\n"
        + "".join(
            f"{i * 0.37 % 1},{i * 0.73 % 1},{i * 0.37 % 1 + i * 0.73 % 1}\n" for i in range(60)
        ),
        "header_only": "a,b\n",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "empty"),
        ("binary", "table"),
        ("text", "no numeric column"),
        ("one_row", "row"),
        ("missing", "column 'b' has a missing value at line 8"),
        ("infinite", "column 'a'"),
        ("constant", "column 'b'"),
        ("dependent", "'c'"),
        ("header_only", "no rows"),
    ],
)
def test_a_table_that_cannot_be_fitted_is_refused_in_one_sentence(run, tmp_path, name, message):
    """The sentence says what is wrong and where; no run folder is made."""
    content = files(tmp_path)[name]
    path = tmp_path / f"{name}.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = run("fit", path, "--out", tmp_path / "run", *SMALL)
    refused(outcome, message)
    assert not (tmp_path / "run").exists()


def test_a_message_names_flags_in_a_command_and_keywords_in_python(run, tmp_path):
    """Those of the function that was called, which takes them."""
    path = tmp_path / "constant.csv"
    path.write_text(files(tmp_path)["constant"])
    command = run("fit", path, "--out", tmp_path / "run", *SMALL).err
    with pytest.raises(DataError) as error:
        fit_auto(path)
    assert "--repair drop leaves" in command and "repair=" not in command
    assert "repair='drop' leaves" in str(error.value) and "--repair" not in str(error.value)
    names = ["x y", "-", "-999", "-1.5"]
    before = COMMAND.set("kappaflow fit")
    try:
        shown = [option("missing", [name]) for name in names]
        assert option("bounds", {"a b": "positive", "c": "0,1"}) == "--bounds 'a b=positive' c=0,1"
    finally:
        COMMAND.reset(before)
    assert shown == ["--missing 'x y'", "--missing=-", "--missing -999", "--missing -1.5"]
    assert option("missing", names[:1]) == "missing=['x y']"


def refused(outcome, message):
    """Asserts the form of a refusal."""
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("kappaflow: ") and message in lines[0], (
        outcome.err
    )
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "no-such-file.csv", "--out", "run"], "no-such-file.csv"),
        (["fit", "magc", "--out", "run"], "did you mean 'magic'?): give a path, or the name of a"),
        (["fit", "digit", "--out", "run"], "of tables magic, eight_gaussians"),
        (["fit", "digits", "--out", "run", "--start", "whiten"], "--start is an option of tables"),
        (["fit", "magic", "--out", "run", "--start", "white"], "white"),
        (
            ["fit", "magic", "--out", "run", "--start", "whiten", "--columns", "fLength"],
            "'start' should be 'identity' for one column, 'fLength'",
        ),
        (["fit", ".", "--out", "run"], "folder"),
        (["fit", "-"], "'out' should be given for standard input"),
        (["fit", "magic", "--out", "run", "--depth", "0"], "'depth' should be at least 1"),
        (["fit", "magic", "--out", "run", "--depth", "two"], "two"),
        (["fit", "magic", "--out", "run", "--dept", "2"], "--depth"),
        (["fit", "magic", "--out", "run", "--hidden", "0"], "'hidden'"),
        (["fit", "magic", "--out", "run", "--columns", "fLenght"], "fLength"),
        (["fit", "magic", "--out", "run", "--columns", "class"], "class"),
        (["fit", "magic", "--out", "run", "--where", "class=x"], "class"),
        (["fit", "magic", "--out", "run", "--where", "clas=g"], "class"),
        (["fit", "magic", "--out", "run", "--context", "nope"], "nope"),
        (["fit", "magic", "--out", "run", "--model", "glow"], "glow"),
        (["fit", "magic", "--out", "run", "--max-epochs", "0"], "'max_epochs'"),
        (["fit", "magic", "--out", "run", "--learning-rate", "-1"], "'learning_rate'"),
        (["fit", "magic", "--out", "run", "--seed", "-1"], "'seed'"),
        (
            ["fit", "magic", "--out", "run", "--model", "planar", "--hidden", "8"],
            "'hidden' should be left out for planar: --hidden is an option of real_nvp and nice",
        ),
        (
            ["fit", "magic", "--out", "run", "--model", "radial", "--context", "fLength"],
            "'context' should be left out for radial, which reads none: real_nvp, nice",
        ),
        (
            ["fit", "magic", "--out", "run", "--linear", "plain"],
            "'linear' should be left out for real_nvp: --linear is an option of invertible_net",
        ),
        (
            ["fit", "magic", "--out", "run", "--model", "nice", "--scale-bound", "3"],
            "'scale_bound' should be left out for nice",
        ),
        (
            ["fit", "magic", "--out", "run", "--model", "invertible_network", "--mixing", "lu"],
            "'mixing' should be left out for invertible_network: --mixing is an option of real_n",
        ),
        (
            ["fit", "magic", "--out", "run", "--mixing", "lu", "--partition", "random"],
            "'partition' should be 'half', 'alternating' or a Partition with mixing='lu'",
        ),
        (["fit", "magic", "--out", "run", "--mixing", "cholesky"], "cholesky"),
        (["fit", "magic", "--out", "run", "--condition-bound", "3"], "'condition_bound'"),
        (["sample", "no-run", "-n", "3"], "no-run"),
        (["score", "no-run", "magic"], "no-run"),
        (["doctor", "no-run"], "no-run"),
        (["report", "no-run"], "no-run"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(run, tmp_path, monkeypatch, words, message):
    """One sentence that names it; nothing is written where the command was given."""
    monkeypatch.chdir(tmp_path)
    quiet = ["--quiet"] if words[0] == "fit" else []
    refused(run(*words, *quiet), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", 0], "'n'"),
        (["-n", 3, "--out", "samples.docx"], ".csv"),
        (["-n", 3, "--out", "nowhere/samples.csv"], "nowhere"),
    ],
)
def test_samples_that_cannot_be_written_are_refused_first(run, finished, words, message):
    """Neither the number nor the file is tried in vain."""
    refused(run("sample", finished, *words), message)


def test_scoring_rows_with_a_missing_value_names_the_first_line(run, finished, tmp_path):
    """A density of a row that is not there is not made up; the others are scored."""
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b,c\n1,2,3\n1,,3\n")
    outcome = run("score", finished, bad, "--out", tmp_path / "scores.csv")
    assert outcome.status == 0
    assert "1 of 2 rows could not be scored" in outcome.err and "line 3" in outcome.err
    header, first, second = (tmp_path / "scores.csv").read_text().splitlines()
    assert header == "row,log_prob,percentile" and first.startswith("1,-")
    assert second == "2,,"


def test_scoring_a_table_without_the_columns_of_the_run_is_refused(run, finished, tmp_path):
    """The missing column is named."""
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    refused(run("score", finished, other), "'c'")


def test_a_finished_run_folder_is_not_given_to_other_data(run, table, finished, tmp_path):
    """Other rows or settings are refused with the difference; the folder is left as it was."""
    before = (finished / "result.json").read_bytes()
    words = ("--where", "kind=even", "--against", "kind=odd", *SMALL)
    other = tmp_path / "other.csv"
    shutil.copy(table, other)
    refused(run("fit", other, "--out", finished, *words), "data")
    refused(run("fit", table, "--out", finished, *words, "--learning-rate", 0.5), "learning_rate")
    assert (finished / "result.json").read_bytes() == before


def broken(finished, tmp_path, name, change):
    """A copy of the run with one file changed."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    path = copy / name
    path.write_bytes(change(path.read_bytes()))
    return copy


def flipped(content, at):
    """The content with one bit flipped."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.safetensors", lambda b: b[: len(b) // 2], "damaged or cut short"),
        ("model.safetensors", lambda b: flipped(b, len(b) - 5), "digest"),
        ("model.safetensors", lambda b: b"", "damaged or cut short"),
        (
            "config.json",
            lambda b: b.replace(b'"format_version": 1', b'"format_version": 9'),
            "version",
        ),
        ("config.json", lambda b: b.replace(b'"format": ', b'"color": 3, "format": '), "color"),
        ("config.json", lambda b: b.replace(b'"depth": 2', b'"depth": 3'), "digest"),
        ("config.json", lambda b: b[:-20], "JSON"),
    ],
)
def test_a_damaged_run_folder_is_refused_in_one_sentence(
    run, finished, tmp_path, name, change, message
):
    """Cut short, bit-flipped, of another version, with an unknown key: never a wrong number."""
    copy = broken(finished, tmp_path, name, change)
    refused(run("sample", copy, "-n", 3), message)


def test_a_run_that_is_not_finished_is_not_scored(run, finished, tmp_path, table):
    """Percentiles need the training scores, which come last; the sentence says what to do."""
    copy = broken(
        finished,
        tmp_path,
        "result.json",
        lambda b: json.dumps({
            k: v for k, v in json.loads(b).items() if not k.startswith(("test", "train_log"))
        }).encode(),
    )
    refused(run("score", copy, table), "run the same fit again")


def test_a_file_in_place_of_the_run_folder_is_refused(run, table, tmp_path):
    """--out names a folder; a file of that name is not touched."""
    (tmp_path / "run").write_text("mine")
    refused(run("fit", table, "--out", tmp_path / "run", *SMALL), "is a file")
    assert (tmp_path / "run").read_text() == "mine"


def test_a_run_of_the_library_is_not_scored_by_the_command(run, tmp_path, table):
    """It stores no training scores, and running it again would not change that."""
    import kappaflow as kf

    numbers = kf.load_table(table, columns=["a", "b", "c"])
    kf.fit(kf.real_nvp(3, depth=2, hidden=(4,)), numbers, max_epochs=1, out=tmp_path / "run")
    refused(run("score", tmp_path / "run", table), "made by kappaflow.fit")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused_everywhere(run, finished, table, tmp_path, seed):
    """By fit and by sample alike, with nothing written."""
    refused(run("sample", finished, "-n", 3, "--seed", seed), "'seed'")
    refused(run("fit", table, "--out", tmp_path / "run", *SMALL, "--seed", seed), "seed")
    assert not (tmp_path / "run").exists()


def test_a_large_seed_is_a_seed(run, table, tmp_path):
    """Up to 63 bits."""
    assert run("fit", table, "--out", tmp_path / "run", *SMALL, "--seed", 2**63 - 1).status == 0


def test_a_model_too_large_for_the_machine_is_refused(run, table, tmp_path):
    """One sentence, and no folder."""
    words = ("--hidden", 99_999_999_999, "--max-epochs", 1, "--quiet")
    refused(run("fit", table, "--out", tmp_path / "run", *words), "this size")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("config.json", b'"a",\n      "b"', b'"b",\n      "a"', "digest"),
        ("result.json", b'"verdict"', b'"verdikt"', "verdict"),
        ("result.json", b'_quantiles": [', b'_quantiles": ["x",', "quantiles"),
        ("report.json", b'"sigma_max"', b'"sigma_may"', "sigma_ma"),
    ],
)  # fmt: skip
def test_a_changed_file_of_a_run_is_noticed_by_whoever_reads_it(
    run, finished, tmp_path, table, name, old, new, message
):
    """Swapped columns, a missing key, a string among numbers: one sentence each."""
    copy = broken(finished, tmp_path, name, lambda content: content.replace(old, new))
    assert (copy / name).read_bytes() != (finished / name).read_bytes()
    words = ("report", copy) if name == "report.json" else ("score", copy, table)
    refused(run(*words), message)


def test_a_finished_run_with_damaged_weights_is_not_taken_for_finished(
    run, finished, table, tmp_path
):
    """Fit on the folder refuses it as sample does."""
    copy = broken(finished, tmp_path, "model.safetensors", lambda b: flipped(b, len(b) - 5))
    words = ("--where", "kind=even", "--against", "kind=odd", *SMALL)
    refused(run("fit", table, "--out", copy, *words), "digest")


def test_a_place_that_cannot_be_written_is_a_failure(run, finished, tmp_path, monkeypatch):
    """Status 1, not 2: the command was right."""
    import os

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    outcome = run("sample", finished, "-n", 3, "--out", tmp_path / "s.csv")
    assert outcome.status == 1
    assert "No space left" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_one_absurd_outlier_is_told_of_the_same_way_twice(run, tmp_path):
    """What is not finite is reported as so, by the first call and by the second."""
    lines = GOOD.splitlines()
    lines[9] = "1e30,0.5"
    path = tmp_path / "outlier.csv"
    path.write_text("\n".join(lines) + "\n")
    words = ("fit", path, "--out", tmp_path / "run", *SMALL)
    first, second = run(*words), run(*words)
    assert "Traceback" not in first.err + second.err
    assert first.status == second.status
    assert first.out == second.out


@pytest.mark.parametrize(
    "words", [("--depth", "2.9"), ("--hidden", "8.7"), ("--patience", "1.5"), ("--seed", "1.5")]
)
def test_a_fraction_is_no_whole_number(run, table, tmp_path, words):
    """It is refused, and not rounded."""
    outcome = run("fit", table, "--out", tmp_path / "run", "--quiet", *words)
    refused(outcome, words[0])
    assert not (tmp_path / "run").exists()


def test_a_fraction_of_a_sample_is_refused(run, finished):
    """2.5 samples are neither 2 nor 3."""
    refused(run("sample", finished, "-n", "2.5"), "-n")


def test_a_column_that_float32_cannot_tell_apart_is_refused(run, tmp_path):
    """Timestamps in milliseconds over a minute: constant in float32, so no density."""
    import numpy as np

    x = np.random.default_rng(0)
    rows = [f"{1.7e12 + i * i},{x.normal():.4f}" for i in range(300)]
    path = tmp_path / "unix.csv"
    path.write_text("ts,v\n" + "\n".join(rows) + "\n")
    refused(run("fit", path, "--out", tmp_path / "run", *SMALL), "store the difference from")
    assert not (tmp_path / "run").exists()


def test_a_training_without_a_finite_epoch_is_a_failure(run, table, tmp_path):
    """Status 1 and one sentence; the flow is not passed off as trained."""
    outcome = run("fit", table, "--out", tmp_path / "run", *SMALL, "--learning-rate", 1e9)
    assert outcome.status == 1
    assert "no validation likelihood was finite" in outcome.err or "not finite" in outcome.err
    assert not (tmp_path / "run/result.json").exists()
