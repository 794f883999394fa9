"""The benchmarks run end to end on a tiny grid, and their pages are those of the results."""

import importlib
import json
import re
import subprocess
import sys

import pytest

from abacus import ROOT


@pytest.fixture
def writer(benchmark):
    """Returns the module that writes the page, found from wherever the tests are started."""
    return benchmark("page")


def test_every_command_in_the_documentation_exists(benchmark):
    """So a reader can make each figure; decisions name commands of their time."""
    commands = benchmark("__main__").COMMANDS
    pages = {
        path: path.read_text("utf-8")
        for path in (ROOT / "docs").rglob("*.md")
        if path.parent.name != "decisions"
    }
    command = re.compile(r"-m\s+benchmarks\s+([a-z-]+)\b(?![^`]*`\s+of\s+commit)")
    named = {name for text in pages.values() for name in command.findall(text)}
    assert "write-page" in named and named <= commands.keys()


def test_the_rows_of_a_missing_library_are_left_out_with_a_line(writer, monkeypatch, capsys):
    """The line says what to install."""
    suite = importlib.import_module("benchmarks.suite")
    rows = importlib.import_module("benchmarks.row")
    monkeypatch.setattr(rows.Row, "installed", property(lambda row: row.package == "kappaflow"))
    present = suite._present_rows("speed", None)
    assert {row.package for row in present} == {"kappaflow"}
    message = capsys.readouterr().err
    assert "zuko is not installed" in message
    assert "pip install --group bench" in message


@pytest.mark.slow
def test_starts_and_bounds_of_tiny_flows_run_end_to_end(benchmark, writer, tmp_path):
    """Each of twelve trainings has a line; a second run finds all of them done."""
    module = benchmark("ablation")
    file = tmp_path / "ablation.jsonl"
    for _ in range(2):
        module.ablation(steps=3, seeds=1, depths=[2], file=file)
    results = json.loads(file.with_suffix(".json").read_text())
    assert len(results["lines"]) == 12 == len(file.read_text().splitlines()) - 1
    assert all(line["steps"] == 3 and line["new_finite"] == 1 for line in results["lines"])
    writer.write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-couplings.md").read_text()
    assert "--seeds 1 --depths 2\n" in text
    assert len([line for line in text.splitlines() if line.startswith("| 2 |")]) == 6


@pytest.mark.slow
def test_tiny_growth_and_training_to_a_likelihood_run_end_to_end(benchmark, writer, tmp_path):
    """One shape, and two libraries on one table; then the page."""
    growth, reaching = benchmark("growth"), benchmark("reaching")
    axes = {"depth": ("depth (couplings)", (2,))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growth, "AXES", axes)
        patch.setattr(growth, "SHOWN", {"kappaflow, recompute": 0})
        growth.growth(seconds=0.01, threads=1, file=tmp_path / "growth.json")
    rows = ["kappaflow, recompute", "normflows"]
    reaching.reaching(
        seconds=0.3, seeds=1, tables=["magic"], rows=rows, file=tmp_path / "reaching.json"
    )
    lines = json.loads((tmp_path / "reaching.json").read_text())["lines"]
    assert [line["row"] for line in lines] == rows and all(line["steps"] for line in lines)
    writer.write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-couplings.md").read_text()
    assert "steps a second" in text and "(images/benchmarks-growth.svg)" in text
    assert (tmp_path / "images" / "benchmarks-growth.svg").stat().st_size > 1000


def test_a_tiny_benchmark_of_our_rows_runs_end_to_end(writer, tmp_path):
    """Two couplings, eight points, two repetitions; then its page."""
    tiny = "--groups=kappaflow --depths=2 --batches=8 --repetitions=2 --threads=1".split()
    command = [sys.executable, "-m", "benchmarks", "speed", *tiny]
    subprocess.run([*command, f"--json={tmp_path / 'speed.json'}"], cwd=ROOT, check=True)
    (line,) = json.loads((tmp_path / "speed.json").read_text())["lines"]
    row = line["rows"]["kappaflow, store"]
    assert row["parameters"] == line["rows"]["conditioners alone (floor)"]["parameters"]
    assert row["forward_backward"]["repetitions"] == 2
    writer.write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-couplings.md").read_text()
    assert "| kappaflow, store |" in text and "Each row has 57,984 parameters." in text


@pytest.mark.slow
def test_tiny_spectra_run_end_to_end(benchmark, writer, tmp_path):
    """Both flows of eight dimensions, and one without a reference; then the page."""
    file = tmp_path / "spectra.json"
    benchmark("suite").spectra(dimensions=[8], matrix_free=[16], file=file)
    mild, ill, free = json.loads(file.read_text())["lines"]
    assert mild["error_min"] < 1e-4 and mild["time_ratio"] > 0
    assert ill["condition_number"] > 1e12 and "error_min" not in free
    writer.write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-couplings.md").read_text()
    assert text.count("\n| 8 | ") == 2 and "\n| 16 | " in text


def test_the_pages_in_the_docs_are_those_of_the_committed_results(writer, tmp_path):
    """If this fails, run python -m benchmarks write-page."""
    writer.write_page(docs=tmp_path)
    pages = sorted(tmp_path.glob("*.md"))
    assert {page.name for page in pages} == set(writer.PAGES)
    for page in pages:
        assert page.read_text("utf-8") == (ROOT / "docs" / page.name).read_text("utf-8")
