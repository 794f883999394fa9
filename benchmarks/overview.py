"""The small tables of docs/benchmarks.md: the main figures of each benchmark."""

from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median
from typing import Any

from benchmarks.converting_rows import CONVERTED, ORIGINAL
from benchmarks.factor_tables import reached
from benchmarks.goals import GOALS
from benchmarks.known_densities import KNOWN
from benchmarks.lines import Line, grouped
from benchmarks.names import FLOOR, OWN_IMAGES, QUANTITIES
from benchmarks.tables import REFERENCE, markdown, megabytes, number, reference_place, rows_at

Part = dict[str, Any]
Results = dict[str, Part]
LIBRARIES = ("zuko", "normflows", "nflows", "FrEIA")
MODES = ("recompute", "store", "invert")
STEPS = {"train_step": "training step", "log_prob": "log_prob", "sample": "sample"}
WIDTH = 64  # hidden layers of the spline couplings in the table


def overview(results: Results) -> dict[str, str]:
    """Returns the table of each benchmark by its name.

    Args:
        results: All committed results, by the name of their file.
    """
    return {
        "couplings": couplings(results["speed"], results["memory"]),
        "new_flows": new_flows(results["numerics"]["lines"]),
        "tables": ranks(results["tables-judged-60"]),
        **{
            name.replace("-", "_"): table(results[name]["lines"])
            for name, table in OF_LINES.items()
        },
    }


def couplings(speed: Part, memory: Part) -> str:
    """Returns ratios to the networks alone, and peaks of memory, at the reference setting."""
    rows = rows_at(speed, reference_place(speed))
    peaks = {
        line["row"]: megabytes(line["peak_bytes"])
        for line in memory["lines"]
        if (line["depth"], line["batch"]) == REFERENCE
    }
    names = (*(f"kappaflow, {mode}" for mode in MODES), *LIBRARIES)
    return markdown(
        ["time / time of the networks alone", *STEPS.values(), "memory [MB]"],
        [[name, *_ratios(rows[name], STEPS, "to_floor"), peaks[name]] for name in names],
    )


def new_flows(lines: Sequence[Line]) -> str:
    """Returns finite rows, round trip and condition number of each library at depth 128."""
    deep = {line["row"]: line for line in lines if line["depth"] == REFERENCE[0]}
    return markdown(
        ["", "finite rows", "round trip", "condition number"],
        [
            [
                name,
                f"{100 * line['finite_share']:.0f} %",
                number(line["round_trip"]),
                number(line["condition_number"]),
            ]
            for name in ("kappaflow, recompute", *LIBRARIES)
            if (line := deep.get(name))
        ],
    )


def ranks(found: Part) -> str:
    """Returns average rank and mean NLL of each model except those of zuko's tutorials."""
    tables = found["tables"]
    return markdown(
        ["", "average rank", "mean test NLL"],
        [
            [
                model,
                f"{rank:.2f}",
                f"{mean(found['nll'][f'{table}: {model}'] for table in tables):.3f}",
            ]
            for model, rank in sorted(found["ranks"].items(), key=lambda item: item[1])
            if "tutorial" not in model
        ],
    )


def densities(lines: Sequence[Line]) -> str:
    """Returns test NLLs and condition numbers of our couplings and of the best flow of zuko."""
    seconds = max(line["seconds"] for line in lines)
    finals = [line for line in lines if line["seconds"] == seconds and not line["failed"]]
    rows = []
    for (table,), same in grouped(finals, ("table",)).items():
        of = {family: found for (family,), found in grouped(same, ("family",)).items()}
        nll = {family: mean(line["test"] for line in of[family]) for family in of}
        best = min((name for name in nll if name != "kappaflow"), key=lambda name: nll[name])
        kappa = [
            f"{median(line['condition_number_p95'] for line in of[family]):.3g}"
            for family in ("kappaflow", best)
        ]
        rows.append([table, f"{nll['kappaflow']:.3f}", f"{nll[best]:.3f}", best, *kappa])
    head = ["test NLL [nats]", "kappaflow", "best of zuko", "which"]
    return markdown([*head, "95 % condition number", "of zuko"], rows)


def known_densities(lines: Sequence[Line]) -> str:
    """Returns the divergence of each flow and of a Gaussian from the truth."""
    return markdown(
        ["KL divergence from the truth [nats]", "kappaflow", "Gaussian"],
        [
            [
                line["table"],
                f"{line['kl']:.4f} ± {line['kl_error']:.4f}",
                f"{line['kl_gaussian']:.4f}",
            ]
            for line in sorted(lines, key=lambda line: list(KNOWN).index(line["table"]))
        ],
    )


def splines(lines: Sequence[Line]) -> str:
    """Returns ratios to zuko's couplings, and peaks of memory, at one width."""
    of_width = [line for line in lines if line["width"] == WIDTH]
    times = next(line["found"] for line in of_width if line["part"] == "times")
    peaks = {
        line["row"]: megabytes(line["found"]["peak_bytes"])
        for line in of_width
        if line["part"] == "memory"
    }
    return markdown(
        ["time / time of zuko's couplings", *STEPS.values(), "memory [MB]"],
        [
            [name, *_ratios(row, STEPS, "to_zuko"), peaks[name]]
            for name, row in times.items()
            if name != FLOOR
        ],
    )


def images(lines: Sequence[Line]) -> str:
    """Returns ratios to the networks alone, peaks of memory, and bits per dimension of digits."""
    rows = next(line["rows"] for line in lines if line["part"] == "speed")
    peaks = {line["row"]: line["peak_bytes"] for line in lines if line["part"] == "memory"}
    digits = grouped([line for line in lines if line["part"] == "digits"], ("row",))
    head = ["time / time of the networks alone", "forward + backward", "log_prob", "sample"]
    cells = []
    for name in (*map(OWN_IMAGES.format, MODES), "FrEIA Glow", "nflows Glow", "normflows Glow"):
        bits = [line["test"] for line in digits.get((name,), [])]
        ratios = _ratios(rows[name], QUANTITIES[1:], "to_floor")
        learned = f"{mean(bits):.3f}" if bits else ""
        cells.append([name, *ratios, megabytes(peaks[name]), learned])
    return markdown([*head, "memory [MB]", "bits / dimension"], cells)


def spectra(lines: Sequence[Line]) -> str:
    """Returns the gain in time and the errors of the smallest singular value."""
    return markdown(
        [
            "dimensions",
            "condition number",
            "time [s]",
            "times faster",
            "error",
            "error of the svd",
        ],
        [
            [
                f"{line['dimensions']:,}",
                number(line["condition_number"]),
                *(
                    number(line[key]) if key in line else ""
                    for key in ("time_s", "time_ratio", "error_min", "dense_error_min")
                ),
            ]
            for line in lines
        ],
    )


def sigma_min(lines: Sequence[Line]) -> str:
    """Returns the largest error of each method."""
    methods = {
        "products in float32": "in_float32",
        "`spectrum`, from matrices": "spectrum",
        "`spectrum`, Lanczos": "lanczos",
        "`profile`": "profile",
    }
    return markdown(
        ["largest relative error", "sigma_max", "sigma_min"],
        [
            [
                name,
                *(
                    f"{max(line[way][end] for line in lines):.0e}"
                    for end in ("sigma_max", "sigma_min")
                ),
            ]
            for name, way in methods.items()
        ],
    )


def energies(lines: Sequence[Line]) -> str:
    """Returns the range over the seeds of each kind of training."""
    rows = []
    for (kind,), same in grouped(lines, ("kind",)).items():
        reached = [line["reached"] for line in same if "reached" in line]
        missed = [line["missed_mass"] for line in same if line["missed_mass"] is not None]
        rows.append([
            kind,
            _range(reached, "d") if reached else "",
            _range([line["effective_sample_size"] for line in same], ".2f"),
            _range(missed, ".2f") if missed else "none",
        ])
    return markdown(["", "modes reached", "effective sample size", "missed mass"], rows)


def score(lines: Sequence[Line]) -> str:
    """Returns rows per second of processor time, and peaks of memory."""
    return markdown(
        ["", "rows/s", "memory [MB]"],
        [
            [line["kind"], f"{line['rows'] / line['cpu_s']:,.0f}", megabytes(line["peak_bytes"])]
            for line in lines
        ],
    )


def factor(lines: Sequence[Line]) -> str:
    """Returns sizes, the worst condition number and the longest median time of each method."""
    methods: dict[str, list[tuple[Any, Line]]] = {}
    found = {(line["row"], line["ensemble"], line["n"], line["couplings"]): line for line in lines}
    for goal in GOALS:
        line = found.get((goal.row, goal.ensemble, goal.n, goal.couplings))
        if line is not None and "residual" in line:
            methods.setdefault(goal.method, []).append((goal, line))
    return markdown(
        ["method", "couplings", "size", "largest condition number", "time [s]", "goals reached"],
        [
            [
                method,
                _range([goal.couplings for goal, _ in pairs], "d"),
                _range([goal.n for goal, _ in pairs], "d"),
                f"{max(line['condition_number']['worst'] for _, line in pairs):.3g}",
                f"at most {max(line['time_s']['median'] for _, line in pairs):.3g}",
                f"{sum(reached(*pair) == 'yes' for pair in pairs)} of {len(pairs)}",
            ]
            for method, pairs in methods.items()
        ],
    )


def doctor(lines: Sequence[Line]) -> str:
    """Returns the time of a diagnosis with its page."""
    return markdown(
        ["", "dimensions", "layers", "points", "time [s]", "in calls of log_prob"],
        [
            [
                line["flow"],
                f"{line['dimensions']:,}",
                f"{line['layers']}",
                f"{line['points']}",
                number(line["time_s"]),
                f"{line['log_probs']:,.0f}",
            ]
            for line in lines
        ],
    )


def converting(lines: Sequence[Line]) -> str:
    """Returns the ranges of the ratios of time and memory over all sizes of each flow."""
    times = grouped([line for line in lines if line["part"] == "times"], ("row",))
    peaks = {
        (line["row"], line["shape"]["features"], line["shape"]["depth"], line["kind"]): line
        for line in lines
        if line["part"] == "memory"
    }
    memory: dict[str, list[float]] = {}
    for (*place, kind), line in peaks.items():
        if kind == CONVERTED:
            original = peaks[*place, ORIGINAL]["peak_bytes"]
            memory.setdefault(line["row"], []).append(line["peak_bytes"] / original)
    return markdown(
        ["converted / original", "time", "memory"],
        [
            [
                name,
                _range([line["ratio"] for line in same], ".2f"),
                _range(memory[name], ".2f"),
            ]
            for (name,), same in times.items()
        ],
    )


def _ratios(row: Part, quantities: Iterable[str], to: str) -> list[str]:
    return [f"{row[quantity][to]:.2f}" for quantity in quantities]


def _range(values: Sequence[float], form: str) -> str:
    """Returns the least and the largest value, or one of them if both look alike."""
    ends = [format(end, form) for end in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


OF_LINES: dict[str, Callable[[Sequence[Line]], str]] = {
    "densities": densities,
    "known-densities": known_densities,
    "splines": splines,
    "images": images,
    "spectra": spectra,
    "sigma-min": sigma_min,
    "energies": energies,
    "score": score,
    "factor": factor,
    "doctor": doctor,
    "converting": converting,
}
