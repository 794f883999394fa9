"""`kappaflow factor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kappaflow.cli.parameters import Count, Data, FirstPart, Integer, Json
from kappaflow.cli.show import print_columns, print_json, print_text, shown_step
from kappaflow.options import FactorMethod

if TYPE_CHECKING:
    from kappaflow.factor import Factorization


def factor(
    matrix: Data,
    /,
    *,
    couplings: Count = "auto",
    partition: FirstPart = "half",
    method: FactorMethod = "auto",
    max_time_s: float | None = None,
    seed: Integer = 0,
    out: Path | None = None,
    report: Path | None = None,
    json: Json = False,
) -> None:
    """Factor an invertible matrix into a few well-conditioned couplings.

    For example:

    kappaflow factor matrix.npy

    kappaflow factor matrix.csv --report factors.html

    Couplings alternate in the part that they change; the last one of the product acts first. Six
    are enough if the parts are halves.

    Parameters
    ----------
    matrix
        A npy, csv, tsv, parquet, arrow or npz file of numbers, or - for csv on standard input.
    couplings
        At most so many, or "fewest" for as few as work. auto: six if a search of a few seconds
        finds them, else at most 17 in closed form.
    partition
        half, alternating, or how many features the first part has.
    method
        auto takes the best; rotation, positive and svd are closed forms, continuation is a
        search.
    max_time_s
        Time limit of each search in seconds; 0 for closed forms only. By default a search takes a
        few seconds at most, and is left out above 64 features; but if no closed form has so few
        couplings, it has no limit.
    seed
        Of searches.
    out
        A safetensors file for the couplings.
    report
        An HTML file with pictures of the factors, and of what more couplings buy: for that the
        matrix is factored again with 8, 11, 12 and 16 couplings.
    """
    from kappaflow.runs import factor_file

    with shown_step() as show:
        result = factor_file(
            matrix,
            couplings=None if couplings == "fewest" else couplings,
            partition=partition,
            method=method,
            max_time_s=max_time_s,
            seed=seed,
            out=out,
            report=report,
            say=show,
        )
    if json:
        print_json(_plain(result))
    else:
        _print(result, {"couplings are in": out, "page": report})


def _print(factorization: "Factorization", files: dict[str, Path | None]) -> None:
    """Prints a line a coupling, and what the product is worth, for people."""
    from kappaflow.report.factorization import changes

    lines = [
        (str(number), changes(factorization, number), f"{condition:.3g}")
        for number, condition in enumerate(factorization.condition_numbers, start=1)
    ]
    print_columns([("coupling", "changes", "condition number"), *lines])
    print_text()
    print_columns([
        ("residual", f"{factorization.residual:.1e}"),
        ("residual of the inverse", f"{factorization.inverse_residual:.1e}"),
        ("largest condition number", f"{factorization.condition_number:.3g}"),
        ("lower bound for so many couplings", f"{factorization.lower_bound:.3g}"),
        *(
            [("closed form, before the search", f"{factorization.before_search:.3g}")]
            if factorization.before_search is not None
            else []
        ),
        ("condition number of the matrix", f"{_own_condition(factorization):.3g}"),
        ("method", factorization.method),
        (
            "sign flip",
            "none"
            if factorization.flipped is None
            else f"in coupling {factorization.flipped + 1}",
        ),
        *([("note", factorization.note)] if factorization.note else []),
        *((label, str(path)) for label, path in files.items() if path is not None),
    ])


def _plain(factorization: "Factorization") -> dict[str, Any]:
    """Returns what is printed, for machines; None for numbers that are not finite."""
    from kappaflow.storage import plain

    return plain({
        "features": len(factorization.matrix),
        "couplings": [
            {
                "number": number,
                "kept": coupling.partition.kept,
                "changed": coupling.partition.changed,
                "condition_number": coupling.condition_number,
            }
            for number, coupling in enumerate(factorization.couplings, start=1)
        ],
        "residual": factorization.residual,
        "inverse_residual": factorization.inverse_residual,
        "condition_number": factorization.condition_number,
        "lower_bound": factorization.lower_bound,
        "before_search": factorization.before_search,
        "matrix_condition_number": _own_condition(factorization),
        "method": factorization.method,
        "flipped": None if factorization.flipped is None else factorization.flipped + 1,
        "note": factorization.note,
    })


def _own_condition(factorization: "Factorization") -> float:
    import numpy as np

    return float(np.linalg.cond(factorization.matrix.numpy()))
