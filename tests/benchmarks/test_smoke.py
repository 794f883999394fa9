"""Each measurement runs end to end at a tiny size, and its figures reach the page."""

import json
import time

import numpy as np
import pytest
import torch

OURS = "kappaflow, recompute"
GLOW = "kappaflow glow, recompute"
# The options of a command, and what its page then shows.
COMMANDS = {
    "ablation.ablation": (
        {"steps": 3, "seeds": 1, "depths": [2], "tables": ["magic"]},
        ["couplings", "3 on magic", "| 0.01 | 2 | no bound |"],
    ),
    "doctor.doctor": (
        {"threads": 1, "repetitions": 1, "small": True},
        ["measuring", "| couplings | 64 |"],
    ),
    "energies.energies": ({"steps": 10, "seeds": 1}, ["measuring", "| broken, annealed |"]),
    "factor.factor": (
        {"rows": ["rotations"], "draws": 1, "threads": 1},
        ["measuring", "orthogonal"],
    ),
    "images.images": (
        {
            "parts": ["speed"],
            "batch": 2,
            "steps": 1,
            "hidden": 4,
            "threads": 1,
            "repetitions": 2,
            "rows": [GLOW],
        },
        ["images", GLOW],
    ),
    "images_spectra.image_spectra": (
        {"sides": (4,), "matrix_free": (8,), "profiled": (1,), "hidden": 2},
        ["images", "| 3 x 4 x 4 |"],
    ),
    "reaching.reaching": (
        {"seconds": 0.3, "seeds": 1, "tables": ["magic"], "rows": [OURS, "normflows"]},
        ["couplings", "normflows"],
    ),
    "sigma_min.sigma_min": (
        {"features": (4,), "condition_numbers": (1e7,), "seeds": 1},
        ["measuring", "| 32 couplings | 1e+07 |"],
    ),
    "splines.splines": (
        {"widths": (8,), "repetitions": 2, "depth": 2, "batch": 16},
        ["couplings", "| zuko, couplings |"],
    ),
    "suite.spectra": ({"dimensions": [8], "matrix_free": [16]}, ["couplings", "\n| 16 | "]),
}


@pytest.fixture
def threads():
    """Gives back torch's number of threads, which some commands set."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run_to_page(benchmark, name, options, folder):
    """Runs a command into a folder, writes the pages there, and returns its results."""
    module, function = name.split(".")
    command = getattr(benchmark(module), function)
    file = folder / command.__kwdefaults__["file"].name
    command(**options, file=file)
    benchmark("page").write_page(folder=folder, docs=folder)
    return json.loads(file.with_suffix(".json").read_text())["lines"]


def text_of(folder, page):
    """Returns the text of a page."""
    return (folder / f"benchmarks-{page}.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@pytest.mark.filterwarnings("ignore:Inputs to the softmax:UserWarning")  # of nflows
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_runs_to_its_page(benchmark, tmp_path, name):
    """Its page shows what was measured."""
    options, (page, *expected) = COMMANDS[name]
    assert run_to_page(benchmark, name, options, tmp_path)
    assert all(part in text_of(tmp_path, page) for part in expected)


@pytest.mark.usefixtures("threads")
@pytest.mark.filterwarnings("ignore")  # of libraries that are imported
def test_times_of_our_rows_run_to_their_page(benchmark, tmp_path, monkeypatch):
    """Two couplings, eight points, two repetitions; the floor has as many parameters."""
    tasks = benchmark("worker").TASKS
    here = lambda job, _: {"result": tasks[job.task](**job.arguments), "machine": {}}  # noqa: E731
    monkeypatch.setattr(benchmark("processes"), "_run_one", here)
    options = {"groups": ["kappaflow"], "depths": [2], "batches": [8], "threads": 1}
    (line,) = run_to_page(benchmark, "suite.speed", {**options, "repetitions": 2}, tmp_path)
    row = line["rows"]["kappaflow, store"]
    assert row["parameters"] == line["rows"]["conditioners alone (floor)"]["parameters"]
    assert "| kappaflow, store |" in text_of(tmp_path, "couplings")


@pytest.mark.slow
def test_growth_runs_to_its_picture(benchmark, tmp_path, monkeypatch):
    """One shape."""
    module = benchmark("growth")
    monkeypatch.setattr(module, "AXES", {"depth": ("depth (couplings)", (2,))})
    monkeypatch.setattr(module, "SHOWN", {OURS: 0})
    run_to_page(benchmark, "growth.growth", {"seconds": 0.01, "threads": 1}, tmp_path)
    assert (tmp_path / "images" / "benchmarks-growth.svg").stat().st_size > 1000


@pytest.mark.slow
def test_verdicts_are_compared_with_the_truth(benchmark, tmp_path, monkeypatch):
    """One small table; its runs are not trained again."""
    module = benchmark("verdict")
    monkeypatch.setattr(module, "MODERATE_S", 1.0)
    monkeypatch.setattr(module, "GOOD_S", 1.0)
    for _ in range(2):
        module.verdict(only=["banana, 500 rows"], fits=tmp_path / "fits", results=tmp_path)
    lines = json.loads((tmp_path / "verdict.json").read_text())["lines"]
    assert [line["fit"] for line in lines] == ["bad", "moderate", "good"]
    assert lines[0]["kl"] > 0.5 and lines[0]["level"] == "bad"
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    assert "| banana, 500 rows | development | 500 | " in (tmp_path / "verdict.md").read_text(
        "utf-8"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Inputs to the softmax:UserWarning")
def test_scores_of_a_large_table_run_to_their_page(benchmark, tmp_path, monkeypatch):
    """Few rows, one of ours and another, which is stopped at once."""
    module = benchmark("score_stream")
    monkeypatch.setattr(module, "OURS", module.OURS[:1])
    monkeypatch.setattr(module, "KINDS", (*module.OURS, "zuko, NSF"))
    options = {"rows": 21_000, "depth": 2, "width": 8, "at_most_s": 0}
    lines = run_to_page(benchmark, "score_stream.score_stream", options, tmp_path)
    rows = {line["kind"]: line["rows"] for line in lines if "kind" in line}
    assert rows == {"kappaflow score, real_nvp": 21_000, "zuko, NSF": 4096}
    assert "zuko, NSF (4,096 rows)" in text_of(tmp_path, "measuring")


@pytest.mark.slow
def test_a_comparison_on_tables_runs_and_resumes(benchmark, tmp_path, monkeypatch, ticking):
    """Two seconds of each model on a generated table, where a step takes a fiftieth."""
    pytest.importorskip("sklearn")
    pytest.importorskip("zuko")
    command, data = benchmark("tables_suite.command"), benchmark("tables_suite.data")
    x = np.random.default_rng(0).normal(size=(1500, 2))
    rows = np.stack([x[:, 0], x[:, 0] ** 2 + 0.3 * x[:, 1]], 1)
    parts = data.Parts(rows[:1200], rows[1200:1350], rows[1350:], ("x", "y"))
    monkeypatch.setattr(data, "load", lambda name: parts)

    def measured_in_this_process(measure, jobs, cache, at_once):
        yield from (measure(job, cache) for job in jobs)

    monkeypatch.setattr(command, "_measured", measured_in_this_process)
    ticking(0.02)
    monkeypatch.setattr(benchmark("tables_suite.peers"), "process_time", time.process_time)
    options = {"seconds": 2.0, "only": ["magic"], "results": tmp_path, "cache": tmp_path}
    command.tables(**options)
    file = tmp_path / "tables-development.jsonl"
    before = file.read_text()
    lines = {line["model"]: line for line in map(json.loads, before.splitlines()[1:])}
    assert tuple(lines) == command.MODELS
    for model, line in lines.items():
        assert line["test"] is not None and line["processor_s"] < 4, model
    assert lines["zuko NSF, fair"]["test"] < lines["Gaussian"]["test"] - 0.3
    command.tables(**options)
    assert file.read_text() == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_posteriors_run_to_their_page_and_resume(benchmark, tmp_path, monkeypatch):
    """Of a normal with a known posterior, without the package."""
    pytest.importorskip("sbi")
    module, task = benchmark("posteriors"), benchmark("posterior_tasks").Task
    monkeypatch.setattr(task, "observation", lambda *_: torch.zeros(1, 10))
    monkeypatch.setattr(task, "reference", lambda *_: 0.05**0.5 * torch.randn(400, 10))
    monkeypatch.setattr(module, "package_folder", lambda: None)
    monkeypatch.setattr(module, "SECONDS", {300: 3.0})
    options = {"observations": 1, "folds": 1, "only": ["gaussian_linear"], "results": tmp_path}
    for _ in range(2):
        module.posteriors(estimators=["kappaflow", "sbi maf"], **options)
    ours, theirs = json.loads((tmp_path / "posteriors.json").read_text())["lines"]
    assert ours["c2st"][0] < 0.85 and -1 < ours["reference_nll"][0] < 3
    assert 1 < ours["condition_p95"][0] < 10 and theirs["inside"] == 10 * [1]
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    assert "| gaussian_linear | 0." in text_of(tmp_path, "measuring")


@pytest.mark.slow
def test_known_densities_run_to_their_page(benchmark, tmp_path, monkeypatch):
    """Logarithms of lognormal columns are normal. A second run trains nothing."""
    here = lambda measure, jobs, cache, at_once: (measure(job, cache) for job in jobs)  # noqa: E731
    monkeypatch.setattr(benchmark("tables_suite.command"), "_measured", here)
    options = {"only": ["wide and moving, 2,000 rows", "lognormal 3"], "results": tmp_path}
    for _ in range(2):
        benchmark("known").known(
            models=["mixture, validated", "boosted"], cache=tmp_path, **options
        )
    lines = [*map(json.loads, (tmp_path / "known-known.jsonl").read_text().splitlines())]
    assert [line["test"] < 0.02 for line in lines if "test" in line] == [False, False, True]
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    assert "| wide and moving, 2,000 rows | " in (tmp_path / "benchmarks-known.md").read_text(
        "utf-8"
    )


@pytest.mark.slow
def test_depth_on_real_data_runs_to_its_page(benchmark, tmp_path, monkeypatch):
    """A table and images; the judged grid has two numbers of steps; and pruning."""
    x = np.random.default_rng(0).normal(size=(400, 3))
    parts = benchmark("tables_suite.data").Parts(x[:240], x[240:320], x[320:], ("a", "b", "c"))
    monkeypatch.setattr(benchmark("tables_suite.data"), "load", lambda name: parts)
    measure = benchmark("depth_on_real_data").depth_on_real_data
    monkeypatch.setattr(benchmark("depth_on_real_data"), "DEPTHS", (2, 4, 8))
    file = tmp_path / "depth-development.jsonl"
    measure(only=["forbes", "digits"], steps=4, results=tmp_path)
    for steps in (4, 8):
        judged = {"part": "judged", "models": ["spline"], "partitions": ["random"]}
        measure(**judged, steps=steps, only=["nox"], results=tmp_path)
    benchmark("pruning").pruning(seconds=1, only=["forbes"], results=tmp_path)
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    page = text_of(tmp_path, "depth")
    assert "| forbes | spline | " in page and "| mixing | 4 | " in page
    assert "on 1 of 1 tables" in page and "| forbes | affine | 16 -> " in page
    measured = [line for line in file.read_text().splitlines() if '"table"' in line]
    measure(only=["forbes"], steps=4, results=tmp_path)
    assert [line for line in file.read_text().splitlines() if '"table"' in line] == measured
