"""Markdown tables and sentences of factorizations, from the results."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.goals import GOALS, REWRITE, Goal
from benchmarks.lines import Line, grouped
from benchmarks.tables import markdown, number

NOTHING = "none found"


def goals_table(lines: Sequence[Line]) -> str:
    """Returns what was aimed at beside what was reached: medians, and the worst in brackets."""
    found = {(line["row"], line["ensemble"], line["n"], line["couplings"]): line for line in lines}
    head = ["T", "size", "couplings", "method", "draws"]
    for quantity in ("residual", "largest condition number", "time [s]"):
        head += [quantity, "aimed at"]
    rows = []
    for goal in GOALS:
        line = found.get((goal.row, goal.ensemble, goal.n, goal.couplings))
        if line is not None:
            rows.append([*_start(goal, line), *_quantities(goal, line), _reached(goal, line)])
    return markdown([*head, "reached"], rows)


def curve_table(curves: Sequence[Line], ensemble: str) -> str:
    """Returns medians and quartiles of an ensemble, a row for each size."""
    of_ensemble = [curve for curve in curves if curve["ensemble"] == ensemble]
    counts = sorted({curve["couplings"] for curve in of_ensemble})
    rows = []
    for (n,), of_size in grouped(of_ensemble, ("n",)).items():
        cells = {curve["couplings"]: _quartiles(curve) for curve in of_size}
        draws = max(curve["draws"] for curve in of_size)
        rows.append([str(n), str(draws), *(cells.get(count, "") for count in counts)])
    return markdown(["features", "draws", *map(str, counts)], rows)


def time_table(curves: Sequence[Line]) -> str:
    """Returns the largest of the ensembles' median times, a row for each size."""
    counts = sorted({curve["couplings"] for curve in curves})
    rows = []
    for n, of_size in sorted(grouped(curves, ("n",)).items()):
        times = {
            count: max(line["time_s"] for line in of_count if "time_s" in line)
            for (count,), of_count in grouped(of_size, ("couplings",)).items()
            if any("time_s" in line for line in of_count)
        }
        rows.append([str(n[0]), *(number(times[m]) if m in times else "" for m in counts)])
    return markdown(["features", *map(str, counts)], rows)


def failures_sentence(curves: Sequence[Line]) -> str:
    """Returns how many searches ended without a factorization, and where."""
    failed = [curve for curve in curves if curve["failed"]]
    draws = sum(curve["draws"] for curve in curves)
    if not failed:
        return f"All {draws:,} searches ended with one."
    places = [
        f"{curve['ensemble']}, {curve['n']} features, {curve['couplings']} couplings "
        f"({curve['failed']} of {curve['draws']})"
        for curve in failed
    ]
    total = sum(curve["failed"] for curve in failed)
    return (
        f"Of {draws:,} searches {total:,} ended without one, and have no part in the quantiles: "
        f"{'; '.join(places)}."
    )


def methods_sentence(curves: Sequence[Line], ensemble: str) -> str:
    """Returns by which method an ensemble was factored, and where by others."""
    methods: Counter[str] = Counter()
    of_ensemble = [curve for curve in curves if curve["ensemble"] == ensemble]
    for curve in of_ensemble:
        methods.update(curve.get("methods", {}))
    if not methods:
        return ""
    usual = methods.most_common(1)[0][0]
    places = [
        f"{curve['n']} features in {curve['couplings']} couplings by {method} "
        f"({count} of {curve['draws']})"
        for curve in of_ensemble
        for method, count in curve.get("methods", {}).items()
        if method != usual
    ]
    return f"Found by {usual}" + (f", but {'; '.join(places)}." if places else ".")


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


def _reached(goal: Goal, line: Line) -> str:
    """Returns yes, or what is beyond its limit; of the median, or of every draw."""
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
    """Returns three digits, as the limits have them."""
    return f"{values['median']:.3g} ({values['worst']:.3g})"


def _limit(value: float) -> str:
    return f"<= {value:g}"


def _quartiles(curve: Line) -> str:
    if "median" not in curve:
        return NOTHING
    if curve["draws"] - curve["failed"] == 1:
        return f"{curve['median']:.3g}"
    return f"{curve['median']:.3g} ({curve['low']:.3g} to {curve['high']:.3g})"
