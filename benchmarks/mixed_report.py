"""What results of `python -m benchmarks mixed` come to, as tables and goals."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.lines import Line, grouped
from benchmarks.tables import markdown, text_table
from benchmarks.tables_suite import data

OURS = "kappaflow"
DISCRETE = "labels and counts"
MOST_NATS, MOST_BIAS = 0.02, 0.05


def _mean(name: str, form: str = ".3f", scale: float = 1.0) -> Callable[[Line], str]:
    """Returns what shows a mean and its standard error."""
    return lambda line: (f"{scale * line[name]:+{form}} ± {scale * line[f'{name}_error']:{form}}")


def _number(name: str, form: str, scale: float = 1.0) -> Callable[[Line], str]:
    return lambda line: format(scale * line[name], form) if name in line else ""


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
    "1,000 x energy distance": _mean("energy", ".2f", 1000),
    "RMSE": _number("rmse", ".3f"),
    "RMSE of the mean of 39": _number("rmse_of_mean", ".3f"),
    "training [s]": _number("processor_s", ".0f"),
    "completing [s]": _number("completing_s", ".1f"),
}
COVERAGE = {
    "table": _table,
    "completed by": _model,
    **{f"{level} %": _number(f"coverage_{level}", ".1f", 100) for level in (50, 80, 95)},
    "width at 80 %": _number("width_80", ".2f"),
    "values": _number("values", ".0f"),
}
SAMPLES = {
    "table": _table,
    "samples of": _model,
    "score": lambda line: f"{line['score']} of {line['target']}",
    "from samples": _number("of_samples", ".3f"),
    "from real rows": _number("of_rows", ".3f"),
    "difference": _mean("difference"),
    "training [s]": _number("processor_s", ".0f"),
    "sampling [s]": _number("sampling_s", ".1f"),
}


def mixed_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the tables of the page by name, empty where there are no results."""
    lines = [line for part in results.values() for line in part["lines"]]
    of = {what: of for (what,), of in grouped(lines, ("what",)).items()}
    completed = [
        line for group in grouped(of.get("imputation", ()), ("table",)).values() for line in group
    ]
    samples = [line | target for line in of.get("samples", ()) for target in line["targets"]]
    return {
        "seconds": lines[0]["seconds"],
        "goals": goals_table(lines),
        "known": known_table(of.get("known", [])),
        "gaps": _lines(GAPS, of.get("gaps", [])),
        "imputation": _lines(IMPUTATION, completed),
        "coverage": _lines(COVERAGE, [line for line in completed if "values" in line]),
        "samples": _lines(SAMPLES, samples),
    }


def _lines(columns: dict[str, Callable[[Line], str]], lines: Sequence[Line]) -> str:
    """Returns a table of one line for each result; empty without any."""
    rows = [[cell(line) for cell in columns.values()] for line in lines]
    return markdown(columns, rows) if rows else ""


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
