"""Scoring of a table on disk by our command, flows of zuko, and a kernel density estimate."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.peak import peak_of_call
from kappaflow.data.write import TableWriter
from kappaflow.runs import ModelConfig, TableConfig, fit_run

OURS = ("kappaflow score, real_nvp", "kappaflow score, spline")
ZUKO = ("zuko, RealNVP", "zuko, NSF")
KERNELS = "scikit-learn, KernelDensity"
KINDS = (OURS[0], ZUKO[0], OURS[1], ZUKO[1], KERNELS)
TRAINED, BATCH, KERNEL_BATCH = 20_000, 4096, 256


def describe(kind: str) -> str:
    """Returns the description of a row."""
    return {
        OURS[0]: "the command, on a run of `real_nvp` trained for one epoch; it looks through the "
        "table first, and writes the scores and their percentiles to a parquet file",
        OURS[1]: "the same of `spline`",
        ZUKO[0]: "`zuko.flows.RealNVP(features, transforms=depth, hidden_features=hidden)`; the "
        f"table is read by polars in one go, log_prob taken of {BATCH:,} rows at a time, the "
        "scores written to a parquet file; weights as they are initialized, which costs the same",
        ZUKO[1]: "`zuko.flows.NSF(features, transforms=depth, hidden_features=hidden)` likewise",
        KERNELS: f"`KernelDensity(bandwidth=0.5)` of {TRAINED:,} rows, {KERNEL_BATCH} rows at a "
        "time, of a table that is read as for zuko",
    }[kind]


def write_rows(path: Path, rows: int, features: int) -> None:
    """Writes samples of a mixture of two Gaussians, with at most a million rows in memory."""
    generator, chunks = np.random.default_rng(0), []
    for start in range(0, rows, 1_000_000):
        count = min(1_000_000, rows - start)
        x = generator.standard_normal((count, features))
        x += 2 * (generator.random((count, 1)) < 0.5)
        chunks.append(path.with_name(f"{path.stem}-{start}.parquet"))
        pl.DataFrame({f"x{i}": x[:, i] for i in range(features)}).write_parquet(chunks[-1])
    pl.scan_parquet(chunks).sink_parquet(path)
    for chunk in chunks:
        chunk.unlink()
    pl.read_parquet(path, n_rows=TRAINED).write_parquet(path.with_name("train.parquet"))


def fit_ours(kind: str, folder: Path, depth: int, width: int) -> None:
    """Trains one of our runs."""
    model = ModelConfig(_recipe(kind), {"depth": depth, "hidden": (width, width)})
    source = TableConfig(data=str(folder / "train.parquet"))
    fit_run(source, model, folder / _recipe(kind), progress=False, max_epochs=1)


def score_rows(
    kind: str,
    folder: str,
    data: str,
    depth: int,
    width: int,
    features: int,
    at_most_s: float,
) -> dict[str, Any]:
    """Returns times and memory of one row of the benchmark, measured in this process."""
    score: Callable[[], dict[str, Any]]
    if kind in OURS:
        score = partial(_ours, Path(folder) / _recipe(kind), data)
    else:
        log_prob, parameters, batch = _other(kind, Path(folder), depth, width, features)
        score = partial(_others, log_prob, parameters, batch, data, at_most_s)
    found: dict[str, Any] = {}

    def timed() -> None:
        start, cpu = time.perf_counter(), time.process_time()
        found.update(score())
        found.setdefault("time_s", time.perf_counter() - start)
        found.setdefault("cpu_s", time.process_time() - cpu)

    peak = peak_of_call(timed)
    total = pl.scan_parquet(data).select(pl.len()).collect().item()
    return {**found, "whole": found["rows"] == total, "peak_bytes": peak}


def _recipe(kind: str) -> str:
    return kind.split(", ")[1]


def _ours(run: Path, data: str) -> dict[str, Any]:
    from kappaflow import load
    from kappaflow.cli.app import main

    moments, cpu, append = [], [], TableWriter.append

    def noted(self: TableWriter, columns: Mapping[str, np.ndarray] | pl.DataFrame) -> None:
        append(self, columns)
        moments.append(time.perf_counter())
        cpu.append(time.process_time())

    TableWriter.append = noted
    out, start = Path(data).with_name("ours.parquet"), time.perf_counter()
    if main(["score", str(run), data, "--out", str(out)]):
        raise SystemExit("the command failed")
    rows = pl.scan_parquet(out).select(pl.len()).collect().item()
    parameters = sum(p.numel() for p in load(run).parameters())
    since = [moment - start for moment in moments]
    return {"rows": rows, "parameters": parameters, "parts": since, "parts_cpu_s": cpu}


def _others(
    log_prob: Callable[[np.ndarray], np.ndarray],
    parameters: int | None,
    batch: int,
    data: str,
    at_most_s: float,
) -> dict[str, Any]:
    start, scores = time.perf_counter(), []
    x = pl.read_parquet(data).to_numpy()
    for first in range(0, len(x), batch):
        scores.append(log_prob(x[first : first + batch]))
        if time.perf_counter() - start > at_most_s:
            break
    found = np.concatenate(scores)
    pl.DataFrame({"log_prob": found}).write_parquet(Path(data).with_name("theirs.parquet"))
    return {"rows": len(found), "parameters": parameters}


def _other(
    kind: str, folder: Path, depth: int, width: int, features: int
) -> tuple[Callable[[np.ndarray], np.ndarray], int | None, int]:
    """Returns log_prob of arrays, the number of parameters, and the number of rows per call."""
    if kind == KERNELS:
        from sklearn.neighbors import KernelDensity  # pyright: ignore[reportMissingImports]

        kernels = KernelDensity(bandwidth=0.5)
        kernels.fit(pl.read_parquet(folder / "train.parquet").to_numpy())
        return kernels.score_samples, None, KERNEL_BATCH
    import zuko  # pyright: ignore[reportMissingImports]

    recipe = zuko.flows.RealNVP if kind == ZUKO[0] else zuko.flows.NSF
    flow = recipe(features, transforms=depth, hidden_features=(width, width))

    @torch.no_grad()
    def log_prob(x: np.ndarray) -> np.ndarray:
        return flow().log_prob(torch.from_numpy(x).float()).double().numpy()

    return log_prob, sum(p.numel() for p in flow.parameters()), BATCH
