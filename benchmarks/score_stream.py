"""The command that compares `kappaflow score` of a large table with other libraries."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.lines import Line, write_results
from benchmarks.peak import ENVIRONMENT
from benchmarks.processes import Job, console, run
from benchmarks.score_rows import KINDS, OURS, describe, fit_ours, write_rows
from benchmarks.suite import KEPT, JsonFile
from benchmarks.tables import markdown, text_table

ROWS, FEATURES, DEPTH, WIDTH = 1_000_000, 10, 16, 128
REHEARSED = 10_000_000


def score_stream(
    *,
    rows: int = ROWS,
    depth: int = DEPTH,
    width: int = WIDTH,
    at_most_s: float = 120,
    rehearsal: bool = False,
    file: JsonFile = KEPT / "score.json",
) -> None:
    """Compare scores of a million rows of 10 columns with zuko and scikit-learn: time and memory.

    Each measurement has a separate process, with one thread of torch.

    Parameters
    ----------
    rows
        Number of rows of the parquet file.
    depth
        Number of couplings.
    width
        Width of the two hidden layers of the conditioners.
    at_most_s
        Time after which all but kappaflow stop; rows per second count the rows until then.
    rehearsal
        Score 10 million rows with kappaflow only, to see whether the cost per row stays constant.
    file
        File of results; a rehearsal is only printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        write_rows(data, REHEARSED if rehearsal else rows, FEATURES)
        for kind in OURS[: 1 if rehearsal else None]:
            fit_ours(kind, Path(folder), depth, width)
        shape = {"depth": depth, "width": width, "features": FEATURES, "at_most_s": at_most_s}
        place = {"folder": folder, "data": str(data)}
        jobs = [
            Job("score_rows", {"kind": kind, **shape, **place}, kind, ENVIRONMENT)
            for kind in (OURS[:1] if rehearsal else KINDS)
        ]
        done = run(jobs, threads=1)
    if rehearsal:
        for one in filter(None, done):
            console.print(rehearsed_table(one["result"]["parts_cpu_s"], one["result"]["rows"]))
        return
    found = [(job, one) for job, one in zip(jobs, done, strict=True) if one]
    lines: list[Line] = [{"kind": job.arguments["kind"], **one["result"]} for job, one in found]
    results = {
        "machine": found[0][1]["machine"] if found else None,
        "rows": rows,
        **shape,
        "descriptions": {line["kind"]: describe(line["kind"]) for line in lines},
        "lines": lines,
    }
    write_results(file, results)
    console.print(score_table(lines), markup=False, soft_wrap=True)


def rehearsed_table(moments: list[float], rows: int) -> str:
    """Returns rows per second of CPU time for each quarter, starting at the first part."""
    size, cuts = rows / len(moments), [i * (len(moments) - 1) // 4 for i in range(5)]
    quarters = zip(cuts, cuts[1:], strict=False)
    speeds = [(b - a) * size / (moments[b] - moments[a]) for a, b in quarters]
    return markdown(
        ("quarter of the table", "rows/s of CPU time"),
        [[str(i), f"{speed:,.0f}"] for i, speed in enumerate(speeds, 1)],
    )


def score_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the page."""
    keys = ("rows", "depth", "width", "features")
    lines = results["lines"]
    return {
        **{key: results[key] for key in keys},
        "at_most_s": f"{results['at_most_s']:g}",
        "table": score_table(lines),
        "short": {line["kind"]: f"{line['rows']:,}" for line in lines if not line["whole"]},
        "descriptions": text_table(["row", "what it is"], results["descriptions"].items()),
        "table_mb": f"{results['rows'] * results['features'] * 8 / 1e6:.0f}",
    }


def score_table(lines: list[Line]) -> str:
    """Returns rows per second, by elapsed and by CPU time, and peaks of memory."""
    head = ("", "parameters", "rows scored", "rows/s", "rows/s of CPU time", "peak [MB]")
    return markdown(
        head,
        [
            [
                line["kind"],
                f"{line['parameters']:,}" if line["parameters"] else "",
                f"{line['rows']:,}",
                f"{line['rows'] / line['time_s']:,.0f}",
                f"{line['rows'] / line['cpu_s']:,.0f}",
                f"{line['peak_bytes'] / 1e6:.0f}",
            ]
            for line in lines
        ],
    )
