"""What the results on real tables come to: paired differences, ranks, and the three goals."""

import math
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.lines import Line, grouped
from benchmarks.tables import markdown
from benchmarks.tables_suite import data

OURS = "kappaflow"
KEY = ("table", "model", "seed", "seconds")
RANK = 1.5  # of ours among all models, on average, at most
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

    Seeds count that all models have. Differences are those to the best peer of each table; with
    `every` also to every other model.
    """
    latest = {key_of(line): line for line in lines if line["seconds"] == seconds}
    seeds = [
        {one["seed"] for one in some} for some in grouped(latest.values(), ["model"]).values()
    ]
    latest = {key: one for key, one in latest.items() if all(one["seed"] in s for s in seeds)}
    if not latest:
        return None
    scores: Scores = {}
    for line in latest.values():
        scores.setdefault((line["table"], line["model"]), []).append(line)
    tables = [name for name in _ordered(table for table, _ in scores) if name]
    models = list(dict.fromkeys(model for _, model in scores))
    models.sort(key=lambda model: (model != OURS, model))
    against = {
        other: [
            {"table": table, **paired(scores, cache, table, OURS, other)}
            for table in tables
            if (table, OURS) in scores and (table, other) in scores
        ]
        for other in (models if every else ())
        if other != OURS and OURS in models
    }
    conditions = {
        f"{table}: {model}": _condition(scores.get((table, model), []))
        for table, model in product(tables, models)
    }
    ranks = average_ranks(scores, tables, models)
    closest = best_peers(scores, cache, tables, models)
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
        "ranks": ranks,
        "against": against,
        "best_peers": closest,
        "goals": goals(closest, ranks, conditions) if closest else {},
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


def best_peers(
    scores: Scores, cache: Path, tables: list[str], models: list[str]
) -> list[dict[str, Any]]:
    """Returns the likeliest peer of each table, and how much better ours is, row by row."""
    results = []
    for table in tables:
        nll = {model: _mean_nll(scores.get((table, model), [])) for model in models}
        peers = {
            model: value for model, value in nll.items() if value is not None and model != OURS
        }
        if peers and (table, OURS) in scores:
            peer = min(peers, key=lambda model: peers[model])
            chosen = scores[table, OURS][0].get("chosen", "")
            difference = paired(scores, cache, table, OURS, peer)
            results.append({"table": table, "peer": peer, "chosen": chosen, **difference})
    return results


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
    """Returns how much better a model is than another, row by row on the same test rows.

    Where log p of the rows is not kept, the error is that of two independent means.
    """
    ours, theirs = (_mean_nll(scores[table, name]) for name in (model, other))
    if ours is None or theirs is None:
        return {"difference": None, "error": None}
    rows = [_mean_log_p(scores[table, name], cache) for name in (model, other)]
    if rows[0] is None or rows[1] is None:
        errors = [[one["test_error"] for one in scores[table, name]] for name in (model, other)]
        error = math.hypot(*map(mean, errors))
    else:
        error = float((rows[0] - rows[1]).std(ddof=1)) / math.sqrt(len(rows[0]))
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
    closest: list[dict[str, Any]], ranks: dict[str, float], conditions: dict[str, float | None]
) -> dict[str, dict[str, Any]]:
    """Returns whether each of the three goals holds, with the figures that decide it."""
    worse = [
        line["table"]
        for line in closest
        if line["difference"] is None or line["difference"] < -2 * (line["error"] or 0.0)
    ]
    lower = [_is_lower(conditions, line["table"], line["peer"]) for line in closest]
    better, compared = lower.count(True), len(lower) - lower.count(None)
    rank = ranks.get(OURS, math.inf)
    return {
        "never worse than the best peer of a table by more than two standard errors": {
            "holds": not worse,
            "found": ", ".join(worse) or "no table",
        },
        f"average rank of {RANK:g} at most": {"holds": rank <= RANK, "found": f"{rank:.2f}"},
        "lower 95 % condition number than that peer on two thirds of the tables": {
            "holds": 0 < BETTER_CONDITIONED * compared <= better,
            "found": f"{better} of {compared}",
        },
    }


def _is_lower(conditions: dict[str, float | None], table: str, peer: str) -> bool | None:
    """Returns whether our condition number is lower; None for a peer that has none."""
    ours, theirs = conditions[f"{table}: {OURS}"], conditions[f"{table}: {peer}"]
    return None if ours is None or theirs is None else ours < theirs


def tables_text(found: dict[str, Any]) -> str:
    """Returns the comparison as text with Markdown tables."""
    texts = [nll_table(found), closest_table(found), ranks_table(found)]
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


def closest_table(found: dict[str, Any]) -> str:
    """Returns paired differences to the best peer of each table, and the models that we chose."""
    condition = found["condition_p95"]
    rows = [
        [
            line["table"],
            line["peer"],
            _number(line["difference"], "+.3f"),
            _number(line["error"], ".3f"),
            _number(condition[f"{line['table']}: {OURS}"], ".3g"),
            _number(condition[f"{line['table']}: {line['peer']}"], ".3g"),
            line["chosen"].partition(":")[0].removeprefix("chose "),
        ]
        for line in found["best_peers"]
    ]
    known = [n["difference"] for n in found["best_peers"] if n["difference"] is not None]
    for name, of in (("mean", mean), ("worst", min)):
        rows += [[name, "", f"{of(known):+.3f}", "", "", "", ""]] if known else []
    head = [
        "table", "best peer", "nats better", "standard error", "95 % condition number",
        "of the peer", "chosen",
    ]  # fmt: skip
    return markdown(head, rows)


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
    """Returns NLLs of kappaflow in a short time and of the best peer of a table in a long one."""
    if short is None or long is None:
        return ""
    rows, lower = [], 0
    for line in long["best_peers"]:
        table, peer = line["table"], line["peer"]
        ours, theirs = short["nll"].get(f"{table}: {OURS}"), long["nll"][f"{table}: {peer}"]
        if ours is None or theirs is None:
            continue
        lower += ours < theirs
        rows.append([
            table,
            f"{ours:.3f}",
            peer,
            f"{theirs:.3f}",
            "yes" if ours < theirs else "no",
        ])
    rows.append(["lower", "", "", "", f"{lower} of {len(rows)}"])
    names = [f"{OURS}, {short['seconds']:g} s", "best peer", f"its NLL, {long['seconds']:g} s"]
    return markdown(["test NLL [nats]", *names, "kappaflow's is lower"], rows)


def tables_values(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns what the page shows, from the files of results."""
    head = ["table", "part", "a row is", "package", "origin", "dequantized", "left out"]
    return {
        "parts": [
            {
                "name": name.split("-")[1],
                "seconds": found["seconds"],
                "seeds": len({line["seed"] for line in found["lines"]}),
                "nll": nll_table(found),
                "closest": closest_table(found),
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
