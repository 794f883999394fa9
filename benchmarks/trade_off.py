"""Largest condition number of a factor against the number of couplings."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from benchmarks.lines import (
    Line,
    append_line,
    grouped,
    key_of,
    read_lines,
    write_results,
)
from benchmarks.processes import Job, console, run
from benchmarks.suite import KEPT, JsonFile

COUPLINGS = (6, 8, 11, 12, 16)
MAPS = ("Gaussian", "orthogonal", "permutation", "geometric 1e2", "geometric 1e4")
DRAWS = {8: 20, 16: 20, 32: 20, 64: 20, 128: 5, 256: 5, 512: 1}
KEY = ("ensemble", "n", "draw", "couplings")
Numbers = Annotated[list[int] | None, Parameter(consume_multiple=True)]
CURVE = ("ensemble", "n", "couplings")
QUANTILES = {"least": 0.0, "low": 0.25, "median": 0.5, "high": 0.75, "largest": 1.0}


def trade_off(
    *,
    sizes: Numbers = None,
    draws: int | None = None,
    couplings: Numbers = None,
    threads: int = 2,
    file: JsonFile = KEPT / "trade-off.json",
) -> None:
    """Factor random matrices into more and more couplings, and print the condition numbers.

    Draws go line by line to a file beside the results, and what is there is not computed again:
    delete it when the code has changed. Everything takes a day, so that the draws are kept with
    the code.

    Parameters
    ----------
    sizes
        Numbers of features, instead of 8 to 512.
    draws
        At most so many of each ensemble, instead of 20 up to 64 features, 5 up to 256 and one.
    couplings
        At most so many in a factorization, instead of 6, 8, 11, 12 and 16.
    threads
        Of torch and numpy.
    file
        The file of results.
    """
    draw_file = file.with_suffix(".jsonl").resolve()
    have = {key_of(line, KEY) for line in read_lines(draw_file)[0]}
    jobs = []
    for n in sizes or DRAWS:
        for number in range(min(DRAWS.get(n, 20), draws or 20)):
            wanted = [(name, n, number, most) for name in MAPS for most in couplings or COUPLINGS]
            missing = [key for key in wanted if key not in have]
            if missing:
                arguments = {"wanted": missing, "file": str(draw_file)}
                jobs.append(Job("trade_off", arguments, f"{n} features, draw {number + 1}"))
    run(jobs, threads=threads)
    lines, machines = read_lines(draw_file)
    results = {"preset": None, "machine": machines[-1] if machines else None}
    write_results(file, results | {"lines": summary(lines)})
    print_summary(summary(lines))
    console.print(f"Wrote {file}", markup=False, soft_wrap=True)


def take_draws(wanted: Sequence[Sequence[Any]], file: Path) -> None:
    """Factors matrices and appends a line for each: what was found, or why nothing was."""
    for key in wanted:
        named = dict(zip(KEY, key, strict=True))
        append_line(file, named | one_draw(**named))


def one_draw(ensemble: str, n: int, draw: int, couplings: int) -> Line:
    """Returns the figures of the best conditioned factorization within so many couplings."""
    import kappaflow as kf
    from kappaflow.experiments import ensembles

    matrix = ensembles.draw(ensemble, n, draw)
    start = time.perf_counter()
    try:
        found = kf.factor_linear(matrix, couplings=couplings)
    except kf.NumericalError as error:
        return {"error": str(error)}
    return {
        "found": len(found),
        "method": found.method,
        "condition_number": found.condition_number,
        "residual": found.residual,
        "time_s": time.perf_counter() - start,
        "of_the_map": float(np.linalg.cond(matrix)),
    }


def summary(lines: Sequence[Line]) -> list[Line]:
    """Returns a line for each ensemble, size and number of couplings: quantiles over the draws.

    Draws without a factorization are counted, and have no part in the quantiles.
    """
    curves = []
    for key, of_key in grouped(sorted(lines, key=_place), CURVE).items():
        there = [line for line in of_key if "error" not in line]
        curve = dict(zip(CURVE, key, strict=True))
        curve |= {"draws": len(of_key), "failed": len(of_key) - len(there)}
        if there:
            values = [line["condition_number"] for line in there]
            curve |= {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}
            curve |= {
                "methods": dict(Counter(line["method"] for line in there)),
                "couplings_found": dict(Counter(str(line["found"]) for line in there)),
                "residual": max(line["residual"] for line in there),
                "time_s": float(np.median([line["time_s"] for line in there])),
                "of_the_map": float(np.median([line["of_the_map"] for line in there])),
            }
        curves.append(curve)
    return curves


def print_summary(curves: Sequence[Line]) -> None:
    """Prints medians, a row for each ensemble and size."""
    counts = sorted({curve["couplings"] for curve in curves})
    print(f"{'median over the draws':<24}" + "".join(f"{count:>9}" for count in counts))
    for (name, n), of_size in grouped(curves, ("ensemble", "n")).items():
        medians = {curve["couplings"]: curve.get("median") for curve in of_size}
        cells = [f"{medians[m]:9.3g}" if medians.get(m) else f"{'':9}" for m in counts]
        print(f"{name + ', ' + str(n):<24}" + "".join(cells))


def _place(line: Line) -> tuple[int, int, int]:
    order = MAPS.index(line["ensemble"]) if line["ensemble"] in MAPS else len(MAPS)
    return order, line["n"], line["couplings"]
