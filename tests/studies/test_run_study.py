"""The engine of experiments: cases that are kept, side by side, interrupted, and their folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from kappaflow.errors import ArgumentError, FileError, NumericalError
from kappaflow_studies import run_study
from kappaflow_studies.engine.report import StudyReport
from kappaflow_studies.engine.run import key_of, read_measured
from studies.powers import MEASURED, powers

WORKER = Path(__file__).with_name("slow_study.py")


@pytest.fixture
def study(tmp_path):
    """The study of powers, not yet measured."""
    MEASURED.clear()
    return powers(tmp_path)


@pytest.mark.slow
def test_a_folder_has_results_figures_numbers_and_a_page(study, tmp_path):
    """The raw results carry the columns of their case; figures are the same bytes each time."""
    out = tmp_path / "out"
    done = run_study(study, out, processes=1, progress=False)
    run_study(study, tmp_path / "again", processes=1, progress=False)
    assert {path.name for path in out.iterdir()} == {
        "config.json", "cases.jsonl", "results.parquet", "report.json", "index.html", "figures",
    }  # fmt: skip
    frame = pl.read_parquet(out / "results.parquet")
    assert frame.drop("case_time_s").rows() == [
        (2, 2.0, 0, 4.0, [1.0, 2.0]),
        (3, 2.0, 0, 9.0, [1.0, 2.0]),
    ]
    figures = {path.name: path.read_bytes() for path in (out / "figures").iterdir()}
    assert set(figures) == {"powers.svg", "powers.png", "heat.svg", "heat.png"}
    for name, content in figures.items():
        assert (tmp_path / "again" / "figures" / name).read_bytes() == content
    report = StudyReport.model_validate_json((out / "report.json").read_text())
    assert report.model_dump() == done.report.model_dump()
    assert report.cases == 2 and ("numbers", "2, 3") in report.settings
    assert report.findings.found == ["The largest power is 9."]
    page = (out / "index.html").read_text()
    body = page[: page.index("<script>")]
    assert set(re.findall(r'data-figure="([^"]+)"', body)) == {"powers", "heat"}
    assert "Nothing &lt;i&gt;differs&lt;/i&gt;." in body and "<b>power" not in page
    assert "Powers grow." in body and not re.search(r'(src|href)="(?!data:|#)', body)


@pytest.mark.slow
def test_measured_cases_are_not_measured_again(study, tmp_path):
    """A larger preset continues a smaller one; another seed is another case."""
    out = tmp_path / "out"
    message = []
    run_study(study, out, processes=1, progress=False)
    MEASURED.clear()
    run_study(study, out, preset="full", processes=1, progress=False, say=message.append)
    assert [case["number"] for case in MEASURED] == [5]
    assert message == ["2 of 3 cases are already measured"]
    assert pl.read_parquet(out / "results.parquet")["number"].to_list() == [2, 3, 5]
    MEASURED.clear()
    run_study(study, out, seed=1, processes=1, progress=False)
    assert [case["seed"] for case in MEASURED] == [1, 1]
    assert pl.read_parquet(out / "results.parquet")["seed"].to_list() == [1, 1]


def test_a_failure_names_the_case_and_keeps_what_was_done(study, tmp_path):
    """The same command resumes there."""
    config = tmp_path / "mine.toml"
    config.write_text("numbers = [2, 13, 3]")
    out = tmp_path / "out"
    with pytest.raises(NumericalError, match="the case number 13, exponent 2.0, seed 0 failed"):
        run_study(study, out, config=config, processes=1, progress=False)
    assert len(read_measured(out / "cases.jsonl")) == 1
    assert not (out / "results.parquet").exists()


def test_a_line_that_was_cut_short_is_measured_again(study, tmp_path):
    """A damaged file is refused and not changed."""
    out = tmp_path / "out"
    run_study(study, out, processes=1, progress=False)
    path = out / "cases.jsonl"
    complete = path.read_bytes()
    path.write_bytes(complete[:-5])
    MEASURED.clear()
    run_study(study, out, processes=1, progress=False)
    assert [case["number"] for case in MEASURED] == [3]
    assert [json.loads(line)["case"]["number"] for line in path.read_text().splitlines()] == [2, 3]
    path.write_bytes(b"nonsense\n" + complete)
    with pytest.raises(FileError, match="damaged"):
        run_study(study, out, processes=1, progress=False)
    assert path.read_bytes() == b"nonsense\n" + complete


@pytest.mark.slow
def test_settings_come_from_a_file_or_from_an_earlier_folder(study, tmp_path):
    """TOML with the fields, or config.json."""
    config = tmp_path / "mine.toml"
    config.write_text("numbers = [7]\nexponents = [3.0]")
    first, second = tmp_path / "first", tmp_path / "second"
    for settings, out in ((config, first), (first / "config.json", second)):
        report = run_study(study, out, config=settings, processes=1, progress=False).report
        assert report.findings.found == ["The largest power is 343."]
        assert report.preset == settings.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("numbers = [1.5]", "'numbers.0' is wrong"),
        ("exponents = [1.5]", "'numbers' is wrong (field required)"),
        ("numbers = [1]\nroots = 3", "'roots' is wrong"),
        ("numbers = ", "neither TOML nor JSON"),
        ("numbers = [1979-05-27]", "plain values"),
    ],
)
def test_wrong_settings_are_refused_by_name(study, tmp_path, text, message):
    """In one sentence, and nothing is written."""
    config = tmp_path / "mine.toml"
    config.write_text(text)
    with pytest.raises((ArgumentError, FileError)) as caught:
        run_study(study, tmp_path / "out", config=config, progress=False)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(study, tmp_path):
    """Of another study, of a run of fit; a file is not a folder."""
    out = tmp_path / "out"
    out.mkdir()
    for content, message in (
        ('{"experiment": "roots"}', "of roots"),
        ('{"model": 3}', "of a fit"),
    ):
        (out / "config.json").write_text(content)
        with pytest.raises(ArgumentError, match=f"is one {message}"):
            run_study(study, out, progress=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArgumentError, match="is a file"):
        run_study(study, tmp_path / "file", progress=False)
    for wrong in ({"preset": "hours"}, {"processes": 0}, {"seed": -1}):
        with pytest.raises(ArgumentError, match=f"'{next(iter(wrong))}'"):
            run_study(study, tmp_path / "new", progress=False, **wrong)


def test_the_key_of_a_case_is_its_values():
    """Whatever their order; another value is another case."""
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


def hears_control_c():
    """Enables Ctrl-C, which shells disable for background processes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(out, allowed):
    """Returns a process that measures some cases in two others, and waits before the rest.

    What it says goes to a file.
    """
    (out.parent / "allowed").write_text(str(allowed))
    with (out.parent / "message").open("w") as message:
        return subprocess.Popen(
            [sys.executable, WORKER, out], stderr=message, preexec_fn=hears_control_c
        )


def wait_for(condition, seconds=600):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def lines_of(out):
    """Returns the number of stored cases."""
    path = out / "cases.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def pids_of(out):
    """Returns the processes that measured a case."""
    return [int(path.name.partition("-")[2]) for path in out.parent.glob("pid-*")]


def is_alive(pid):
    """Returns whether a process runs and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_killed_study_resumes_and_leaves_no_process(tmp_path):
    """By a kill, then by Ctrl-C; measured cases are kept."""
    out = tmp_path / "out"
    for number, kill in enumerate((signal.SIGKILL, signal.SIGINT), 1):
        allowed, both = 2 * number, 2 * number
        process = started(out, allowed)
        wait_for(lambda n=allowed, m=both: lines_of(out) == n and len(pids_of(out)) == m)
        process.send_signal(kill)
        process.wait(600)
        assert lines_of(out) == allowed and len(pids_of(out)) == both
        wait_for(lambda: not any(map(is_alive, pids_of(out))))
    again = started(out, 8)
    assert again.wait(600) == 0, (tmp_path / "message").read_text()
    assert lines_of(out) == 8
    numbers = pl.read_parquet(out / "results.parquet")["number"].to_list()
    assert numbers == list(range(8))


@pytest.mark.slow
def test_a_killed_process_is_reported(tmp_path):
    """Measured cases are kept."""
    out = tmp_path / "out"
    process = started(out, 1)
    wait_for(lambda: lines_of(out) == 1)
    os.kill(pids_of(out)[0], signal.SIGKILL)
    assert process.wait(600) == 3
    assert "a process was killed while it measured" in (tmp_path / "message").read_text()
    assert lines_of(out) >= 1
