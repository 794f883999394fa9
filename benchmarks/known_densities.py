"""Fits flows by the default settings to tables whose exact density is known, and compares them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
)

from benchmarks.lines import Line, append_line, append_machine, key_of, read_lines, write_results
from benchmarks.machine import machine
from benchmarks.processes import console
from benchmarks.suite import KEPT
from benchmarks.tables import markdown, text_table
from kappaflow import Flow, load
from kappaflow.data import load_table
from kappaflow.data.write import write_table
from kappaflow.runs import ModelSearch, RunSummary, TableConfig, fit_run
from kappaflow.runs.recipes import LEARNING_RATE
from kappaflow.training import batch_of, log_prob_of, loop

Rows = NDArray[np.float64]
LogProb = Callable[[Rows], Rows]

ROWS = 20_000  # rows of a table
FRESH = 100_000  # rows for the divergence and for the comparison of samples
CELL_ROWS = 20_000  # rows for the comparison of probabilities of cells
CELL_POINTS = 4  # points per direction of a cell for the mean of a density
NOISE_PAIRS = 10  # pairs of sets of true rows for the average difference
TRAINED_ON = ROWS * 8 // 10  # rows that a run trains on
LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FILE = "known-densities"
KEY = ("table", "seed", "seconds")
FIGURES = ("mean", "deviation", "correlation", *(f"quantile {level:g}" for level in LEVELS))


@dataclass(frozen=True)
class KnownDensity:
    """A density with exact log p and exact samples.

    Attributes:
        sample: Returns n rows of shape (n, D) from a generator of random numbers.
        log_prob: Returns log p of rows (n, D) in nats, shape (n,).
    """

    sample: Callable[[int, np.random.Generator], Rows]
    log_prob: LogProb


@dataclass(frozen=True)
class KnownTable:
    """A table made from a known density, and how a run treats it.

    Attributes:
        about: Description of the rows for the page.
        density: The density before rounding and copying.
        decimals: Decimals that the columns are rounded to; empty for no rounding.
        dequantize: Fit with `repair="dequantize"`: the flow then has the density of rounded rows
            with uniform noise of the resolution.
        copies: Share of the rows that is pasted a second time.
    """

    about: str
    density: KnownDensity
    decimals: tuple[int, ...] = ()
    dequantize: bool = False
    copies: float = 0.0

    @property
    def widths(self) -> Rows:
        """Resolution of each rounded column."""
        return 10.0 ** -np.array(self.decimals)

    def training_rows(self, n: int, rng: np.random.Generator) -> Rows:
        """Returns the rows of the table, n together with the copies, in random order."""
        copied = round(n * self.copies / (1 + self.copies))
        rows = self.rounded(self.density.sample(n - copied, rng))
        repeated = rows[rng.choice(len(rows), copied, replace=False)]
        return rng.permutation(np.concatenate([rows, repeated]))

    def rounded(self, rows: Rows) -> Rows:
        """Returns rows rounded to the decimals of the table."""
        if not self.decimals:
            return rows
        columns = [np.round(rows[:, i], one) for i, one in enumerate(self.decimals)]
        return np.stack(columns, 1)

    def target(self) -> KnownDensity:
        """Returns the density that the flow should have."""
        if not self.dequantize:
            return self.density
        return KnownDensity(
            lambda n, rng: self._noisy(self.density.sample(n, rng), rng),
            lambda rows: cell_log_prob(self.density.log_prob, self.rounded(rows), self.widths),
        )

    def _noisy(self, rows: Rows, rng: np.random.Generator) -> Rows:
        return self.rounded(rows) + self.widths * rng.uniform(-0.5, 0.5, rows.shape)


def cell_log_prob(log_prob: LogProb, centers: Rows, widths: Rows) -> Rows:
    """Returns the log of the mean density in the cells around rounded rows."""
    steps = (np.arange(CELL_POINTS) + 0.5) / CELL_POINTS - 0.5
    grid = np.stack(np.meshgrid(*[steps] * len(widths)), -1).reshape(-1, len(widths))
    found = np.stack([log_prob(centers + widths * point) for point in grid])
    return np.logaddexp.reduce(found, 0) - math.log(len(grid))


def _banana() -> KnownDensity:
    # x1 = z1, x2 = z2 + (z1^2 - 1), x3 = 3 z3, x4 = z4 / 2 - (z3^2 - 1), z standard normal
    def sample(n: int, rng: np.random.Generator) -> Rows:
        z = rng.standard_normal((n, 4))
        second = z[:, 1] + (z[:, 0] ** 2 - 1)
        fourth = z[:, 3] / 2 - (z[:, 2] ** 2 - 1)
        return np.stack([z[:, 0], second, 3 * z[:, 2], fourth], 1)

    def log_prob(rows: Rows) -> Rows:
        first, third = rows[:, 0], rows[:, 2] / 3
        second = rows[:, 1] - (first**2 - 1)
        fourth = 2 * (rows[:, 3] + (third**2 - 1))
        z = np.stack([first, second, third, fourth], 1)
        return -0.5 * (z**2).sum(1) - 2 * math.log(2 * math.pi) - math.log(3 / 2)

    return KnownDensity(sample, log_prob)


def _clusters() -> KnownDensity:
    weights = np.array([0.35, 0.25, 0.2, 0.15, 0.05])
    means = np.array([[0, 0, 0], [3, 0, -2], [-3, 2, 0], [0, -4, 3], [2, 4, 4]], float)
    deviations = np.array([
        [1, 0.5, 1],
        [0.5, 1, 0.5],
        [0.6, 0.6, 1.2],
        [1, 0.4, 0.6],
        [0.3, 0.3, 0.3],
    ])
    scales = np.array([0.01, 1.0, 1000.0])
    parts = Independent(Normal(_tensor(means * scales), _tensor(deviations * scales)), 1)
    mixture = MixtureSameFamily(Categorical(_tensor(weights)), parts)

    def sample(n: int, rng: np.random.Generator) -> Rows:
        of = rng.choice(len(weights), n, p=weights)
        return scales * (means[of] + deviations[of] * rng.standard_normal((n, 3)))

    return KnownDensity(sample, lambda rows: mixture.log_prob(_tensor(rows)).numpy())


def _gaussian() -> KnownDensity:
    mean, deviations = np.array([1.0, 20.0, -5.0]), np.array([0.3, 1.0, 1.0])
    correlation = np.array([[1.0, 0.7, -0.3], [0.7, 1.0, 0.2], [-0.3, 0.2, 1.0]])
    root = deviations[:, None] * np.linalg.cholesky(correlation)
    exact = MultivariateNormal(_tensor(mean), scale_tril=_tensor(root))
    return KnownDensity(
        lambda n, rng: mean + rng.standard_normal((n, 3)) @ root.T,
        lambda rows: exact.log_prob(_tensor(rows)).numpy(),
    )


def _heavy() -> KnownDensity:
    # x1 = t1, x2 = 0.8 x1 + 0.5 t2, with t of three degrees of freedom
    exact = StudentT(_tensor(np.array(3.0)))

    def sample(n: int, rng: np.random.Generator) -> Rows:
        t = rng.standard_t(3, (n, 2))
        return np.stack([t[:, 0], 0.8 * t[:, 0] + 0.5 * t[:, 1]], 1)

    def log_prob(rows: Rows) -> Rows:
        t = np.stack([rows[:, 0], (rows[:, 1] - 0.8 * rows[:, 0]) / 0.5], 1)
        return exact.log_prob(_tensor(t)).sum(1).numpy() - math.log(0.5)

    return KnownDensity(sample, log_prob)


def _tensor(values: Rows) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


_ROUNDED = (2, 1, 1)  # decimals
KNOWN: dict[str, KnownTable] = {
    "banana": KnownTable("two bent pairs: x2 = z2 + (z1² - 1) and so on, 4 columns", _banana()),
    "clusters": KnownTable(
        "a mixture of 5 Gaussians in 3 columns, of scales 0.01, 1 and 1000", _clusters()
    ),
    "rounded": KnownTable(
        "a correlated Gaussian in 3 columns, rounded to 2, 1 and 1 decimals", _gaussian(), _ROUNDED
    ),
    "rounded, dequantized": KnownTable(
        "the same with `--repair dequantize`; the truth is rounded and has the same noise",
        _gaussian(),
        _ROUNDED,
        dequantize=True,
    ),
    "copies": KnownTable(
        "the banana; a tenth of the rows is pasted a second time", _banana(), copies=0.1
    ),
    "heavy": KnownTable(
        "two columns of Student's t with 3 degrees of freedom, linearly dependent", _heavy()
    ),
}


def known_densities(
    *,
    seconds: float = 60.0,
    seed: int = 0,
    only: list[str] | None = None,
    again: list[str] | None = None,
    results: Path = KEPT,
) -> None:
    """Fit tables of known density by the default of `kappaflow fit`, and compare with the truth.

    Each table is fitted once, with model search and preparation of the data. One line for each
    goes to the file of results; fits that are in the file are not repeated.

    Parameters
    ----------
    seconds
        Processor time of each fit, model search included (`--max-time-s`).
    seed
        Seed of the rows, the split and the training.
    only
        Fit these tables instead of all.
    again
        Fit these tables again although the file has their results.
    results
        Folder of the files of results.
    """
    for name in (*(only or ()), *(again or ())):
        if name not in KNOWN:
            raise SystemExit(f"'only' should be among {', '.join(KNOWN)}; got {name!r}.")
    torch.set_num_threads(1)
    file = results / f"{FILE}.jsonl"
    append_machine(file, machine())
    have = {
        key_of(line, KEY) for line in read_lines(file)[0] if line["table"] not in (again or ())
    }
    for name in only or again or KNOWN:
        if (name, seed, seconds) not in have:
            line = measured(name, seconds, seed)
            append_line(file, line)
            kl = f"KL {line['kl']:.4f} ± {line['kl_error']:.4f} nats"
            console.print(f"{name}: {kl}. {line['verdict']}", markup=False, soft_wrap=True)
    lines, machines = read_lines(file)
    latest = {key_of(line, KEY): line for line in lines if line["seconds"] == seconds}
    write_results(
        file.with_suffix(".json"), {"machine": machines[-1], "lines": [*latest.values()]}
    )
    values = known_values({"lines": [*latest.values()]})
    console.print(f"{values['divergences']}\n\n{values['samples']}", markup=False, soft_wrap=True)


def measured(name: str, seconds: float, seed: int) -> Line:
    """Fits a flow to a table and compares its density and its samples with the truth."""
    known = KNOWN[name]
    rng = np.random.default_rng([seed, list(KNOWN).index(name)])
    rows = known.training_rows(ROWS, rng)
    with TemporaryDirectory() as folder:
        clock = time.process_time(), time.perf_counter()
        summary = _fitted(rows, known, seconds, seed, Path(folder))
        spent = time.process_time() - clock[0], time.perf_counter() - clock[1]
        flow = load(summary.folder)
    target = known.target()
    truth = target.sample(FRESH, rng)
    samples = flow.sample(FRESH, generator=torch.Generator().manual_seed(seed)).double().numpy()
    return {
        "table": name,
        "seed": seed,
        "seconds": seconds,
        "rows": len(rows),
        "repeated_rows": len(rows) - len(np.unique(rows, axis=0)),
        **_divergence(known, flow, rows, truth),
        "differences": differences(samples, truth),
        "noise": noise(target, FRESH, rng),
        "noise_of_training": noise(target, TRAINED_ON, rng),
        "not_finite_samples": int((~np.isfinite(samples)).any(1).sum()),
        "verdict": summary.result.verdict,
        "notes": list(summary.notes),
        "epochs": summary.result.epochs,
        "stopped_because": summary.result.stopped_because,
        "processor_s": round(spent[0], 1),
        "wall_s": round(spent[1], 1),
    }


def _fitted(rows: Rows, known: KnownTable, seconds: float, seed: int, folder: Path) -> RunSummary:
    """Returns the run of `kappaflow fit TABLE --max-time-s SECONDS`, timed by the processor."""
    table = str(folder / "table.csv")
    write_table(dict(zip(_names(rows), rows.T, strict=True)), table)
    loop.clock = time.process_time
    settings = {"seed": seed, "max_time_s": seconds, "learning_rate": LEARNING_RATE}
    source = TableConfig(table, split_seed=seed, repair="dequantize" if known.dequantize else None)
    return fit_run(source, ModelSearch(), folder / "run", progress=False, **settings)


def _names(rows: Rows) -> list[str]:
    return [f"x{i + 1}" for i in range(rows.shape[1])]


def _log_prob(flow: Flow, rows: Rows) -> Rows:
    table = load_table(pl.DataFrame(dict(zip(_names(rows), rows.T, strict=True))))
    return log_prob_of(flow, batch_of(table, flow)).numpy()


def _divergence(known: KnownTable, flow: Flow, rows: Rows, truth: Rows) -> Line:
    """Returns the KL divergence of the flow, that of a Gaussian, and that of cells."""
    target = known.target()
    exact = target.log_prob(truth)
    gaussian = MultivariateNormal(_tensor(rows.mean(0)), _tensor(np.cov(rows.T)))
    kl, error = _mean_and_error(exact - _log_prob(flow, truth))
    found = {
        "kl": kl,
        "kl_error": error,
        "kl_gaussian": float((exact - gaussian.log_prob(_tensor(truth)).numpy()).mean()),
        "entropy": -float(exact.mean()),
    }
    if known.decimals:
        centers = known.rounded(truth[:CELL_ROWS])
        cells = [
            cell_log_prob(one, centers, known.widths)
            for one in (known.density.log_prob, partial(_log_prob, flow))
        ]
        found["kl_cells"], found["kl_cells_error"] = _mean_and_error(cells[0] - cells[1])
    return found


def _mean_and_error(values: Rows) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))


def differences(one: Rows, truth: Rows) -> dict[str, float]:
    """Returns the largest absolute difference over the columns between two sets of rows."""
    deviation = truth.std(0)
    correlations = [np.corrcoef(rows, rowvar=False) for rows in (one, truth)]
    quantiles = [np.quantile(rows, LEVELS, axis=0) for rows in (one, truth)]
    apart = np.abs(quantiles[0] - quantiles[1]) / deviation
    found = [
        np.abs(one.mean(0) - truth.mean(0)) / deviation,
        np.abs(one.std(0) / deviation - 1),
        np.abs(correlations[0] - correlations[1]),
        *apart,
    ]
    return {name: float(np.max(value)) for name, value in zip(FIGURES, found, strict=True)}


def noise(density: KnownDensity, n: int, rng: np.random.Generator) -> dict[str, float]:
    """Returns the average differences by sampling error alone."""
    found = [
        differences(density.sample(n, rng), density.sample(FRESH, rng)) for _ in range(NOISE_PAIRS)
    ]
    return {name: float(np.mean([one[name] for one in found])) for name in FIGURES}


def known_values(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the page from the file of results."""
    lines = sorted(found["lines"], key=lambda line: list(KNOWN).index(line["table"]))
    head = ["table", "KL(true, flow) [nats]", "of cells", "of a Gaussian", "entropy"]
    return {
        "seconds": lines[0]["seconds"],
        "rows": ROWS,
        "fresh": FRESH,
        "trained_on": TRAINED_ON,
        "pairs": NOISE_PAIRS,
        "divergences": markdown(
            head,
            (
                [
                    line["table"],
                    f"{line['kl']:.4f} ± {line['kl_error']:.4f}",
                    f"{line['kl_cells']:.4f}" if "kl_cells" in line else "",
                    f"{line['kl_gaussian']:.4f}",
                    f"{line['entropy']:.3f}",
                ]
                for line in lines
            ),
        ),
        "samples": markdown(
            ["difference", *(line["table"] for line in lines)],
            ([name, *(_difference(line, name) for line in lines)] for name in FIGURES),
        ),
        "beyond": ", ".join(_beyond(lines)) or "none",
        "tables": text_table(
            ["table", "made from", "verdict"],
            (
                [
                    line["table"],
                    KNOWN[line["table"]].about,
                    line["verdict"].partition(" Checked:")[0].partition(" Its condition")[0],
                ]
                for line in lines
            ),
        ),
    }


def _beyond(lines: list[Line]) -> list[str]:
    """Returns the differences above twice the sampling error of the training rows, as text."""
    return [
        f"{line['table']}: {name} ({line['differences'][name]:.3f})"
        for line in lines
        for name in FIGURES
        if line["differences"][name] > 2 * line["noise_of_training"][name]
    ]


def _difference(line: Line, name: str) -> str:
    found, fresh, trained = (
        line[key][name] for key in ("differences", "noise", "noise_of_training")
    )
    return f"{found:.3f} ({fresh:.3f}, {trained:.3f})"
