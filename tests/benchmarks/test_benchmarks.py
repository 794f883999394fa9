"""The suite runs end to end on a tiny grid, and its page says what the results say."""

import copy
import importlib
import json
import re
import subprocess
import sys

import pytest

from abacus import MACHINE, ROOT


def figures(to_floor, to_products=2.0):
    """Returns the figures of one quantity."""
    return {"median_ms": 100 * to_floor, "to_floor": to_floor, "to_products": to_products}


def timed(to_floor, **facts):
    """Returns a row whose ratios are all the same."""
    quantities = ("train_step", "forward_backward", "log_prob", "sample")
    return {"parameters": 10, **{name: figures(to_floor) for name in quantities}, **facts}


def line_of(group, **rows):
    """Returns a line of speed.json at the reference setting."""
    return {"group": group, "depth": 128, "batch": 512, "rows": rows}


RESULTS = {
    "speed": {
        "preset": "full",
        "machine": MACHINE,
        "descriptions": {"kappaflow, recompute": "ours", "zuko, SiLU": "theirs"},
        "lines": [
            line_of(
                "kappaflow",
                **{
                    "matrix products alone": {"forward_backward": figures(0.65)},
                    "conditioners alone (floor)": timed(1.0),
                    "kappaflow, recompute": timed(1.01),
                    "kappaflow, store": timed(0.89),
                    "kappaflow, any module, invert": timed(1.5),
                    "kappaflow, invert": {"error": "ArgumentError: no such mode"},
                },
            ),
            line_of(
                "kappaflow without the native backend",
                **{
                    "kappaflow, store, without the native backend": timed(1.07),
                    "kappaflow, recompute, without the native backend": timed(1.2),
                },
            ),
            line_of("zuko", **{"zuko, SiLU": timed(2.0, finite_share=0.5)}),
        ],
    },
    "memory": {
        "machine": MACHINE,
        "lines": [
            {"row": name, "depth": depth, "batch": 512, "peak_bytes": peak, "kept_bytes": kept}
            for name, depth, peak, kept in (
                ("kappaflow, recompute", 128, 20e6, 1e6 + 128 * 65536),
                ("kappaflow, recompute", 512, 50e6, 1e6 + 512 * 65536),
                ("kappaflow, invert", 512, 29e6, 1e6),
            )
        ],
    },
    "gradients": {
        "machine": MACHINE,
        "lines": [
            {
                "depth": 32,
                "last_layers": 1.0,
                "scale_bound": 12.0,
                "condition_number": 1e4,
                "errors": {"store": error, "invert": None},
                "warned": {"invert": "not to be trusted"},
            }
            for error in (1e-6, 2e-6, 5e-6)
        ],
    },
    "spectra": {
        "lines": [
            {"dimensions": 3072, "condition_number": 30.0, "time_s": 1.0, "time_ratio": 25.0},
            {"dimensions": 12288, "condition_number": 40.0, "time_s": 2.5},
        ]
    },
}


@pytest.fixture
def writer(benchmark):
    """Returns the module that writes the page, found from wherever the tests are started."""
    return benchmark("page")


def cells(text, start):
    """Returns the cells of the line of a table that starts with a name."""
    lines = [line.split(" | ") for line in text.splitlines()]
    found = next(line for line in lines if line[0].startswith(f"| {start}"))
    return [cell.strip("| ") for cell in found]


def test_the_first_table_sets_what_was_reached_beside_what_was_aimed_at(writer):
    """Every figure of the table comes from the results."""
    text = writer.couplings_page(RESULTS)
    assert cells(text, "the same without")[2] == (
        "1.07 in store (2.00 times products alone), 1.20 in recompute (2.00 times products alone)"
    )
    assert cells(text, "forward + backward as installed")[2] == (
        "0.89 in store (2.00 times products alone), 1.01 in recompute (2.00 times products alone)"
    )
    assert cells(text, "with any module")[2] == "1.50 in invert (2.00 times products alone)"
    assert cells(text, "log_prob and sample")[2] == (
        "1.01 and 1.01 with the native backend, 1.20 and 1.20 without"
    )
    assert cells(text, "activations kept")[2].startswith("65,536 bytes a layer")
    assert cells(text, "peak memory at depth 512")[2] == "29 MB in invert, 50 MB in recompute"
    assert cells(text, "largest and smallest")[2] == "25 times (condition number 30)"
    assert cells(text, "both in 12,288")[2] == "2.5 s (condition number 40)"


def test_the_page_names_the_machine_and_what_did_not_run(writer):
    """And marks a flow that is not finite, and a mode that warned."""
    text = writer.couplings_page(RESULTS)
    assert "An abacus, 2 cores, torch on 1 thread" in text
    assert "with the native backend ([versions](benchmarks.md#machines))" in text
    machines = writer.machines_table(RESULTS)
    assert cells(machines, "An abacus")[1] == "speed, memory, gradients"
    assert "torch 2.13.0" in machines
    assert "kappaflow, invert did not run: ArgumentError: no such mode" in text
    assert cells(text, "zuko, SiLU")[0] == "zuko, SiLU †"
    assert cells(text, "1.0e+04")[1:] == ["2e-06 (5e-06)", "not finite (not finite) ‡"]


def test_a_part_that_was_not_measured_leaves_its_section_out(writer):
    """Its targets say so."""
    speed = copy.deepcopy(RESULTS["speed"])
    speed["machine"]["native"] = False
    text = writer.couplings_page({"speed": speed})
    assert "without the native backend" in text
    assert cells(text, "forward + backward as installed")[2] == "not measured"
    assert "## Memory" not in text
    assert cells(text, "peak memory at depth 512")[2] == "not measured"


def test_training_to_a_likelihood_is_compared_with_the_best_other_library(writer):
    """Which may not be the fastest one to its own likelihood; medians of the seeds count."""
    curves = {
        "kappaflow, recompute": [(0.0, 9.0), (1.0, 3.0), (2.0, 2.0), (3.0, 0.5)],
        "zuko": [(0.0, 8.0), (1.0, 5.0), (2.0, 4.0), (3.0, 3.5)],
        "FrEIA": [(0.0, None), (1.0, 4.0), (2.0, 2.5), (3.0, 2.6)],
    }
    lines = [
        {
            "row": row,
            "table": "magic",
            "seed": seed,
            "curve": [(t, nll and nll + shift) for t, nll in curve],
            "steps": 30 * len(row),
            "features": 10,
            "rows": 1000,
        }
        for row, curve in curves.items()
        for seed, shift in enumerate((0.0, 0.0, 0.4))
    ]
    results = {"reaching": {"machine": MACHINE, "seconds": 3.0, "lines": lines}}
    text = writer.couplings_page(results)
    every, best = [line for line in text.splitlines() if line.startswith("| magic (1,000 x 10)")]
    assert every.split(" | ")[1:] == ["3.500", "1.0", "3.0", "2.0", "2.0 |"]
    assert best.split(" | ")[1:] == ["2.500", "2.0", "not", "2.0", "1.0 |"]
    assert cells(text, "steps a second")[1:] == ["200", "40", "50"]
    assert cells(text, "training to a likelihood")[2] == "2.0; 1.0 times"


def test_every_command_in_the_documentation_exists(benchmark):
    """And each table of the first page has one."""
    commands = benchmark("__main__").COMMANDS
    pages = {path: path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md")}
    command = re.compile(r"-m\s+benchmarks\s+([a-z-]+)")
    named = {name for text in pages.values() for name in command.findall(text)}
    assert "write-page" in named and named <= commands.keys()
    sections = pages[ROOT / "docs" / "benchmarks.md"].split("\n## ")[1:-1]  # all but the machines
    for section in sections:
        assert section.count("| --- |") == section.count("`python -m benchmarks"), section


def test_the_rows_of_a_missing_library_are_left_out_with_a_line(writer, monkeypatch, capsys):
    """The line says what to install."""
    suite = importlib.import_module("benchmarks.suite")
    rows = importlib.import_module("benchmarks.row")
    monkeypatch.setattr(rows.Row, "installed", property(lambda row: row.package == "kappaflow"))
    present = suite._present_rows("speed", None)
    assert {row.package for row in present} == {"kappaflow"}
    said = capsys.readouterr().err
    assert "zuko is not installed" in said
    assert "pip install --group bench" in said


@pytest.mark.slow
def test_growth_is_drawn_from_its_results(benchmark, writer, tmp_path):
    """A line for each library, and none for what was not measured."""
    module = benchmark("growth")
    shapes = [shape for axis in module.AXES for _, shape in module.along(axis)]
    lines = [
        {**vars(shape), "row": name, "train_step": {"median_ms": shape.depth * factor}}
        for shape in shapes
        for name, factor in (("kappaflow, recompute", 0.5), ("zuko", 2.0))
    ]
    (tmp_path / "growth.json").write_text(json.dumps({"machine": MACHINE, "lines": lines}))
    writer.write_page(folder=tmp_path, docs=tmp_path)
    assert "(images/benchmarks-growth.svg)" in (tmp_path / "benchmarks-couplings.md").read_text()
    assert (tmp_path / "images" / "benchmarks-growth.svg").stat().st_size > 1000
    depth = module.growth_chart({"lines": lines}).panels[0]
    found = {series.name: series.y for series in depth.series}
    assert found == {"kappaflow": [2.0, 8.0, 32.0, 128.0], "zuko": [8.0, 32.0, 128.0, 512.0]}


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
    text = (tmp_path / "benchmarks-ablation.md").read_text()
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
    text = writer.couplings_page(writer.read_results(tmp_path))
    assert "steps a second" in text and "How the time of a training step grows" in text


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
    assert len(pages) == len(writer.PAGES)  # with the first page, without that of a GPU
    for page in pages:
        assert page.read_text("utf-8") == (ROOT / "docs" / page.name).read_text("utf-8")
