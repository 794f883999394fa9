"""Bad input: one clear sentence on stderr, the status, and nothing written."""

import os
import shutil

import numpy as np
import pytest
from tests.cli.conftest import AGAINST, SMALL, read, refused

import kappaflow as kf
from kappaflow.errors import DataError
from kappaflow.options import COMMAND, option
from kappaflow_studies.factors import page

GOOD = "a,b\n" + "".join(f"{i * 0.37 % 1:.4f},{i * 0.73 % 1:.4f}\n" for i in range(60))
SUM = "".join(f"{i * 0.37 % 1},{i * 0.73 % 1},{i * 0.37 % 1 + i * 0.73 % 1}\n" for i in range(60))
NINE = range(9)
FILES = {
    "mine": "mine",
    "two.csv": "a,b\n1,2\n",
    "broken.py": "import torch\n\ndef make(:\n",
    "small.csv": "a,b,kind\n1.5,2,x\n2.5,3,y\n",
    "wide.csv": "1,2,3\n4,5,6\n",
    "empty.csv": "",
    "text.csv": "a,b\n" + "x,y\n" * 50,
    "missing.csv": GOOD.replace(GOOD.splitlines()[7], "0.1,"),
    "constant.csv": "a,b\n" + "".join(f"{i * 0.37 % 1:.4f},2.5\n" for i in range(60)),
    "dependent.csv": "a,b,c\n" + SUM,
    "equal.csv": "a,b\n" + "1.5,2.5\n0.5,3.5\n" * 9,
    "pair.csv": "\n".join(GOOD.splitlines()[:3]),
    "three.csv": "\n".join(GOOD.splitlines()[:4]),
    "four.csv": "\n".join(GOOD.splitlines()[:5]),
    "nearly.csv": "a,b\n" + "".join(f"{i * 0.37 % 1},{1 + 1e-12 * (i**2 % 7)}\n" for i in NINE),
    "huge.csv": "a,b\n" + "".join(f"{i * 0.37 % 1},{1e200 * (i**2 % 7)}\n" for i in NINE),
}
# Arguments, and words of the sentence. TABLE is a table, RUN, DIGITS and CLASSES are finished
# runs, and CODE is a file with flows.
REFUSED = [
    ("frobnicate", "frobnicate"),
    ("fit no-such-file.csv", "no-such-file.csv"),
    ("fit magc", "did you mean 'magic'?): give a path, or the name of a"),
    ("fit digit", "of tables magic, eight_gaussians"),
    ("fit empty.csv", "empty"),
    ("fit text.csv", "no numeric column"),
    ("fit missing.csv", "column 'b' has a missing value at line 8"),
    ("fit constant.csv", "column 'b'"),
    ("fit dependent.csv", "'c'"),
    ("fit equal.csv", "only 2 different rows among 18"),
    ("fit two.csv", "1 row is too few"),
    ("fit pair.csv", "or leave out 1 column;"),
    ("fit pair.csv --columns a", "at least 3 rows"),
    ("fit four.csv --start whiten", "2 rows are too few to whiten 2"),
    ("fit nearly.csv --depth 2", "around 1, which float32 cannot tell apart"),
    ("fit huge.csv --depth 2", "which float32 cannot hold"),
    ("fit three.csv --on-disk", "3 rows, of which only 1 is left to train on"),
    ("fit TABLE --out mine", "is a file"),
    ("fit TABLE --dept 2", "--depth"),
    ("fit TABLE --depth two", "two"),
    ("fit TABLE --depth 0", "'depth' should be at least 1"),
    ("fit TABLE --depth 2.9", "--depth"),
    ("fit TABLE --hidden 8.7", "--hidden"),
    ("fit TABLE --hidden 99999999999", "this size"),
    ("fit TABLE --start white", "white"),
    ("fit TABLE --max-epochs 0", "'max_epochs'"),
    ("fit TABLE --learning-rate -1", "'learning_rate'"),
    ("fit TABLE --condition-budget nan", "'condition_budget' should be"),
    ("fit TABLE --seed -1", "'seed'"),
    ("fit TABLE --seed 9223372036854775808", "seed"),
    ("fit TABLE --device tpu", "'device' should be"),
    ("fit TABLE --search-time -1", "'search_time' should be 0 or more"),
    ("fit magic --columns fLenght", "fLength"),
    ("fit magic --where clas=g", "class"),
    ("fit TABLE --context nope", "nope"),
    ("fit magic --columns fLength --start whiten", "'identity' for one column, 'fLength'"),
    ("fit magic --bounds fLength", "or list texts like mass=positive"),
    ("fit magic --bounds fLength=0,1", "should lie between 0 and 1"),
    ("fit magic --context fSize --bounds fSize=positive", "is one of the context"),
    ("fit TABLE --model real_nvp --bounds a=circular:-9,9", "Use the model 'spline'"),
    ("fit magic --model radial --context fLength", "left out for radial, which reads none"),
    ("fit TABLE --model planar --hidden 8", "left out for planar: --hidden is an option of"),
    ("fit TABLE --linear plain", "left out for real_nvp: --linear is an option of invertible_net"),
    ("fit TABLE --model nice --tail-bound 4", "--tail-bound is an option of spline"),
    ("fit TABLE --model zuko:cnf --depth 2", "'depth' should be left out for zuko:cnf"),
    ("fit TABLE --model glow", "'model' should be one of"),
    ("fit magic --by-class", "--by-class is an option of images"),
    ("fit TABLE --no-crop", "--crop is an option of images"),
    ("fit TABLE --levels 2", "--levels is an option of glow and real_nvp_image"),
    ("fit TABLE --padding-kind zero", "'padding_kind' should be left out where"),
    ("fit TABLE --padding 1 --padding-scale -2", "'scale' should be a finite number above 0"),
    ("fit TABLE --padding 1 --padding-kind zero --padding-scale 1", "left out for zero"),
    ("fit TABLE --on-disk --where a<1", "'where' should be left out with 'on_disk'"),
    ("fit TABLE --on-disk --against a<1", "'against' should be left out with 'on_disk'"),
    ("fit TABLE --on-disk --repair drop", "'repair' should be left out with 'on_disk'"),
    ("fit TABLE --on-disk --jitter a", "'jitter' should be left out with 'on_disk'"),
    ("fit TABLE --on-disk --duplicates drop", "'duplicates' should be left out with 'on_disk'"),
    ("fit -", "'out' should be given for standard input"),
    ("fit - --out run --on-disk", "'on_disk' should"),
    ("fit - --out run --against a<1", "'against' needs data that can be read twice"),
    ("fit .", "folder"),
    ("fit digits --model nice", "'model' should be one of 'glow'"),
    ("fit digits --columns a", "--columns is an option of tables"),
    ("fit digits --residual", "left out for glow: --residual is an option of"),
    ("fit digits --on-disk", "'on_disk' should be left out"),
    ("fit digits --condition-budget 9", "--condition-budget is an option of"),
    ("fit digits --patch 2", "--patch is an option of jet"),
    ("fit digits --model jet --hidden 2", "an option of glow and real_nvp"),
    ("fit digits --padding-scale 2", "'padding_scale' should be left out where"),
    ("fit digits --hidden 8 8", "'hidden' should be one number"),
    ("fit digits --levels 4", "'levels' should be at most 3"),
    ("fit digits --size 7", "should be even to be squeezed"),
    ("fit digits --steps 1.5", "--steps"),
    ("fit digits --logit 2", "'margin'"),
    ("fit faces --size 8 --hidden 99999999999", "this size"),
    ("sample RUN -n 3 b c", "'b c' is not an argument here"),
    ("sample no-run -n 3", "no-run"),
    ("sample RUN -n 0", "'n'"),
    ("sample RUN -n 2.5", "-n"),
    ("sample RUN -n 3 --seed -1", "'seed'"),
    ("sample RUN -n 3 --seed 9223372036854775808", "'seed'"),
    ("sample RUN -n 3 --temperature -1", "'temperature'"),
    ("sample RUN -n 3 --out samples.docx", ".csv"),
    ("sample RUN -n 3 --out nowhere/samples.csv", "nowhere"),
    ("sample RUN -n 3 --class a", "'class' should be left out"),
    ("sample RUN -n 3 --context TABLE", "'context' should be left out"),
    ("sample DIGITS -n 3", "'out' should end in .png"),
    ("sample DIGITS -n 3 --out .", "there already"),
    ("sample DIGITS -n 3 --out s.png --class 7", "'class' should be left out"),
    ("sample DIGITS -n 3 --out s.png --context x.csv", "'context' should be left out"),
    ("sample CLASSES -n 3 --out s.png --class violet", "one of blue, green, red"),
    ("sample RUN -n 3 --device tpu", "'device' should be \"cpu\" or \"cuda\", got 'tpu'."),
    ("score no-run magic", "no-run"),
    ("score RUN two.csv", "'c'"),
    ("score RUN TABLE --id a", "'id' should name a column that the run does not use"),
    ("score RUN TABLE --id kind --out s.npy", "the values of 'kind' are text"),
    ("score RUN TABLE --json", "'out' should be a file with 'json'"),
    ("score RUN TABLE --device cuda:7", "should exist on this machine, got cuda:7"),
    ("score RUN digits", "digits"),
    ("score DIGITS magic", "magic"),
    ("score DIGITS faces", "pixels of 17 values"),
    ("score DIGITS digits --id name", "'id' should be left out for images: it is for tables"),
    ("score DIGITS digits --repair drop", "'repair' should be left out for images"),
    ("score CLASSES digits", "'images' should have the classes of the run"),
    ("doctor no-run", "no-run"),
    ("doctor RUN --device tpu", "'device' should be"),
    ("doctor RUN --context a", "'context' is for a flow in code"),
    ("doctor RUN --into new", "'into' is an option of --fix"),
    ("doctor RUN --fix --epochs 0", "epochs"),
    ("doctor RUN --fix --into .", "'into' should be a new folder, . exists already"),
    ("doctor RUN --fix --into RUN/new", "'into' should be outside of"),
    ("doctor DIGITS digits --decimal .", "'decimal' should be left out for images"),
    ("doctor broken.py:make", "SyntaxError in line 3: invalid syntax"),
    ("doctor none.py:flow", "does not exist"),
    ("doctor nowhere.at_all:flow", "No module named"),
    ("doctor none.py:flow --out page.txt", "should end in .html"),
    ("doctor none.py:flow --out none/page.html", "there is no folder"),
    ("doctor CODE", ":NAME"),
    ("doctor CODE:", ":NAME"),
    ("doctor CODE:my-flow", ":NAME"),
    ("doctor CODE:missing", "has no 'missing'"),
    ("doctor CODE:broken", "raised ValueError in line 47: no such weights"),
    ("doctor CODE:leaving", "raised SystemExit in line 43"),
    ("doctor CODE:deeper", "raised TypeError in line 55: "),
    ("doctor CODE:sized", "TypeError: sized() missing 1 required positional argument"),
    ("doctor CODE:failing", "flows.py raised RuntimeError in line"),
    ("doctor CODE:unasked", "NotImplementedError. If it is not conditional, leave 'context'"),
    ("doctor CODE:doubling", "'x' should be given as a few rows"),
    ("doctor CODE:nothing", "got a tuple of tuple, int"),
    ("doctor CODE:math", "'flow' should be a Flow, a flow of zuko"),
    ("doctor CODE:healthy --select KF9", "'select' should be codes or prefixes"),
    ("doctor CODE:healthy --context c", "'context' names columns of DATA"),
    ("doctor CODE:healthy --fix", "'fix' changes runs only"),
    ("doctor CODE:healthy --device cpu", "should be left out for this flow"),
    ("doctor CODE:three small.csv", "has 'a', 'b', and without numbers 'kind'."),
    ("report no-run", "no-run"),
    ("factor nothing.npy", "no file 'nothing.npy'"),
    ("factor singular.npy", "'matrix' should be invertible"),
    ("factor wide.csv", "'matrix' should be square, got shape (2, 3)"),
    ("factor map.npy --couplings 2", "'couplings' should be larger"),
    ("factor map.npy --couplings 2.5", "--couplings"),
    ("factor map.npy --couplings few", '"fewest" or a whole number'),
    ("factor map.npy --partition third", '"half", "alternating" or a whole number'),
    ("factor map.npy --method rotation", "not a multiple of an"),
    ("factor map.npy --out c.npy", "'out' should end in .safetensors"),
    ("factor map.npy --report page.txt", "'report' should end in .html"),
    ("rewrite no-run --out new", "no-run"),
    ("rewrite RUN", "--out"),
    ("rewrite RUN --out mine", "'out' should be a new folder"),
    ("rewrite RUN --out new --partition 3", "'partition'"),
    ("rewrite RUN --out new --couplings 1", "'couplings'"),
    ("reproduce", "'experiment' should be one of linear-depth"),
    ("reproduce cats", "padding or all, got 'cats'"),
    ("reproduce padding --preset hours", "hours"),
    ("reproduce padding --seed -1", "'seed'"),
    ("reproduce all --config x.toml", "'config' should be left out for all"),
]


@pytest.fixture
def words(request, tmp_path, monkeypatch, table):
    """Returns a function that splits a command, in a folder of bad files."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    np.save("map.npy", np.eye(6)[::-1] + 0.1 * np.eye(6))
    np.save("singular.npy", np.ones((3, 3)))
    fixtures = {"RUN": "finished", "DIGITS": "digits_run", "CLASSES": "class_run", "CODE": "code"}

    def split(line):
        for name, fixture in {"TABLE": "table", **fixtures}.items():
            if name in line:
                line = line.replace(name, str(request.getfixturevalue(fixture)))
        of_fit = ["--quiet"] if line.startswith("fit") else []
        is_placed = "--out" in line or line == "fit -"
        return [*line.split(), *of_fit, *([] if is_placed or not of_fit else ["--out", "run"])]

    return split


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_what_cannot_be_done_is_refused_in_one_sentence(run, words, tmp_path, line, message):
    """With status 2; nothing is written where the command was given."""
    command = words(line)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    refused(run(*command), message)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    after = {path: time for path, time in after.items() if path.name != "__pycache__"}
    assert after == before


def test_a_message_names_flags_in_a_command_and_keywords_in_python(run, words):
    """Those of the function that was called, which takes them."""
    command = run(*words("fit constant.csv")).err
    with pytest.raises(DataError) as error:
        kf.fit_auto("constant.csv")
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


def test_a_finished_run_folder_is_not_given_to_other_data(run, table, finished, tmp_path):
    """Other rows or settings are refused with the difference; the folder is left as it was."""
    before = (finished / "result.json").read_bytes()
    words = (*AGAINST, *SMALL)
    other = tmp_path / "other.csv"
    shutil.copy(table, other)
    refused(run("fit", other, "--out", finished, *words), "data")
    refused(run("fit", table, "--out", finished, *words, "--learning-rate", 0.5), "learning_rate")
    assert (finished / "result.json").read_bytes() == before


def flipped(content):
    """The content with one bit near its end flipped."""
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


DAMAGED = [
    ("model.safetensors", lambda b: b[: len(b) // 2], "damaged or cut short"),
    ("model.safetensors", flipped, "digest"),
    ("config.json", (b'"format_version": 1', b'"format_version": 9'), "version"),
    ("config.json", (b'"format": ', b'"color": 3, "format": '), "color"),
    ("config.json", (b'"depth": 2', b'"depth": 3'), "digest"),
    ("config.json", (b'"a",\n      "b"', b'"b",\n      "a"'), "digest"),
    ("config.json", lambda b: b[:-20], "JSON"),
    ("result.json", (b'"verdict"', b'"verdikt"'), "verdict"),
    ("result.json", (b'_quantiles": [', b'_quantiles": ["x",'), "quantiles"),
    ("result.json", (b'"test":', b'"tset":'), "run the same fit again"),
    ("report.json", (b'"sigma_max"', b'"sigma_may"'), "sigma_ma"),
]


@pytest.mark.parametrize(("name", "change", "message"), DAMAGED)
def test_a_damaged_file_of_a_run_is_noticed_by_whoever_reads_it(
    run, finished, tmp_path, table, name, change, message
):
    """Cut short, bit-flipped, of another version, with an unknown key: never a wrong number."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    content = (copy / name).read_bytes()
    damaged = change(content) if callable(change) else content.replace(*change)
    assert damaged != content
    (copy / name).write_bytes(damaged)
    words = ("report", copy) if name == "report.json" else ("score", copy, table)
    refused(run(*words), message)
    if name == "model.safetensors":
        refused(run("fit", table, "--out", copy, *AGAINST, *SMALL), message)


def test_a_run_of_the_library_is_not_scored_by_the_command(run, tmp_path, table):
    """It stores no training scores, and running it again would not change that."""
    numbers = kf.load_table(table, columns=["a", "b", "c"])
    kf.fit(kf.real_nvp(3, depth=2, hidden=(4,)), numbers, max_epochs=1, out=tmp_path / "run")
    refused(run("score", tmp_path / "run", table), "made by kappaflow.fit")


def test_a_large_seed_is_a_seed(run, table, tmp_path):
    """Up to 63 bits."""
    assert run("fit", table, "--out", tmp_path / "run", *SMALL, "--seed", 2**63 - 1).status == 0


FAILED = [
    ("sample RUN -n 3 --out s.csv", "No space left"),
    ("fit TABLE --learning-rate 1e9 --depth 2 --hidden 8 --max-epochs 2", "finite"),
]


@pytest.mark.parametrize(("line", "message"), FAILED)
def test_a_failure_has_status_1(run, words, tmp_path, monkeypatch, line, message):
    """The command was right; no result is passed off as one."""
    command = words(line)
    if "space" in message:
        monkeypatch.setattr(os, "fsync", _full)
    outcome = run(*command)
    assert outcome.status == 1 and message in outcome.err
    assert not (tmp_path / "s.csv").exists() and not (tmp_path / "run/result.json").exists()


def _full(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_page_that_fails_does_not_take_the_couplings_along(run, words, tmp_path, monkeypatch):
    """They are written first; the failure has a sentence and no half page."""
    monkeypatch.setattr(page, "trade_off", _full)
    outcome = run(*words("factor map.npy --out c.safetensors --report p.html"))
    assert outcome.status == 1 and "No space left" in outcome.err
    assert (tmp_path / "c.safetensors").exists() and not (tmp_path / "p.html").exists()


def test_one_absurd_outlier_is_reported_the_same_way_twice(run, tmp_path):
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


def test_the_flow_of_an_unfinished_run_is_not_passed_off_as_final(run, finished, table, tmp_path):
    """Samples and diagnosis come with a remark on stderr; scores wait for the end."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "result.json").unlink()
    for words in (("sample", copy, "-n", 1), ("doctor", copy)):
        outcome = run(*words)
        assert outcome.status == 0 and "not finished" in outcome.err
    assert "not finished" not in run("sample", finished, "-n", 1).err
    refused(run("score", copy, table), "run the same fit again")
    assert read(finished, "result.json")["ok"]
