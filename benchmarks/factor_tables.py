"""Markdown tables and sentences on factorizations, from the results."""

from collections.abc import Sequence

from benchmarks.goals import GOALS, REWRITE, Goal
from benchmarks.lines import Line
from benchmarks.tables import markdown, number

NOTHING = "none found"


def goals_table(lines: Sequence[Line]) -> str:
    """Returns the goals and the results: medians, with the worst in brackets."""
    found = {(line["row"], line["ensemble"], line["n"], line["couplings"]): line for line in lines}
    head = ["T", "size", "couplings", "method", "draws"]
    for quantity in ("residual", "largest condition number", "time [s]"):
        head += [quantity, "aimed at"]
    rows = []
    for goal in GOALS:
        line = found.get((goal.row, goal.ensemble, goal.n, goal.couplings))
        if line is not None:
            rows.append([*_start(goal, line), *_quantities(goal, line), reached(goal, line)])
    return markdown([*head, "reached"], rows)


def _start(goal: Goal, line: Line) -> list[str]:
    draws = f"{line['draws']}" + (f", {line['failed']} failed" if line["failed"] else "")
    return [goal.ensemble, str(goal.n), str(goal.couplings), goal.method, draws]


def _quantities(goal: Goal, line: Line) -> list[str]:
    if "residual" not in line:
        return [NOTHING, "", NOTHING, "", NOTHING, ""]
    condition, aimed = _condition(line["condition_number"]), _limit(goal.condition_number)
    if goal.carriers:
        condition = f"nine: {condition}; two: {_both(line['carriers_to_the_map'])} cond(T)"
        aimed = f"nine: {aimed}; two: <= 10 cond(T)"
    if goal.row == REWRITE:
        aimed = ""
    return [
        _both(line["residual"]) + _unit(goal),
        _limit(goal.residual),
        condition,
        aimed,
        _both(line["time_s"]),
        "" if goal.time_s is None else _limit(goal.time_s),
    ]


def reached(goal: Goal, line: Line) -> str:
    """Returns "yes", or the figures beyond their limits, for the median or for every draw."""
    if "residual" not in line or (goal.every_draw and line["failed"]):
        return "no"
    counts = "worst" if goal.every_draw else "median"
    limits = {
        "residual": goal.residual,
        "condition_number": goal.condition_number,
        "time_s": goal.time_s,
        "carriers_to_the_map": 10.0 if goal.carriers else None,
    }
    beyond = [
        name.replace("_s", "").replace("_", " ")
        for name, limit in limits.items()
        if limit is not None and line[name]["median" if name == "time_s" else counts] > limit
    ]
    return f"not: {', '.join(beyond)}" if beyond else "yes"


def _unit(goal: Goal) -> str:
    if goal.row == REWRITE:
        return " nats of log_prob in float32"
    return " of product T^-1" if goal.by_inverse else ""


def _both(values: dict[str, float]) -> str:
    return f"{number(values['median'])} ({number(values['worst'])})"


def _condition(values: dict[str, float]) -> str:
    """Returns numbers with three digits, like the limits."""
    return f"{values['median']:.3g} ({values['worst']:.3g})"


def _limit(value: float) -> str:
    return f"<= {value:g}"
