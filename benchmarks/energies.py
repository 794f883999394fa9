"""The command that trains flows on energies: gradients, annealing, and a lattice field."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import kappaflow as kf
from benchmarks.lines import Line, write_results
from benchmarks.machine import machine
from benchmarks.processes import console
from benchmarks.suite import KEPT, JsonFile
from benchmarks.tables import markdown

SEEDS, STEPS = 3, 1000
RING, RING_DEVIATION = 4.0, 0.4
SIDE = 4
FREE, BROKEN = (1.0, 0.0), (-2.0, 0.5)  # mass squared and coupling of a lattice field
SHORTER = {"annealing": 0.5, "inverse_temperature": 0.1}
WAYS: dict[str, dict[str, Any]] = {
    "path, annealed": SHORTER,
    "path, annealed longer": {"annealing": 0.75, "inverse_temperature": 0.05},
    "path, not annealed": {"annealing": 0.0},
}
LogDensity = Callable[[Tensor], Tensor]


def ring(modes: int = 8) -> tuple[LogDensity, Tensor]:
    """Returns equal Gaussians on a circle, with log Z = 0, and their centers."""
    angle = torch.arange(modes) * (2 * math.pi / modes)
    centers = RING * torch.stack((angle.cos(), angle.sin()), 1)

    def log_density(x: Tensor) -> Tensor:
        squares = (x[:, None] - centers.to(x)).square().sum(2) / (2 * RING_DEVIATION**2)
        return (-squares).logsumexp(1) - math.log(2 * math.pi * RING_DEVIATION**2 * modes)

    return log_density, centers


def lattice(mass_squared: float, coupling: float, side: int = SIDE) -> LogDensity:
    """Returns the log-density of the scalar field phi^4 on a periodic square lattice."""

    def log_density(x: Tensor) -> Tensor:
        field = x.reshape(-1, side, side)
        action = 0.5 * mass_squared * field**2 + coupling * field**4
        for axis in (1, 2):
            action = action + 0.5 * (field.roll(1, axis) - field) ** 2
        return -action.flatten(1).sum(1)

    return log_density


def free_log_normalizer(mass_squared: float, side: int = SIDE) -> float:
    """Returns log Z of the field without coupling, from the eigenvalues of its action.

    Example:
        >>> round(free_log_normalizer(1.0, side=1), 4)  # one place: half of log(2 pi)
        0.9189
    """
    wave = (2 * (math.pi * torch.arange(side, dtype=torch.float64) / side).sin()) ** 2
    eigenvalues = mass_squared + wave[:, None] + wave
    return 0.5 * (side**2 * math.log(2 * math.pi) - eigenvalues.log().sum().item())


def energies(
    *, steps: int = STEPS, seeds: int = SEEDS, file: JsonFile = KEPT / "energies.json"
) -> None:
    """Train flows on eight modes by both gradients, and on a lattice field with and without modes.

    Parameters
    ----------
    steps
        Number of steps of a training.
    seeds
        Number of trainings of each kind.
    file
        File of results.
    """
    torch.set_num_threads(1)
    lines = [_ring_line(way, seed, steps) for way in WAYS for seed in range(seeds)] + [
        _lattice_line(name, place, how, seed, steps)
        for name, place, how in (
            ("free", FREE, {"annealing": 0.0}),
            ("broken, annealed", BROKEN, SHORTER),
            ("broken, not annealed", BROKEN, {"annealing": 0.0}),
        )
        for seed in range(seeds)
    ]
    results = {"machine": machine(), "steps": steps, "lines": lines}
    write_results(file, results)
    for table in energies_values(results)["tables"].values():
        console.print(table, markup=False, soft_wrap=True)


def _ring_line(way: str, seed: int, steps: int) -> Line:
    log_density, centers = ring()
    torch.manual_seed(seed)
    flow = kf.real_nvp(2, depth=8, hidden=(32, 32))
    line, samples = _trained(flow, log_density, WAYS[way], seed, steps)
    shares = torch.cdist(samples.x, centers).argmin(1).bincount(minlength=len(centers))
    reached = int((shares > 0.01 * len(samples)).sum())
    return {"part": "ring", "kind": way, "seed": seed, "reached": reached, "log_z": 0.0, **line}


def _lattice_line(
    name: str, place: tuple[float, float], how: dict[str, Any], seed: int, steps: int
) -> Line:
    torch.manual_seed(seed)
    flow = kf.real_nvp(SIDE**2, depth=12, hidden=(64,), partition="alternating")
    line, samples = _trained(flow, lattice(*place), how, seed, steps)
    positive = (samples.x.mean(1) > 0).double().mean().item()
    exact = None if place[1] else free_log_normalizer(place[0])
    return {
        "part": "lattice",
        "kind": name,
        "seed": seed,
        "positive": positive,
        "log_z": exact,
        **line,
    }


def _trained(
    flow: kf.Flow, log_density: LogDensity, how: dict[str, Any], seed: int, steps: int
) -> tuple[Line, kf.energies.ImportanceSamples]:
    """Returns the results of a training, the doctor's findings, and samples."""
    started = time.perf_counter()
    result = kf.fit_energy(flow, log_density, steps=steps, seed=seed, progress=False, **how)
    time_s = time.perf_counter() - started
    found = {one.code: one for one in kf.doctor(flow, log_density=log_density).findings}
    missed = found["KF801"].evidence["missed_mass"] if "KF801" in found else None
    samples = result.samples
    names = ("free_energy", "effective_sample_size", "pareto_k")
    line = {name: getattr(samples, name) for name in names}
    line |= {
        "log_normalizer": samples.log_normalizer,
        "log_normalizer_error": samples.log_normalizer_error,
        "condition_number_median": result.history[-1]["condition_number_median"],
        "missed_mass": missed,
        "heavy": "KF802" in found,
        "time_s": time_s,
    }
    return line, samples


def energies_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the page."""
    lines = results["lines"]
    tables = {
        part: _table([line for line in lines if line["part"] == part], last)
        for part, last in (("ring", "reached"), ("lattice", "positive"))
    }
    return {"tables": tables, "steps": results["steps"], "side": SIDE}


def _table(lines: list[Line], last: str) -> str:
    """Returns a row for each training."""
    named = {"reached": "modes reached", "positive": "draws of positive mean"}[last]
    head = ["", "seed", named, "effective", "Pareto k", "log Z", "exact", "missed (KF801)", "s"]
    return markdown(
        head,
        [
            [
                line["kind"],
                str(line["seed"]),
                str(line[last]) if last == "reached" else f"{line[last]:.3f}",
                f"{line['effective_sample_size']:.3f}",
                f"{line['pareto_k']:.2f}",
                f"{line['log_normalizer']:.3f} ± {line['log_normalizer_error']:.3f}",
                "" if line["log_z"] is None else f"{line['log_z']:.3f}",
                "no" if line["missed_mass"] is None else f"{line['missed_mass']:.2f}",
                f"{line['time_s']:.0f}",
            ]
            for line in lines
        ],
    )
