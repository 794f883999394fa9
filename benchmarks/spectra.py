"""Extreme singular values without a matrix, compared with a Jacobian by jacrev and its SVD."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import kappaflow as kf
from kappaflow.bijection import Bijection, Chain

ILL = 1e13  # approximate condition number of the ill-conditioned case
SIZE = 0.5  # standard deviation of biases, and of weights times the root of their inputs
ROWS_AT_ONCE = 128  # rows of a Jacobian of images in one pass
BOUND = 8.0  # bound on the log-scale of each coupling
DEPTH, HIDDEN = 8, (128, 128)  # alternating couplings, and the hidden layers of their networks
Line = dict[str, Any]


def spectra_lines(dimensions: Sequence[int], matrix_free: Sequence[int]) -> list[Line]:
    """Returns the figures of each case."""
    lines: list[Line] = []
    for n in dimensions:
        for bijection, x in (case(n), ill_conditioned(n)):
            lines.append(free_line(bijection, x) | dense_columns(bijection, x))
            lines[-1]["time_ratio"] = lines[-1]["dense_s"] / lines[-1]["time_s"]
    return lines + [free_line(*case(n)) for n in matrix_free]


def case(n: int, spread: float = 0.0) -> tuple[Bijection, Tensor]:
    """Returns affine couplings with random weights, and a point (1, n)."""
    generator = torch.Generator().manual_seed(0)
    half = kf.Partition.half(n)
    turns = [half, half.swapped()]
    parts: list[Bijection] = []
    for layer in range(DEPTH):
        partition = turns[layer % 2]
        changed = len(partition.changed)
        net = filled(kf.nets.MLP(n - changed, 2 * changed, HIDDEN), SIZE, generator)
        noise = torch.randn(changed, generator=generator)
        next(reversed(list(net.parameters()))).data[:changed] += spread * noise
        parts.append(kf.AffineCoupling(partition, net, scale_bound=BOUND))
    if spread:
        mixers = []
        for partition in 2 * turns:
            changed = len(partition.changed)
            net = filled(kf.nets.MLP(n - changed, changed, ()), 1.0, generator)
            mixers.append(kf.bijections.AdditiveCoupling(partition, net))
        parts = [*mixers[:2], *parts, *mixers[2:]]
    return Chain(parts).eval(), torch.randn(1, n, generator=generator)


def filled(net: kf.nets.MLP, size: float, generator: torch.Generator) -> kf.nets.MLP:
    """Returns the network with random biases and weights, scaled by the root of their inputs."""
    for parameter in net.parameters():
        inputs = 1 if parameter.dim() == 1 else parameter.shape[1]
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * size / inputs**0.5
    return net


def ill_conditioned(n: int) -> tuple[Bijection, Tensor]:
    """Returns a case with a condition number of about `ILL`, by bisection of the spread."""
    low, high = 0.0, 8.0
    for _ in range(12):
        middle = (low + high) / 2
        found = kf.spectrum(*case(n, middle), method="lanczos")
        low, high = (middle, high) if found.condition_number.item() < ILL else (low, middle)
    return case(n, low)


def free_line(bijection: Bijection, x: Tensor) -> Line:
    """Returns time and values of the matrix-free method."""
    time_s, found = timed(lambda: kf.spectrum(bijection, x))
    return {
        "dimensions": x[0].numel(),
        "condition_number": found.condition_number.item(),
        "status": found.status,
        "time_s": time_s,
        "sigma_max": found.sigma_max.item(),
        "sigma_min": found.sigma_min.item(),
    }


def dense_columns(bijection: Bijection, x: Tensor) -> Line:
    """Returns the time of the dense method in float32, and the errors of both against float64."""
    repetitions = 1 if x[0].numel() > 1000 else 3
    dense_s, s = timed(
        lambda: torch.linalg.svdvals(jacobian(bijection.forward, x)),
        repetitions=repetitions,
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


def timed(call: Callable[[], Any], repetitions: int = 3) -> tuple[float, Any]:
    """Returns the shortest processor time of a few calls, and the last result."""
    times, answer = [], None
    for _ in range(repetitions):
        start = time.process_time()
        answer = call()
        times.append(time.process_time() - start)
    return min(times), answer
