"""The benchmarks of factorizations run end to end, and their page says what the results say."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

from abacus import MACHINE, ROOT


def draw_of(couplings, draw, condition_number, **others):
    """Returns a line of trade-off.jsonl."""
    figures = {
        "found": couplings,
        "method": "tracking",
        "residual": 1e-15,
        "time_s": 2.0,
        "of_the_map": 64.0,
    }
    named = {"ensemble": "geometric 1e2", "n": 8, "draw": draw, "couplings": couplings}
    return {**named, **figures, "condition_number": condition_number, **others}


DRAWS = [
    *(draw_of(6, draw, 4.0 + draw) for draw in range(5)),
    *(draw_of(8, draw, 2.0 + draw) for draw in range(4)),
    draw_of(8, 4, 9.0, method="eleven"),
    {"ensemble": "geometric 1e2", "n": 16, "draw": 0, "couplings": 6, "error": "lost"},
]


def results_of(curves):
    """Returns the results of the trade-off, as its file has them."""
    return {"trade-off": {"preset": None, "machine": MACHINE, "lines": curves}}


def row_of(text, start):
    """Returns the cells of the line of a table that starts with a name."""
    lines = [line.split(" | ") for line in text.splitlines()]
    found = next(line for line in lines if line[0].startswith(f"| {start}"))
    return [cell.strip("| ") for cell in found]


def test_the_tables_have_medians_and_quartiles(benchmark):
    """And say what was not found, and what was found otherwise."""
    curves = benchmark("trade_off").summary(DRAWS)
    text = benchmark("page").trade_off_page(results_of(curves), figure="figure.svg")
    assert row_of(text, "8")[1:] == ["5", "6 (5 to 7)", "4 (3 to 5)"]
    assert row_of(text, "16")[1:] == ["1", "none found", ""]
    assert "Found by tracking, but 8 features in 8 couplings by eleven (1 of 5)." in text
    assert "Of 11 searches 1 ended without one" in text
    assert "geometric 1e2, 16 features, 6 couplings (1 of 1)" in text
    assert "(figure.svg)" in text
    assert "An abacus, 2 cores, torch on 1 thread" in text


def test_the_headline_compares_the_fewest_with_the_most_couplings(benchmark):
    """At the size that was measured, where it is not the usual one."""
    curves = benchmark("trade_off").summary(DRAWS[:10])
    sentence = benchmark("trade_off_page").headline(curves)
    assert sentence.startswith("At 8 features the median of 5 draws is 6 with 6 and 4 with 8 for")


def test_the_curves_for_reports_are_those_with_enough_draws(benchmark, tmp_path):
    """A size with a single draw, or without some number of couplings, is left out."""
    few = [draw_of(couplings, 0, 3.0, n=32) for couplings in (6, 8)]
    curves = benchmark("trade_off").summary([*DRAWS, *few])
    (curve,) = benchmark("trade_off_page").reference_curves(curves)
    assert (curve["ensemble"], curve["features"]) == ("geometric 1e2", 8)
    assert curve["couplings"] == [6, 8]
    assert (curve["low"], curve["median"], curve["high"]) == ([5, 3], [6, 4], [7, 5])
    path = tmp_path / "reference.json"
    benchmark("trade_off_page").write_reference(path, curves)
    assert json.loads(path.read_text()) == [curve]


def measured(benchmark, row, *draws):
    """Returns the cells of the table for the first goal of a row, from what differs by draw."""
    goals, factor = benchmark("goals"), benchmark("factor")
    goal = next(goal for goal in goals.GOALS if goal.row == row)
    line = {"row": row, "ensemble": goal.ensemble, "n": goal.n, "couplings": goal.couplings}
    figures = {
        "residual": 1e-15,
        "time_s": 0.01,
        "condition_numbers": [2.0] * 9 + [50.0, 90.0],
        "of_the_map": 30.0,
    }
    lines = [{**line, **figures, "draw": i, **draw} for i, draw in enumerate(draws)]
    text = benchmark("factor_tables").goals_table(factor.summary(lines))
    return row_of(text, goal.ensemble)


def test_a_limit_for_every_draw_holds_for_the_worst(benchmark):
    """And one for the median does not."""
    good, bad = {"condition_numbers": [9.0] * 6}, {"condition_numbers": [9.0] * 5 + [14.0]}
    assert measured(benchmark, "rotations", good)[-1] == "yes"
    rotations = measured(benchmark, "rotations", good, bad)
    assert rotations[7:9] == ["11.5 (14)", "<= 13.6"]
    assert rotations[-1] == "not: condition number"
    better = {"condition_numbers": [3.0], "residual": 1e-15}
    descent = measured(benchmark, "descent", better, better, {"residual": 1.0})
    assert descent[5:8] == ["1e-15 (1)", "<= 1e-13", "3 (90)"]
    assert descent[-1] == "yes"
    descent = measured(benchmark, "descent", {"residual": 1.0})
    assert descent[-1] == "not: residual, condition number"


def test_of_eleven_factors_nine_have_one_limit_and_two_another(benchmark):
    """The two are compared with the condition number of the map."""
    cells = measured(benchmark, "eleven", {})
    assert cells[7] == "nine: 2 (2); two: 3 (3) cond(T)"
    assert cells[-1] == "yes"
    numbers = [2.0] * 9 + [50.0, 900.0]
    cells = measured(benchmark, "eleven", {"condition_numbers": numbers})
    assert cells[-1] == "not: carriers to the map"


def test_a_search_that_fails_is_counted(benchmark):
    """Where every draw counts it is a miss."""
    good = {"condition_numbers": [9.0] * 6}
    cells = measured(benchmark, "rotations", good, {"error": "lost"})
    assert cells[4] == "2, 1 failed"
    assert cells[-1] == "no"


def test_an_error_of_the_product_is_seen_through_the_inverse(benchmark):
    """In units of the smallest singular value of the map."""
    kf = importlib.import_module("kappaflow")
    matrix = np.diag([1e3, 1e3, 1e-3, 1e-3])
    found = kf.factor_linear(matrix, couplings=6)
    error = benchmark("factoring").error_by_inverse
    assert error(found, matrix) < 1e-8
    off = matrix.copy()
    off[3, 3] += 1e-6
    assert error(found, off) == pytest.approx(1e-3, rel=0.01)


def test_a_line_that_was_cut_off_is_taken_out_of_the_file(benchmark, tmp_path):
    """What was written whole stays."""
    lines = benchmark("lines")
    path = tmp_path / "draws.jsonl"
    lines.append_machine(path, MACHINE)
    lines.append_line(path, {"draw": 0})
    with path.open("a") as file:
        file.write('{"draw": ')
    assert lines.read_lines(path) == ([{"draw": 0}], [MACHINE])
    lines.append_machine(path, MACHINE)
    lines.append_line(path, {"draw": 1})
    assert lines.read_lines(path) == ([{"draw": 0}, {"draw": 1}], [MACHINE])


def run(*arguments):
    """Runs a command of the benchmarks and returns what it printed."""
    command = [sys.executable, "-m", "benchmarks", *arguments, "--threads=1"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_a_tiny_benchmark_goes_on_where_it_was_and_has_its_page(benchmark, tmp_path):
    """Draws that are there already are not taken again."""
    file, there = tmp_path / "trade-off.json", benchmark("trade_off").MAPS[1:]
    draws = file.with_suffix(".jsonl")
    for name in there:
        line = {**draw_of(6, 0, 3.0), "ensemble": name, "n": 4}
        benchmark("lines").append_line(draws, line)
    before = draws.read_text()
    printed = run("trade-off", "--sizes=4", "--couplings=6", "--draws=1", f"--json={file}")
    assert "Gaussian, 4" in printed
    assert draws.read_text().startswith(before)
    machine, line = map(json.loads, draws.read_text().removeprefix(before).splitlines())
    assert machine["machine"]["threads"] == 1
    assert (line["ensemble"], line["found"]) == ("Gaussian", 6)
    assert len(json.loads(file.read_text())["lines"]) == 5

    benchmark("page").write_page(
        folder=tmp_path,
        kept=tmp_path,
        out=tmp_path / "page.md",
        trade_off=tmp_path / "trade-off.md",
        figure=tmp_path / "figure.svg",
        reference=tmp_path / "reference.json",
    )
    assert not (tmp_path / "page.md").exists()
    assert "(figure.svg)" in (tmp_path / "trade-off.md").read_text()
    assert "</svg>" in (tmp_path / "figure.svg").read_text()
    assert not (tmp_path / "reference.json").exists()


def test_a_tiny_row_of_the_goals_runs_end_to_end(tmp_path):
    """Rotations and permutations of 64 features; larger ones are for the full preset."""
    file = tmp_path / "factor.json"
    printed = run("factor", "--rows=rotations", "--draws=1", f"--json={file}")
    assert row_of(printed, "orthogonal")[1:5] == ["64", "6", "rotation", "1"]
    lines = json.loads(file.read_text())["lines"]
    assert {line["ensemble"] for line in lines} == {"orthogonal", "permutation"}
    assert max(line["condition_number"]["worst"] for line in lines) <= 13.6
