"""What the docs promise, measured on an accelerator: times, memory, spectra, equality, ranks."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

import kappaflow as kf
from benchmarks.images_rows import image_rows
from benchmarks.lines import Line, write_results
from benchmarks.machine import machine
from benchmarks.ours import recipe_rows
from benchmarks.peers import peer_rows
from benchmarks.processes import console
from benchmarks.row import ImageShape, Row, Shape
from benchmarks.rows import installed
from benchmarks.splines_rows import SplineNetworks, spline_rows
from benchmarks.suite import KEPT, JsonFile
from benchmarks.turns import in_turn
from kappaflow.autograd.checkpoint import MEMORY_MODES
from kappaflow.testing.contract import jittered
from kappaflow.training.likelihood import Likelihood

NONE = "No accelerator here: python -m benchmarks gpu measures on a CUDA device."
PEERS = ("zuko", "normflows")
TOLERANCES = {"float32": 1e-3, "float64": 1e-9}  # of relative differences from the CPU


@dataclass(frozen=True)
class Sizes:
    """What is measured: the shape of each family, and the rows of spectra and of the training."""

    affine: Shape = Shape()
    splines: Shape = SplineNetworks(batch=512)
    images: ImageShape = ImageShape()
    points: int = 32
    epochs: int = 5
    repetitions: int = 21


def gpu(*, repetitions: int = 21, file: JsonFile = KEPT / "gpu.json") -> None:
    """Measure steps (medians of repetitions in turn), memory, spectra, equality and ranks."""
    if not torch.cuda.is_available():
        console.print(NONE)
        raise SystemExit(1)
    write_results(file, measured("cuda", Sizes(repetitions=repetitions)))


def measured(device: str, sizes: Sizes) -> Line:
    """Returns all results on a device; "cpu" runs the same code where there is no accelerator."""
    families = _families(sizes)
    return {
        "machine": machine(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "tolerances": TOLERANCES,
        "shapes": {name: asdict(shape) for name, shape, _ in families},
        "lines": [line for one in families for line in _steps(*one, device, sizes.repetitions)],
        "spectra": _spectra(device, sizes),
        "equality": [
            _difference(row, family, shape, device, dtype)
            for family, shape, rows in families
            for row in rows
            if row.package == "kappaflow"
            for dtype in (torch.float32, torch.float64)
        ],
        "ranks": _ranks(device, sizes.epochs),
    }


def _families(sizes: Sizes) -> list[tuple[str, Any, list[Row]]]:
    """Returns the shape and the rows of each recipe: ours in each memory mode, and the peers."""
    own = [f"kappaflow{kind}, {mode}" for kind in ("", " glow") for mode in MEMORY_MODES]
    found = [
        ("real_nvp", sizes.affine, [*recipe_rows(), *peer_rows()]),
        ("spline", sizes.splines, spline_rows()),
        ("glow", sizes.images, image_rows()),
    ]
    return [
        (name, shape, installed([r for r in rows if r.name in own or r.name.startswith(PEERS)]))
        for name, shape, rows in found
    ]


def _steps(family: str, shape: Any, rows: list[Row], device: str, repetitions: int) -> list[Line]:  # noqa: ANN401
    """Returns time and peak memory of a training step of each row, compiled rows included."""
    own = [row for row in rows if row.package == "kappaflow"]
    variants = [(row, False) for row in rows] + [(row, True) for row in own]
    steps: dict[str, Callable[[], float]] = {}
    lines = []
    for row, compiled in variants:
        name = f"{row.name}, compiled" if compiled else row.name
        line: Line = {"family": family, "row": name, "peak_bytes": None, "time_s": None}
        try:
            step = _step_of(row, shape, device, compiled=compiled)
            step()
            line["peak_bytes"], steps[name] = _peak(step, device), step
        except Exception as error:  # a compiler or a library raises many kinds
            line["failed"] = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        lines.append(line)
    for name, times in in_turn(steps, repetitions).items() if steps else ():
        next(line for line in lines if line["row"] == name)["time_s"] = median(times)
    return lines


def _step_of(row: Row, shape: Any, device: str, *, compiled: bool) -> Callable[[], float]:  # noqa: ANN401
    """Returns a function that takes one training step and returns its seconds."""
    torch.manual_seed(0)
    model = row.build(shape)
    module, x = model.module.to(device), shape.data().to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=True)
    log_prob = model.log_prob
    if compiled:
        log_prob = partial(Likelihood(module, compiled=True), context=None, is_whole=True)  # pyright: ignore[reportArgumentType]

    def step() -> float:
        start = _now(device)
        optimizer.zero_grad()
        (-log_prob(x).mean()).backward()
        optimizer.step()
        return _now(device) - start

    return step


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak(call: Callable[[], object], device: str) -> int | None:
    """Returns the peak memory of a call beyond the memory in use before; None on the CPU."""
    if device != "cuda":
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() - before


def _spectra(device: str, sizes: Sizes) -> Line:
    """Returns the time of a profile on the device and on the CPU, and how far they differ."""
    flow, x = jittered(recipe_rows()[0].build(sizes.affine).module), sizes.affine.data()
    times, found = [], []
    for where in ("cpu", device):
        flow, x = flow.to(where), x[: sizes.points].to(where)
        start = _now(where)
        found.append(kf.profile(flow, x).condition_number.cpu())  # pyright: ignore[reportArgumentType]
        times.append(_now(where) - start)
    off = (found[1] / found[0] - 1).abs().max().item()
    return {"cpu_s": times[0], "device_s": times[1], "difference": off}


def _difference(row: Row, family: str, shape: Any, device: str, dtype: torch.dtype) -> Line:  # noqa: ANN401
    """Returns how far log_prob and gradients on the device are from those on the CPU."""
    torch.manual_seed(0)
    small = replace(shape, batch=min(shape.batch, 64))
    model, x = row.build(small), small.data(dtype)
    module, results = model.module.to(dtype), []
    for where in ("cpu", device):
        module.to(where).zero_grad()
        torch.manual_seed(0)
        log_prob = model.log_prob(x.to(where))
        log_prob.mean().backward()
        gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
        results.append([t.detach().cpu().double() for t in (log_prob, torch.cat(gradients))])
    off = [((b - a).norm() / a.norm()).item() for a, b in zip(*results, strict=True)]
    kind = str(dtype).removeprefix("torch.")
    line: Line = {"family": family, "row": row.name, "dtype": kind}
    within = max(off) <= TOLERANCES[kind]
    return line | {"within": within, "log_prob": off[0], "gradient": off[1]}


def _ranks(device: str, epochs: int) -> Line | None:
    """Returns the times and the NLL of a training by one rank and by two; None on one device."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        return None
    found: Line = {}
    for ranks in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            words = f"-m torch.distributed.run --nproc-per-node {ranks} -m kappaflow fit magic"
            words += f" --model real_nvp --quiet --device {device} --max-epochs {epochs}"
            command = [sys.executable, *words.split(), "--out", f"{folder}/run"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            result = json.loads((Path(folder) / "run" / "result.json").read_text("utf-8"))
            times = {"time_s": time.perf_counter() - start}
            found[str(ranks)] = times | {"nll": result["test_nll"]}
    return found
