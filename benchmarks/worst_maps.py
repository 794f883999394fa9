"""Linear maps that six couplings condition badly: a search, and how they get worse."""

import json
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag, expm

from benchmarks.suite import KEPT, JsonFile
from kappaflow import factor_linear
from kappaflow.errors import NumericalError
from kappaflow.report.charts import MUTED, Chart, Panel, Series
from kappaflow.report.charts.matplotlib import write_stills
from kappaflow.storage import write_bytes
from kappaflow_studies.ensembles import draw

DRAWN = 8  # number of random maps for each size and norm
RETRIES = 3  # number of seeds for a map that seems worse than all before
STEPS = {3: 80, 4: 80, 5: 80, 8: 80, 9: 80, 16: 60, 32: 30, 64: 12}  # of the climb, by n
GROWTH_NORMS = (10.0, 30.0, 100.0, 300.0, 1000.0)
FIGURE = Path("docs/theory/worst-maps")
LINES = {
    "random maps, median": "drawn",
    "worst structured map": "structured",
    "worst map after a climb": "searched",
}


class Map(NamedTuple):
    """T = left exp(logs) right, of determinant 1; the logarithms are those of singular values."""

    left: np.ndarray
    logs: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray, norm: float) -> "Map":
        """Returns the map with these singular vectors, and with max(|T|, |T^-1|) = norm."""
        left, values, right = np.linalg.svd(matrix)
        if np.linalg.det(left) * np.linalg.det(right) < 0:
            right[-1] *= -1
        return cls(left, with_norm(np.log(values), norm), right)

    def moved(self, size: float, norm: float, generator: np.random.Generator) -> "Map":
        """Returns a map nearby: both rotations turned, all singular values changed."""
        n = len(self.logs)
        turns = [generator.standard_normal((n, n)) * size / n**0.5 for _ in range(2)]
        left, right = (expm(turn - turn.T) for turn in turns)
        logs = self.logs + size * np.log(norm) * generator.standard_normal(n)
        return Map(self.left @ left, with_norm(logs, norm), right @ self.right)

    @property
    def matrix(self) -> np.ndarray:
        return self.left * np.exp(self.logs) @ self.right


def with_norm(logs: np.ndarray, norm: float) -> np.ndarray:
    """Returns the logarithms with sum 0 and with log(norm) as their largest absolute value."""
    centered = logs - logs.mean()
    size = abs(centered).max()
    return centered * np.log(norm) / size if size > 0 else centered


def starts(n: int, norm: float) -> Iterator[tuple[str, Map]]:
    """Yields maps with structure: extreme spectra between rotations that couplings find hard."""
    d = n // 2
    spectra = {
        "one small": [-1.0] + [1 / (n - 1)] * (n - 1),
        "one large": [1.0] + [-1 / (n - 1)] * (n - 1),
        "two-block": [1.0] * d + [-1.0] * d + [0.0] * (n % 2),
        "geometric": np.linspace(1, -1, n),
    }
    halves = [draw("orthogonal", max(size, 1), 1) for size in (d, n - d)]
    cycle = np.eye(n)[[*range(n - 3), n - 1, n - 3, n - 2]] if n > 2 else np.eye(n)
    rotations = {
        "random": draw("orthogonal", n, 0),
        "none": np.eye(n),
        "in each half": block_diag(*halves),
        "exchanging halves": np.roll(np.asarray(block_diag(*halves)), d, axis=0),
        "three-cycle": cycle,
    }
    for spectrum, logs in spectra.items():
        scales = np.exp(with_norm(np.array(logs), norm))
        for rotation, turn in rotations.items():
            yield f"{spectrum}, {rotation}", Map.of(scales[:, None] * turn, norm)
    if n % 2 == 0:
        shift = block_diag(np.eye(d) + norm * np.eye(d, k=1), np.eye(d))
        yield (
            "far from normal",
            Map.of(np.roll(np.asarray(shift), d, axis=0), norm),
        )


def outliers(norm: float) -> dict[str, np.ndarray]:
    """Returns maps with one small singular value, or one in each half; all others are equal."""
    rest = norm ** (1 / 3)
    cycle = np.zeros((4, 4))
    cycle[0, 0], cycle[1, 3], cycle[2, 1], cycle[3, 2] = 1 / norm, rest, rest, rest
    other = np.roll(cycle, (2, 2), (0, 1))
    both = np.zeros((8, 8))
    both[np.ix_([0, 1, 4, 5], [0, 1, 4, 5])] = cycle
    both[np.ix_([2, 3, 6, 7], [2, 3, 6, 7])] = other
    return {
        "small value in the first half, n = 4": cycle,
        "small value in the second half, n = 4": other,
        "one in each half, n = 8": both,
        "one in each half, diagonal, n = 8": np.diag([1 / norm, rest, rest, rest] * 2),
    }


def ratio(found: Map, norm: float, seed: int = 0) -> float:
    """Returns kappa_6 / norm^(1/3) as far as the factorization finds it; nan if it fails."""
    try:
        made = factor_linear(found.matrix, couplings=6, method="continuation", seed=seed)
    except NumericalError:
        return float("nan")
    return made.condition_number / norm ** (1 / 3)


def confirmed(found: Map, norm: float, first: float, least: float) -> float:
    """Returns the smallest ratio of several seeds, as soon as one is not above `least`."""
    best = first
    for seed in range(1, RETRIES):
        if not best > least:
            break
        best = np.fmin(best, ratio(found, norm, seed))
    return float(best)


def climb(n: int, norm: float, steps: int, row: dict) -> None:
    """Fills a row: random maps, structured maps, and the worst after a climb from the worst."""
    generator = np.random.default_rng([n, round(norm)])
    failed, worst, name, ratios = 0, -np.inf, "", {}
    shapes = [draw("Gaussian", n, number) for number in range(DRAWN)]
    drawn = [ratio(Map.of(shape, norm), norm) for shape in shapes]
    here = Map.of(shapes[0], norm)
    for label, start in starts(n, norm):
        first = ratio(start, norm)
        failed += bool(np.isnan(first))
        ratios[label] = confirmed(start, norm, first, worst)
        if ratios[label] > worst:
            worst, name, here = ratios[label], label, start
    row |= {"drawn": float(np.nanmedian(drawn)), "drawn_most": float(np.nanmax(drawn))}
    row |= {"structured": worst, "start": name, "starts": ratios}
    size = 0.3
    for _ in range(steps):
        trial = here.moved(size, norm, generator)
        first = ratio(trial, norm)
        failed += bool(np.isnan(first))
        found = confirmed(trial, norm, first, worst)
        size *= 1.4 if found > worst else 0.92
        if found > worst:
            worst, here = found, trial
    row |= {"searched": worst, "failed": failed, "steps": steps}


def growth() -> list[dict]:
    """Returns the largest condition number of a coupling of each outlier map, by norm."""
    rows = []
    for norm in GROWTH_NORMS:
        for name, matrix in outliers(norm).items():
            kappas = [
                factor_linear(matrix, method="continuation", seed=seed).condition_number
                for seed in range(RETRIES)
            ]
            rows.append({"map": name, "norm": norm, "condition_number": min(kappas)})
            print(rows[-1], flush=True)
    return rows


def worst_maps(
    *,
    features: list[int] | None = None,
    norms: list[float] | None = None,
    file: JsonFile = KEPT / "worst-maps.json",
    figure: Path = FIGURE,
) -> None:
    """Search for maps whose six couplings are badly conditioned, and draw the worst ratios.

    The ratio is the largest condition number of a coupling over max(|T|, |T^-1|)^(1/3), at
    determinant 1. Sizes and norms that are in the file are not computed again. All of them take
    about an hour on one thread.

    Parameters
    ----------
    features
        Sizes of the maps.
    norms
        Values of max(|T|, |T^-1|).
    file
        File of results.
    figure
        Path of the figure, without its suffix.
    """
    kept = json.loads(file.read_text("utf-8")) if file.exists() else {"maps": [], "outliers": []}
    done = {(row["features"], row["norm"]) for row in kept["maps"]}
    for norm in norms or [10.0, 100.0]:
        for n in features or list(STEPS):
            if (n, norm) in done:
                continue
            begun, row = perf_counter(), {"features": n, "norm": norm}
            climb(n, norm, STEPS.get(n, 30), row)
            kept["maps"].append(row | {"seconds": round(perf_counter() - begun)})
            print({key: value for key, value in row.items() if key != "starts"}, flush=True)
            _write(file, kept)
    kept["outliers"] = kept["outliers"] or growth()
    _write(file, kept)
    write_stills(chart(kept, figure.name), figure.parent)


def _write(file: Path, kept: dict) -> None:
    write_bytes(file, (json.dumps(kept, indent=1) + "\n").encode())


def chart(kept: dict, name: str) -> Chart:
    """Returns the ratios by the number of features and the growth of the outlier maps by norm."""
    panels = []
    for norm in sorted({row["norm"] for row in kept["maps"]}):
        mine = [row for row in kept["maps"] if row["norm"] == norm and row["features"] % 2 == 0]
        mine.sort(key=lambda row: row["features"])
        series = [
            Series(
                name=label,
                x=[float(row["features"]) for row in mine],
                y=[row[key] for row in mine],
                tone=tone,
            )
            for tone, (label, key) in enumerate(LINES.items())
        ]
        title = f"max(|T|, |T^-1|) = {norm:g}"
        y_range = (0.0, 8.0)
        panels.append(
            Panel(title=title, x="features", y="ratio", x_log=True, y_range=y_range, series=series)
        )
    names = list(dict.fromkeys(row["map"] for row in kept["outliers"]))
    series = []
    for tone, label in enumerate(names):
        mine = [row for row in kept["outliers"] if row["map"] == label]
        x, y = ([row[key] for row in mine] for key in ("norm", "condition_number"))
        series.append(Series(name=label, x=x, y=y, tone=tone + len(LINES)))
    bound: list[float | None] = [end ** (1 / 3) for end in GROWTH_NORMS]
    series.append(
        Series(name="lower bound", x=[*GROWTH_NORMS], y=bound, tone=MUTED, kind="dotted")
    )
    panels.append(
        Panel(
            title="maps with outliers",
            x="max(|T|, |T^-1|)",
            y="condition number",
            x_log=True,
            y_log=True,
            series=series,
        )
    )
    return Chart(
        name=name,
        title="Six couplings at the worst maps that a search finds",
        caption="Ratio: the largest condition number of a coupling, as found by factor_linear, "
        "over max(|T|, |T^-1|)^(1/3), at determinant 1.",
        panels=panels,
        columns=3,
    )
