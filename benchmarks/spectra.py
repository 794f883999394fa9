"""Extreme singular values without a matrix, compared with a Jacobian by jacrev and its SVD."""

import json as plain_json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import kappaflow as kf
from kappaflow.bijection import Bijection, Chain

ILL = 1e13  # approximate condition number of the ill-conditioned case
SIZE = 0.5  # standard deviation of biases, and of weights times the root of their inputs
ROWS_AT_ONCE = 128  # rows of a Jacobian of images in one pass
BOUND = 8.0  # bound on the log-scale of each coupling
Line = dict[str, Any]
Clock = Callable[[], float]


def spectra(
    *,
    dimensions: Sequence[int] = (64, 784, 3072),
    matrix_free: Sequence[int] = (12288,),
    depth: int = 8,
    hidden: Sequence[int] = (128, 128),
    threads: int = 1,
    json: Path | None = None,
) -> Line:
    """Measure sigma_max and sigma_min at one point in float32: times, errors, the 1e13 case.

    The reference values come from dense Jacobians in float64, with sigma_min from the inverse map.
    The dense float32 method takes both ends from one forward Jacobian, as a naive user would.

    Parameters
    ----------
    dimensions
        Dimensions for both methods; a float64 reference of 3072 dimensions takes a minute.
    matrix_free
        Dimensions for the matrix-free method alone.
    depth
        Number of couplings of the flow.
    hidden
        Widths of the hidden layers of the conditioners.
    threads
        Number of threads of torch.
    json
        File of results.

    Returns:
    -------
    dict
        The content of the file: the settings, and under "lines" the figures of each case.
    """
    torch.set_num_threads(threads)
    lines: list[Line] = []
    for n in dimensions:
        cases = case(n, depth, hidden), ill_conditioned(n, depth, hidden)
        for bijection, x in cases:
            lines.append(free_line(bijection, x) | dense_columns(bijection, x))
            lines[-1]["time_ratio"] = lines[-1]["dense_s"] / lines[-1]["time_s"]
    lines += [free_line(*case(n, depth, hidden)) for n in matrix_free]
    result = {
        "torch": torch.__version__,
        "threads": threads,
        "depth": depth,
        "hidden": list(hidden),
        "lines": lines,
    }
    print_table(lines)
    if json is not None:
        json.write_text(plain_json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def case(
    n: int, depth: int, hidden: Sequence[int], spread: float = 0.0
) -> tuple[Bijection, Tensor]:
    """Returns affine couplings with random weights, and a point (1, n).

    Args:
        n: Number of dimensions.
        depth: Number of couplings; their halves alternate.
        hidden: Widths of the hidden layers.
        spread: Standard deviation of the log-scales over the features in each coupling, in
            addition to the part that the weights compute. Above 0, linear couplings at both ends
            mix the features, so that no entry of the Jacobian reveals its smallest singular value.
    """
    generator = torch.Generator().manual_seed(0)
    half = kf.Partition.half(n)
    turns = [half, half.swapped()]
    parts: list[Bijection] = []
    for layer in range(depth):
        partition = turns[layer % 2]
        changed = len(partition.changed)
        net = filled(kf.nets.MLP(n - changed, 2 * changed, hidden), SIZE, generator)
        noise = torch.randn(changed, generator=generator)
        next(reversed(list(net.parameters()))).data[:changed] += spread * noise
        parts.append(kf.AffineCoupling(partition, net, scale_bound=BOUND, memory="store"))
    if spread:
        mixers = []
        for partition in 2 * turns:
            changed = len(partition.changed)
            net = filled(kf.nets.MLP(n - changed, changed, ()), 1.0, generator)
            mixers.append(kf.bijections.AdditiveCoupling(partition, net, memory="store"))
        parts = [*mixers[:2], *parts, *mixers[2:]]
    return Chain(parts).eval(), torch.randn(1, n, generator=generator)


def filled(net: kf.nets.MLP, size: float, generator: torch.Generator) -> kf.nets.MLP:
    """Returns the network with random biases and weights, scaled by the root of their inputs."""
    for parameter in net.parameters():
        inputs = 1 if parameter.dim() == 1 else parameter.shape[1]
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * size / inputs**0.5
    return net


def ill_conditioned(n: int, depth: int, hidden: Sequence[int]) -> tuple[Bijection, Tensor]:
    """Returns a case with a condition number of about `ILL`, by bisection of the spread."""
    low, high = 0.0, 8.0
    for _ in range(12):
        middle = (low + high) / 2
        found = kf.spectrum(*case(n, depth, hidden, middle), method="lanczos")
        low, high = (middle, high) if found.condition_number.item() < ILL else (low, middle)
    return case(n, depth, hidden, low)


def free_line(bijection: Bijection, x: Tensor, clock: Clock = time.perf_counter) -> Line:
    """Returns time and values of the matrix-free method."""
    time_s, found = timed(lambda: kf.spectrum(bijection, x), clock=clock)
    return {
        "dimensions": x[0].numel(),
        "condition_number": found.condition_number.item(),
        "status": found.status,
        "time_s": time_s,
        "sigma_max": found.sigma_max.item(),
        "sigma_min": found.sigma_min.item(),
    }


def dense_columns(bijection: Bijection, x: Tensor, clock: Clock = time.perf_counter) -> Line:
    """Returns the time of the dense method in float32, and the errors of both against float64."""
    repetitions = 1 if x[0].numel() > 1000 else 3
    dense_s, s = timed(
        lambda: torch.linalg.svdvals(jacobian(bijection.forward, x)),
        repetitions=repetitions,
        clock=clock,
    )
    free = kf.spectrum(bijection, x)
    wide, at = bijection.double(), x.double()
    with torch.no_grad():
        z = wide(at)[0]
    top, bottom = largest(jacobian(wide.forward, at)), 1 / largest(jacobian(wide.inverse, z))
    bijection.float()
    return {
        "dense_s": dense_s,
        "error_max": abs(free.sigma_max.item() / top - 1),
        "error_min": abs(free.sigma_min.item() / bottom - 1),
        "dense_error_max": abs(s[0].item() / top - 1),
        "dense_error_min": abs(s[-1].item() / bottom - 1),
        "dense_factor_min": max(s[-1].item() / bottom, bottom / max(s[-1].item(), 1e-300)),
    }


def jacobian(function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """Returns the Jacobian (n, n) at one point, by torch's own transformation."""
    chunk = ROWS_AT_ONCE if x.dim() > 2 else None  # all rows of an image need gigabytes
    rows = torch.func.jacrev(lambda point: function(point[None])[0].flatten(), chunk_size=chunk)
    return rows(x[0]).detach().reshape(x[0].numel(), -1)  # pyright: ignore[reportAttributeAccessIssue]


def largest(matrix: Tensor) -> float:
    """Returns the largest singular value, in half the time of all of them."""
    return torch.linalg.eigvalsh(matrix.T @ matrix)[-1].sqrt().item()


def timed(
    call: Callable[[], Any], repetitions: int = 3, *, clock: Clock = time.perf_counter
) -> tuple[float, Any]:
    """Returns the shortest time of a few calls by a clock, and the last result."""
    times, answer = [], None
    for _ in range(repetitions):
        start = clock()
        answer = call()
        times.append(clock() - start)
    return min(times), answer


def print_table(lines: Sequence[Line]) -> None:
    """Prints the figures, one row for each case."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    names = [name for name in names if name not in ("sigma_max", "sigma_min")]
    table = Table(title="Both ends of the spectrum at one point, float32")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for line in lines:
        table.add_row(*(written(line.get(name, "")) for name in names))
    Console().print(table)


def written(value: object) -> str:
    """Returns a number with two digits."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)
