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
    from kappaflow.report.factorization import changes
    from kappaflow.runs import factor_file
    from kappaflow.summary import facts_of

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
        return
    lines = [
        (str(number), changes(result, number), f"{condition:.3g}")
        for number, condition in enumerate(result.condition_numbers, start=1)
    ]
    print_columns([("coupling", "changes", "condition number"), *lines])
    print_text()
    files = {"couplings are in": out, "page": report}
    written = [(label, str(path)) for label, path in files.items() if path is not None]
    print_columns([*facts_of(result), *written])


def _plain(factorization: "Factorization") -> dict[str, Any]:
    """Returns the numbers for machines; None for numbers that are not finite."""
    import numpy as np

    from kappaflow.storage import plain

    names = ("residual", "inverse_residual", "condition_number", "lower_bound", "before_search")
    flipped = factorization.flipped
    couplings = [
        {
            "number": number,
            "kept": coupling.partition.kept,
            "changed": coupling.partition.changed,
            "condition_number": coupling.condition_number,
        }
        for number, coupling in enumerate(factorization.couplings, start=1)
    ]
    return plain({
        "features": len(factorization.matrix),
        "couplings": couplings,
        **{name: getattr(factorization, name) for name in names},
        "matrix_condition_number": float(np.linalg.cond(factorization.matrix.numpy())),
        "method": factorization.method,
        "flipped": None if flipped is None else flipped + 1,
        "note": factorization.note,
    })
