"""Flows that are given the same time: what is tuned is trained, the page says what was found."""

import json

import numpy as np
import pytest

from abacus import MACHINE


def line_of(family, test, *, seed=0, validation=1.0, seconds=60.0, condition=100.0):
    """Returns a line of a training on MAGIC."""
    return {
        "table": "magic",
        "family": family,
        "model": "spline" if family == "kappaflow" else "zuko:maf",
        "depth": 8,
        "width": 64,
        "options": "",
        "learning_rate": 5e-3,
        "seed": seed,
        "seconds": seconds,
        "epochs": 12,
        "time_s": 59.2,
        "parameters": 12_345,
        "failed": None,
        "validation": validation,
        "test": test,
        "test_error": 0.031,
        "condition_number_median": 20.0,
        "condition_number_p95": condition,
    }


def finals(ours=3.9):
    """Returns two trainings of each family, and one of the tuning."""
    others = [line_of(f"zuko {name}", 4.0 + i) for i, name in enumerate(("RealNVP", "MAF", "NSF"))]
    lines = [line_of("kappaflow", ours, condition=50.0), *others]
    again = [{**line, "seed": 1, "test": line["test"] + 0.2} for line in lines]
    return [*lines, *again, line_of("kappaflow", 9.0, seconds=15.0)]


def test_the_page_says_what_each_family_reached(benchmark):
    """Means over the seeds of the longest trainings; the tuning is left out."""
    page = benchmark("page")
    results = {"machine": MACHINE, "lines": finals()}
    text = page.page_of("densities", page.densities_values, {"densities": results})
    assert "60 seconds of one core" in text and "over 2 seeds" in text
    assert "4.000 ± 0.141 | 20 | 50 |" in text and "9.000" not in text


@pytest.mark.parametrize(("ours", "mean"), [(3.9, "4.000"), (4.5, "4.600")])
def test_the_first_page_compares_with_the_best_of_zuko(benchmark, ours, mean):
    """Means over the seeds, and condition numbers, whether ours is better or worse."""
    table = benchmark("overview").densities(finals(ours=ours))
    assert f"| magic | {mean} | 4.100 | zuko RealNVP | 50 | 100 |" in table


def test_a_training_that_failed_is_counted_and_nothing_else(benchmark):
    lines = finals()
    failed = {**lines[1], "seed": 2, "failed": "20 steps in a row were not finite"}
    for name in ("validation", "test", "test_error", "condition_number_p95"):
        del failed[name]
    text = benchmark("densities").density_tables([*lines, failed], 60.0)["magic"]
    assert "4.100 ± 0.141 (1 of 3 seeds ended not finite)" in text


def test_what_validated_best_is_trained(benchmark):
    """Of its own family, table and time."""
    lines = [
        line_of("kappaflow", 1.0, validation=2.0, seconds=15.0),
        line_of("kappaflow", 2.0, validation=1.5, seconds=15.0),
        line_of("kappaflow", 3.0, validation=0.5),
        line_of("zuko MAF", 4.0, validation=0.1, seconds=15.0),
    ]
    assert benchmark("densities")._best(lines, "magic", "kappaflow", 15.0)["test"] == 2.0


def test_rows_are_split_without_one_that_is_in_two_parts(benchmark):
    """And the entropy of the bananas is that of their density, by their own test rows."""
    tables = benchmark("densities_tables")
    train, validation, test = tables.parts_of("bananas")
    rows = [{row.tobytes() for row in part.values} for part in (train, validation, test)]
    assert sum(map(len, rows)) == len(set().union(*rows)) == tables.BANANAS
    assert tables.entropy_of_bananas() == pytest.approx(4 * np.log(2 * np.pi) + 4, rel=1e-12)


@pytest.mark.slow
def test_a_small_benchmark_runs_end_to_end_and_goes_on(benchmark, tmp_path, monkeypatch):
    """An epoch of small flows; what is there is not trained again."""
    file, module = tmp_path / "densities.jsonl", benchmark("densities")
    families = {
        "kappaflow": (("spline", 2, 8, ""), ("real_nvp", 2, 8, "whitening start")),
        "zuko MAF": (("zuko:maf", 2, 8, ""),),
    }
    monkeypatch.setattr(module, "FAMILIES", families)
    monkeypatch.setattr(module, "RATES", (1e-2,))
    densities = module.densities
    densities(seconds=1e-3, seeds=1, only=["bananas"], at_once=1, file=file)
    lines = json.loads(file.with_suffix(".json").read_text())["lines"]
    assert [line["epochs"] for line in lines] == [1] * 5
    assert len([line for line in lines if line["seconds"] == 1e-3]) == 2
    before = file.read_text()
    densities(seconds=1e-3, seeds=1, only=["bananas"], at_once=1, file=file)
    assert file.read_text() == before
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    assert "## Bananas" in (tmp_path / "benchmarks-densities.md").read_text()
