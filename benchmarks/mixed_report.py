"""What results of `python -m benchmarks mixed` come to, as tables and goals."""

from collections.abc import Callable, Sequence
from itertools import chain, product
from statistics import NormalDist, fmean, geometric_mean
from typing import Any

from benchmarks.lines import Line, grouped
from benchmarks.tables import markdown, text_table
from benchmarks.tables_suite import data

OURS = "kappaflow"
DISCRETE = "labels and counts"
MOST_NATS, MOST_BIAS = 0.02, 0.05


def _mean(name: str, form: str = "+.3f", scale: float = 1.0) -> Callable[[Line], str]:
    """Returns what shows a mean and its standard error."""
    return lambda line: (
        f"{scale * line[name]:{form}} ± {scale * line[f'{name}_error']:{form.strip('+')}}"
    )


def _number(name: str, form: str, scale: float = 1.0) -> Callable[[Line], str]:
    return lambda line: format(scale * line[name], form) if name in line else ""


def _loss_at(level: str) -> Callable[[Line], str]:
    return lambda line: f"{100 * line['pinball_at'][level]:.2f}"


def _covered(level: int, quantile: float) -> Callable[[Line], str]:
    """Returns what shows a coverage, in bold outside of its band, which follows it."""

    def cell(line: Line) -> str:
        share, expected = line[f"coverage_{level}"], level / 100
        band = quantile * (expected * (1 - expected) / line["values"]) ** 0.5
        text = f"{100 * share:.1f}"
        outside = abs(share - expected) > band
        return f"**{text}** (± {100 * band:.1f})" if outside else f"{text} (± {100 * band:.1f})"

    return cell


def _table(line: Line) -> str:
    seed = f", seed {line['seed']}" if line["seed"] else ""
    return line["table"] + seed + " (judged)" * (line["table"] in data.names("judged"))


def _model(line: Line) -> str:
    return line["model"]


# The columns of each table of one line for each result.
GAPS = {
    "[nats]": _table,
    "bias": _mean("bias"),
    "of complete rows": _mean("bias_of_complete_rows"),
    "of the draws against 1,024": _mean("bias_of_draws"),
    "absolute difference": _number("absolute", ".3f"),
    "error of the draws": _number("monte_carlo_error", ".3f"),
    "effective draws, 5 % of rows": _number("effective_size_p05", ".1f"),
}
IMPUTATION = {
    "table": _table,
    "completed by": _model,
    "1,000 x energy distance": _mean("energy", "+.2f", 1000),
    "RMSE": _number("rmse", ".3f"),
    "RMSE of the mean of 39": _number("rmse_of_mean", ".3f"),
    "training [s]": _number("processor_s", ".0f"),
    "completing [s]": _number("completing_s", ".1f"),
}
COVERED = {"table": _table, "of": _model, "values": _number("values", ".0f")}
QUANTILES = {
    "table": _table,
    "quantiles of": _model,
    "100 x loss": _mean("pinball", ".2f", 100),
    "more than kappaflow": _mean("more", "+.2f", 100),
    **{f"at {100 * q:g} %": _loss_at(str(q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
    "rows with crossings [%]": _number("crossing", ".1f", 100),
    "training [s]": _number("processor_s", ".0f"),
}


def mixed_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the tables of the page by name, empty where there are no results."""
    lines = [line for part in results.values() for line in part["lines"]]
    of = {what: of for (what,), of in grouped(lines, ("what",)).items()}
    completed = [
        line for group in grouped(of.get("imputation", ()), ("table",)).values() for line in group
    ]
    return {
        "seconds": lines[0]["seconds"],
        "goals": goals_table(lines),
        "known": known_table(of.get("known", [])),
        "gaps": _lines(GAPS, of.get("gaps", [])),
        "imputation": _lines(IMPUTATION, completed),
        "coverage": coverage_table([line for line in completed if "values" in line]),
        "encodings": {
            question: encodings_tables(lines)
            for question, lines in of_questions(of.get("encodings", [])).items()
        },
        "quantiles": _lines(QUANTILES, of.get("quantiles", [])),
        "intervals": coverage_table(of.get("quantiles", [])),
    }


def _lines(columns: dict[str, Callable[[Line], str]], lines: Sequence[Line]) -> str:
    """Returns a table of one line for each result; empty without any."""
    rows = [[cell(line) for cell in columns.values()] for line in lines]
    return markdown(columns, rows) if rows else ""


def coverage_table(lines: list[Line]) -> str:
    """Returns shares of values in intervals, with bands that all hold at once in 95 % of cases."""
    quantile = NormalDist().inv_cdf(1 - 0.025 / (3 * len(lines) or 1))
    columns: dict[str, Callable[[Line], str]] = dict(COVERED)
    for level in (50, 80, 95):
        columns[f"{level} %"] = _covered(level, quantile)
        columns[f"width at {level} %"] = _number(f"width_{level}", ".2f")
    return _lines(columns, lines)


def of_questions(lines: list[Line]) -> dict[str, list[Line]]:
    """Returns lines on encodings by question, with the kind of flow and the encoding by name."""
    split = [
        line | dict(zip(("flow", "question", "way"), line["model"].split("; "), strict=True))
        for line in lines
    ]
    return {question: of for (question,), of in grouped(split, ("question",)).items()}


def encodings_tables(lines: list[Line]) -> tuple[str, str]:
    """Returns what the encodings of a question cost against the table model, and every table.

    Condition numbers are geometric means over seeds, and over tables for the costs.
    """
    flows, tables = sorted({line["flow"] for line in lines}), {line["table"]: 0 for line in lines}
    ways = sorted({line["way"]: 0 for line in lines}, key=lambda way: "(table model)" not in way)
    of = grouped(lines, ("flow", "way", "table"))
    costs = [[w, *chain(*(_costs(of, flow, w, ways[0]) for flow in flows))] for w in ways]
    each = [
        [table, way, *chain(*(_conditioning(of.get((flow, way, table), [])) for flow in flows))]
        for table, way in product(tables, ways)
        if any((flow, way, table) in of for flow in flows)
    ]
    cost, measured = ("condition number", "nats"), ("median", "95 %", "error", "nats")
    return (
        markdown(["encoding", *(f"{flow}: {name}" for flow in flows for name in cost)], costs),
        markdown(
            ["table", "encoding", *(f"{flow}: {name}" for flow in flows for name in measured)],
            each,
        ),
    )


def _costs(of: dict[tuple[str, ...], list[Line]], flow: str, way: str, base: str) -> list[str]:
    """Returns the factor of the 95 % condition number and the nats lost, over tables."""
    tables = [t for f, w, t in of if (f, w) == (flow, way) and (flow, base, t) in of]
    pairs = [(of[flow, way, table], of[flow, base, table]) for table in tables]
    ratios = [_typical(a, "condition_p95") / _typical(b, "condition_p95") for a, b in pairs]
    nats = [_average(a) - _average(b) for a, b in pairs if "nats" in a[0]]
    factor = f"x {_short(geometric_mean(ratios))}" if ratios else ""
    return [factor, f"{fmean(nats):+.2f}" if nats else ""]


def _conditioning(lines: Sequence[Line]) -> list[str]:
    """Returns condition numbers, the largest error of a reconstruction, and nats, over seeds."""
    if not lines:
        return 4 * [""]
    points = [[line["growth"][0] for line in lines], lines]
    growth = " to ".join(_short(_typical(some, "condition_p95")) for some in points)
    error = max(line["reconstruction"] for line in lines)
    nats = f"{_average(lines):+.2f} ± {lines[0]['nats_error']:.2f}" if "nats" in lines[0] else ""
    return [_short(_typical(lines, "condition_median")), growth, f"{error:.0e}", nats]


def _typical(lines: Sequence[Line], name: str) -> float:
    return geometric_mean(line[name] for line in lines)


def _short(value: float) -> str:
    return f"{float(f'{value:.2g}'):,g}"


def _average(lines: Sequence[Line]) -> float:
    return fmean(line["nats"] for line in lines)


def known_table(lines: list[Line]) -> str:
    """Returns nats below the truth by table and model, and rows without a finite log p."""
    models, rows = [*dict.fromkeys(line["model"] for line in lines)], []
    for of in grouped(lines, ("seed", "table")).values():
        cells = dict.fromkeys(models, "")
        for line in of:
            gone = f" ({line['not_finite_rows']} rows left out)" if line["not_finite_rows"] else ""
            cells[line["model"]] = _mean("nats")(line) + gone
        rows.append([_table(of[0]), *cells.values()])
    return markdown(["nats below the truth", *models], rows) if rows else ""


def goals_table(lines: list[Line]) -> str:
    """Returns the goals of our model, whether each holds, and what was measured."""
    rows = []
    for line in lines:
        if line["table"] == DISCRETE and line["model"] == OURS:
            holds = line["nats"] <= MOST_NATS and not line["not_finite_rows"]
            rows.append((f"at most {MOST_NATS} nats below the truth", holds, "nats", line))
        if line["what"] == "gaps":
            bias, error = abs(line["bias"]), line["bias_error"]
            rows.append((f"bias of at most {MOST_BIAS} nats", bias <= MOST_BIAS, "bias", line))
            rows.append(("bias within two standard errors", bias <= 2 * error, "bias", line))
    cells = [
        [f"{goal}: {_table(line)}", "yes" if holds else "no", _mean(name)(line)]
        for goal, holds, name, line in rows
    ]
    return text_table(["goal", "holds", "measured"], cells) if cells else ""
