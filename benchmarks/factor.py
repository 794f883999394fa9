"""The command that compares factorizations with their goals."""

from collections.abc import Sequence
from statistics import median

from benchmarks.factor_tables import goals_table
from benchmarks.goals import DRAWS, GOALS, ROWS, WELL, Goal
from benchmarks.lines import Line, grouped, key_of, parts_by_machine, read_lines, write_results
from benchmarks.presets import PresetName
from benchmarks.processes import Job, run
from benchmarks.suite import KEPT, JsonFile
from kappaflow_studies import ensembles

KEY = ("row", "ensemble", "n", "couplings", "threads", "draw")
LARGEST = {"minutes": 256, "full": 2048}
MINUTES_DRAWS = 3


def factor(
    *,
    preset: PresetName = "minutes",
    rows: list[str] | None = None,
    draws: int | None = None,
    threads: int = 2,
    file: JsonFile = KEPT / "factor.json",
) -> None:
    """Factor matrices of all kinds, and print the results next to the goals.

    Each draw is appended to a file next to the results, and draws in the file are not computed
    again: delete the file when the code has changed. Both files are committed.

    Parameters
    ----------
    preset
        "minutes" (3 draws, up to 256 features) or "full" (20 draws of all kinds: hours).
    rows
        Rows of the table to compute: rotations, all-permutations, svd, descent, gaussian-64,
        geometric-1e2, gaussian-large, geometric-1e4, geometric-1e6, rewrite.
    draws
        Largest number of draws, instead of the preset's.
    threads
        Number of threads of torch and numpy.
    file
        File of results.
    """
    if unknown := set(rows or ()) - set(ROWS):
        raise SystemExit(f"No rows {', '.join(sorted(unknown))}: choose from {', '.join(ROWS)}.")
    at_most = draws or (DRAWS if preset == "full" else MINUTES_DRAWS)
    draw_file = file.with_suffix(".jsonl").resolve()
    have = {key_of(line, KEY) for line in read_lines(draw_file)[0]}
    jobs = []
    for place, goal in enumerate(GOALS):
        if (rows and goal.row not in rows) or goal.n > LARGEST[preset]:
            continue
        missing = [
            i for i in range(_draws(goal, at_most)) if (*_key(goal), threads, i) not in have
        ]
        if missing:
            arguments = {"place": place, "draws": missing, "threads": threads}
            label = f"{goal.ensemble}, {goal.n} features, {goal.couplings} couplings"
            jobs.append(Job("factor", {**arguments, "file": str(draw_file)}, label))
    run(jobs, threads=threads)
    lines, _ = read_lines(draw_file)
    found = summary([line for line in lines if line["threads"] == threads])
    machines = parts_by_machine(draw_file, "row")
    write_results(file, {"preset": preset, "machines": machines, "lines": found})
    print(goals_table(found))


def summary(lines: Sequence[Line]) -> list[Line]:
    """Returns a line for each measured goal, with the median and the worst of each figure."""
    groups = grouped(lines, KEY[:4])
    found = []
    for goal in GOALS:
        if not (of_goal := groups.get(_key(goal))):
            continue
        there = [line for line in of_goal if "error" not in line]
        line: Line = dict(zip(KEY, _key(goal), strict=False))
        line |= {"draws": len(of_goal), "failed": len(of_goal) - len(there)}
        if there:
            line["residual"] = _spread([one["residual"] for one in there])
            line["condition_number"] = _spread([_counted(one, goal) for one in there])
            line["time_s"] = _spread([one["time_s"] for one in there])
        if there and goal.carriers:
            ratios = [max(one["condition_numbers"]) / one["of_the_map"] for one in there]
            line["carriers_to_the_map"] = _spread(ratios)
        found.append(line)
    return found


def _counted(line: Line, goal: Goal) -> float:
    """Returns the largest condition number of the factors that a goal limits (nine, or all)."""
    numbers = sorted(line["condition_numbers"]) or [1.0]
    return numbers[WELL - 1] if goal.carriers else numbers[-1]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "worst": max(values)}


def _key(goal: Goal) -> tuple[str, str, int, int]:
    return goal.row, goal.ensemble, goal.n, goal.couplings


def _draws(goal: Goal, at_most: int) -> int:
    """Returns the number of draws; for a numbered ensemble, the number of its matrices."""
    if goal.draws is None:
        return ensembles.count(goal.ensemble, goal.n) or 0
    return min(goal.draws, at_most)
