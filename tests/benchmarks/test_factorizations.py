"""The benchmarks of factorizations run end to end, and their page says what the results say."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

from abacus import MACHINE, ROOT


def row_of(text, start):
    """Returns the cells of the line of a table that starts with a name."""
    lines = [line.split(" | ") for line in text.splitlines()]
    found = next(line for line in lines if line[0].startswith(f"| {start}"))
    return [cell.strip("| ") for cell in found]


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


@pytest.mark.slow
def test_a_tiny_row_of_the_goals_runs_end_to_end(tmp_path):
    """Rotations and permutations of 64 features; larger ones are for the full preset."""
    file = tmp_path / "factor.json"
    printed = run("factor", "--rows=rotations", "--draws=1", f"--json={file}")
    assert row_of(printed, "orthogonal")[1:5] == ["64", "6", "rotation", "1"]
    lines = json.loads(file.read_text())["lines"]
    assert {line["ensemble"] for line in lines} == {"orthogonal", "permutation"}
    assert max(line["condition_number"]["worst"] for line in lines) <= 13.6
