"""What the results on real tables come to: paired differences, ranks, and the four goals."""

import math
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.lines import Line
from benchmarks.tables import markdown
from benchmarks.tables_suite import data

OURS = "kappaflow"
MIXTURE = "mixture"
KEY = ("table", "model", "seed", "seconds")
BETTER_BY = 0.10  # nats, on average
NEVER_WORSE_BY = 0.05  # nats, beyond two standard errors
BETTER_CONDITIONED = 2 / 3  # of the tables
Scores = dict[tuple[str, str], list[Line]]  # by table and model, one line for each seed


def key_of(line: Line) -> tuple[Any, ...]:
    """Returns what tells a training from others."""
    return tuple(line[name] for name in KEY)


def npz_of(cache: Path, line: Line) -> Path:
    """Returns the file with log p of each test row."""
    name = f"{line['table']}-{line['model']}-{line['seed']}-{line['seconds']:g}.npz"
    return cache / name.replace(", ", "-").replace(" ", "-")


def summary(
    lines: Iterable[Line], cache: Path, seconds: float, *, every: bool = False
) -> dict[str, Any] | None:
    """Returns the comparison of all models, None where there are no results.

    Differences are those to the best flow of zuko and to the mixture, or to every other model.
    """
    latest = {key_of(line): line for line in lines if line["seconds"] == seconds}
    if not latest:
        return None
    scores: Scores = {}
    for line in latest.values():
        scores.setdefault((line["table"], line["model"]), []).append(line)
    tables = [name for name in _ordered(table for table, _ in scores) if name]
    models = list(dict.fromkeys(model for _, model in scores))
    models.sort(key=lambda model: (model != OURS, model))
    best = best_configuration(scores, tables, models)
    against = {
        other: [
            {"table": table, **paired(scores, cache, table, OURS, other)}
            for table in tables
            if (table, OURS) in scores and (table, other) in scores
        ]
        for other in (models if every else (best, MIXTURE))
        if other != OURS and other in models and OURS in models
    }
    conditions = {
        f"{table}: {model}": _condition(scores.get((table, model), []))
        for table, model in product(tables, models)
    }
    return {
        "lines": list(latest.values()),
        "seconds": seconds,
        "tables": tables,
        "models": models,
        "nll": {
            f"{table}: {model}": _mean_nll(scores.get((table, model), []))
            for table, model in product(tables, models)
        },
        "condition_p95": conditions,
        "ranks": average_ranks(scores, tables, models),
        "best": best,
        "against": against,
        "goals": goals(against, best, conditions, tables) if best in against else {},
    }


def _ordered(names: Iterable[str]) -> list[str]:
    """Returns the names of tables, each once, in the order of the suite."""
    found = set(names)
    known = [name for name in data.names() if name in found]
    return known + sorted(found - set(known))


def _mean_nll(lines: list[Line]) -> float | None:
    """Returns the mean over seeds, None where one of them is not finite."""
    values = [line["test"] for line in lines]
    return None if not values or None in values else mean(values)


def _condition(lines: list[Line]) -> float | None:
    values = [line["condition_p95"] for line in lines]
    return None if not values or None in values else mean(values)


def best_configuration(scores: Scores, tables: list[str], models: list[str]) -> str | None:
    """Returns the one zuko configuration with the lowest mean NLL over all tables.

    Configurations that lack a table, or are not finite on one, are not considered.
    """
    means = {}
    for model in models:
        values = [_mean_nll(scores.get((table, model), [])) for table in tables]
        if model.startswith("zuko") and None not in values:
            means[model] = mean(value for value in values if value is not None)
    return min(means, key=lambda model: means[model]) if means else None


def average_ranks(scores: Scores, tables: list[str], models: list[str]) -> dict[str, float]:
    """Returns the average rank of each model that has all tables; 1 is the best."""
    complete = [model for model in models if all((table, model) in scores for table in tables)]
    ranks: dict[str, list[float]] = {model: [] for model in complete}
    for table in tables:
        found = {model: _mean_nll(scores[table, model]) for model in complete}
        values = {model: math.inf if nll is None else nll for model, nll in found.items()}
        for model, nll in values.items():
            below = sum(other < nll for other in values.values())
            ties = sum(other == nll for other in values.values())
            ranks[model].append(below + (ties + 1) / 2)
    return {model: mean(of) for model, of in ranks.items()}


def paired(
    scores: Scores, cache: Path, table: str, model: str, other: str
) -> dict[str, float | None]:
    """Returns how much better a model is than another, row by row on the same test rows."""
    ours, theirs = (_mean_nll(scores[table, name]) for name in (model, other))
    if ours is None or theirs is None:
        return {"difference": None, "error": None}
    rows = [_mean_log_p(scores[table, name], cache) for name in (model, other)]
    if rows[0] is None or rows[1] is None:
        return {"difference": theirs - ours, "error": None}
    differences = rows[0] - rows[1]
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return {"difference": theirs - ours, "error": error if math.isfinite(error) else None}


def _mean_log_p(lines: list[Line], cache: Path) -> np.ndarray | None:
    """Returns log p of each test row, the mean over seeds."""
    paths = [npz_of(cache, line) for line in lines]
    if not all(path.exists() for path in paths):
        return None
    found = []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            found.append(file["log_p"].astype(np.float64))
    return np.mean(found, axis=0)


def goals(
    against: dict[str, list[dict[str, Any]]],
    best: str,
    conditions: dict[str, float | None],
    tables: list[str],
) -> dict[str, dict[str, Any]]:
    """Returns whether each of the four goals holds, with the figures that decide it."""
    to_best = [line for line in against[best] if line["difference"] is not None]
    average = mean(line["difference"] for line in to_best) if to_best else math.nan
    margins = {
        line["table"]: line["difference"] + 2 * (line["error"] or 0.0) + NEVER_WORSE_BY
        for line in to_best
    }
    to_mixture = against.get(MIXTURE, [])
    lost = [
        line["table"]
        for line in to_mixture
        if line["difference"] is None or line["difference"] <= 0
    ]
    better = [table for table in tables if _better_conditioned(conditions, table, best)]
    return {
        f"at least {BETTER_BY:.2f} nats better than {best} on average": {
            "holds": average >= BETTER_BY,
            "found": f"{average:+.3f} nats",
        },
        f"never worse than it by more than two standard errors and {NEVER_WORSE_BY:g} nats": {
            "holds": len(margins) == len(tables) and min(margins.values()) >= 0,
            "found": ", ".join(name for name, left in margins.items() if left < 0) or "no table",
        },
        "better than the mixture on every table": {
            "holds": len(to_mixture) == len(tables) and not lost,
            "found": _against_mixture(len(to_mixture), lost),
        },
        "lower 95 % condition number on two thirds of the tables": {
            "holds": len(better) >= BETTER_CONDITIONED * len(tables),
            "found": f"{len(better)} of {len(tables)}",
        },
    }


def _against_mixture(compared: int, lost: list[str]) -> str:
    if not compared:
        return "no mixture was fitted"
    return f"not on {', '.join(lost)}" if lost else f"compared on {compared}"


def _better_conditioned(conditions: dict[str, float | None], table: str, best: str) -> bool:
    ours, theirs = conditions[f"{table}: {OURS}"], conditions[f"{table}: {best}"]
    return ours is not None and (theirs is None or ours < theirs)


def tables_text(found: dict[str, Any]) -> str:
    """Returns the comparison as text with Markdown tables."""
    texts = [nll_table(found), *against_tables(found).values(), ranks_table(found)]
    texts += [goals_table(found)] if found["goals"] else []
    return "\n\n".join(texts)


def nll_table(found: dict[str, Any]) -> str:
    """Returns test NLLs, a line for each table, the models in the order of their average ranks."""
    ranks = found["ranks"]
    models = sorted(found["models"], key=lambda model: ranks.get(model, math.inf))
    rows = (
        [table, *(_number(found["nll"][f"{table}: {model}"], ".3f") for model in models)]
        for table in found["tables"]
    )
    return markdown(["test NLL [nats]", *models], rows)


def against_tables(found: dict[str, Any]) -> dict[str, str]:
    """Returns paired differences to the best zuko configuration and to the mixture."""
    texts = {}
    for other, lines in found["against"].items():
        rows = [
            [
                line["table"],
                _number(line["difference"], "+.3f"),
                _number(line["error"], ".3f"),
                _number(found["condition_p95"][f"{line['table']}: {OURS}"], ".3g"),
                _number(found["condition_p95"][f"{line['table']}: {other}"], ".3g"),
            ]
            for line in lines
        ]
        known = [line["difference"] for line in lines if line["difference"] is not None]
        if known:
            rows.append(["mean", f"{mean(known):+.3f}", "", "", ""])
            rows.append(["worst", f"{min(known):+.3f}", "", "", ""])
        head = ["nats better than", "difference", "standard error"]
        heads = [f"{head[0]} {other}", *head[1:], "95 % condition number", f"of {other}"]
        if not any(row[-1] for row in rows):
            heads, rows = heads[:-1], [row[:-1] for row in rows]
        texts[other] = markdown(heads, rows)
    return texts


def ranks_table(found: dict[str, Any]) -> str:
    """Returns average rank and mean NLL of each model that has all tables."""
    rows = []
    for model, rank in sorted(found["ranks"].items(), key=lambda item: item[1]):
        nlls = [found["nll"][f"{table}: {model}"] for table in found["tables"]]
        finite = [nll for nll in nlls if nll is not None]
        average = _number(mean(finite) if len(finite) == len(nlls) else None, ".3f")
        rows.append([model, f"{rank:.2f}", average])
    return markdown(["model", "average rank", "mean test NLL"], rows)


def goals_table(found: dict[str, Any]) -> str:
    """Returns which goals hold."""
    rows = (
        [goal, "yes" if one["holds"] else "no", one["found"]]
        for goal, one in found["goals"].items()
    )
    return markdown(["goal", "holds", "found"], rows)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def source_rows() -> list[list[str]]:
    """Returns a line for each table: what it is, where it comes from, what was done to it."""
    rows = []
    for part in ("development", "judged"):
        for name in data.names(part):
            source = data.SOURCES[name]
            rows.append([
                name,
                part,
                source.about,
                source.package,
                source.origin,
                ", ".join(source.dequantized) or "none",
                ", ".join(source.left_out) or "none",
            ])
    return rows


def less_time_table(short: dict[str, Any] | None, long: dict[str, Any] | None) -> str:
    """Returns NLLs of kappaflow in a short time and of the best flow of zuko in a long one."""
    if short is None or long is None or long["best"] is None:
        return ""
    best, rows, lower = long["best"], [], 0
    for table in short["tables"]:
        ours, theirs = short["nll"][f"{table}: {OURS}"], long["nll"].get(f"{table}: {best}")
        if ours is None or theirs is None:
            continue
        lower += ours < theirs
        rows.append([table, f"{ours:.3f}", f"{theirs:.3f}", "yes" if ours < theirs else "no"])
    rows.append(["lower", "", "", f"{lower} of {len(rows)}"])
    names = [f"{name}, {found['seconds']:g} s" for name, found in ((OURS, short), (best, long))]
    return markdown(["test NLL [nats]", *names, "kappaflow's is lower"], rows)


def tables_values(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns what the page shows, from the files of results."""
    head = ["table", "part", "a row is", "package", "origin", "dequantized", "left out"]
    return {
        "parts": [
            {
                "name": name.split("-")[1],
                "seconds": found["seconds"],
                "nll": nll_table(found),
                "against": against_tables(found),
                "ranks": ranks_table(found),
                "goals": goals_table(found) if found["goals"] else "",
            }
            for name, found in results.items()
        ],
        "less_time": less_time_table(
            results.get("tables-judged-60"), results.get("tables-judged-240")
        ),
        "sources": markdown(head, source_rows()),
    }
