"""What results on tables of known density come to, as tables."""

from statistics import mean
from typing import Any

import numpy as np

from benchmarks.lines import Line, grouped
from benchmarks.tables import markdown, text_table
from benchmarks.tables_suite.report import OURS

Found = dict[str, Any]


def known_text(found: Found) -> str:
    """Returns the comparison as text with Markdown tables."""
    return "\n\n".join(text for text in tables_of(found).values() if text)


def tables_of(found: Found) -> dict[str, str]:
    """Returns the tables of a comparison by name, empty where there is nothing to show."""
    return {
        "kl": kl_table(found),
        "chosen": chosen_table(found),
        "against": against_table(found),
        "shares": samples_table(found, "shares", "mass over the true one"),
        "widths": samples_table(found, "widths", "smallest to largest width over the true one"),
        "deciles": deciles_table(found),
    }


def _cell(value: float | None, form: str = ".3f") -> str:
    return "" if value is None else format(value, form)


def _chosen(note: str) -> str:
    """Returns the model of a note on a search; without a search, why there was none."""
    if note.startswith("chose "):
        return note.partition(":")[0].removeprefix("chose ")
    return note.rpartition(": ")[2].partition(",")[0]


def kl_table(found: Found) -> str:
    """Returns divergences with the standard error of ours; a mean is that of all tables."""
    models, tables, rows = found["models"], found["tables"], []
    kl = {model: [found["nll"][f"{table}: {model}"] for table in tables] for model in models}
    ours = _ours(found)
    for i, table in enumerate(tables):
        error = _cell(ours.get(table, {}).get("test_error"))
        rows.append([table, *(_cell(values[i]) for values in kl.values()), error])
    for name, of in (("mean", mean), ("largest", max)):
        of_all = [None if None in values else of(values) for values in kl.values()]
        rows.append([name, *map(_cell, of_all), ""])
    return markdown(["KL [nats]", *models, "standard error"], rows)


def _ours(found: Found) -> dict[str, Line]:
    return {line["table"]: line for line in found["lines"] if line["model"] == OURS}


def chosen_table(found: Found) -> str:
    """Returns the models that the search chose, and condition numbers."""
    rows, conditions, ours = [], found["condition_p95"], _ours(found)
    others = [model for model in found["models"] if model != OURS]
    for table in found["tables"]:
        of_peers = [conditions[f"{table}: {model}"] for model in others]
        least = min((value for value in of_peers if value is not None), default=None)
        own, chosen = conditions.get(f"{table}: {OURS}"), ours.get(table, {}).get("chosen", "")
        rows.append([table, _chosen(chosen), _cell(own, ".3g"), _cell(least, ".3g")])
    return text_table(["table", "chosen", "95 % condition number", "lowest of a peer"], rows)


def against_table(found: Found) -> str:
    """Returns paired differences to each peer: their mean, and where they are significant."""
    rows = []
    for other, lines in found["against"].items():
        paired = [line for line in lines if line["difference"] is not None]
        better, worse = (
            [n["table"] for n in paired if sign * n["difference"] > 2 * (n["error"] or 0.0)]
            for sign in (1, -1)
        )
        if paired:
            least = min(paired, key=lambda line: line["difference"])
            rows.append([
                other,
                f"{mean(line['difference'] for line in paired):+.3f}",
                f"{least['difference']:+.3f} ± {_cell(least['error'])} ({least['table']})",
                f"{len(better)} of {len(paired)}",
                ", ".join(worse) or "none",
            ])
    head = ["nats better than", "mean", "least", "better by two standard errors", "worse by two"]
    return markdown(head, rows) if rows else ""


def _by_model(found: Found, name: str) -> dict[tuple[Any, ...], list[float]]:
    """Returns figures of samples by table and model, the mean over seeds."""
    lines: list[Line] = [line for line in found["lines"] if name in line]
    groups = grouped(lines, ("table", "model"))
    return {key: np.mean([line[name] for line in of], 0).tolist() for key, of in groups.items()}


def samples_table(found: Found, name: str, head: str) -> str:
    """Returns shares, or the range of widths, of samples over the true ones, by model."""
    values, rows = _by_model(found, name), []
    for table in found["tables"]:
        cells = [values.get((table, model), []) for model in found["models"]]
        if name == "widths":
            cells = [[min(cell), max(cell)] if cell else [] for cell in cells]
        between = " to " if name == "widths" else ", "
        if any(cells):
            rows.append([table, *(between.join(f"{v:.2f}" for v in cell) for cell in cells)])
    return markdown([head, *found["models"]], rows) if rows else ""


def deciles_table(found: Found) -> str:
    """Returns the width of our samples over the true one by decile of the context."""
    rows = [
        [table, *(f"{value:.2f}" for value in values)]
        for (table, model), values in _by_model(found, "widths").items()
        if model == OURS
    ]
    return markdown(["width by decile", *map(str, range(1, 11))], rows) if rows else ""


def known_values(results: dict[str, Found]) -> Found:
    """Returns what the page shows, from the files of results."""
    return {
        "parts": [
            {"name": name.split("-")[1], "seconds": found["seconds"], **tables_of(found)}
            for name, found in results.items()
        ]
    }
