"""Accuracy of sigma_min and sigma_max of float32 flows, over condition numbers."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import kappaflow as kf
from benchmarks.exact_jacobians import exact_extremes
from benchmarks.lines import Line, grouped, write_results
from benchmarks.machine import machine
from benchmarks.suite import KEPT, JsonFile
from benchmarks.tables import markdown, number
from kappaflow.conditioning import layers_of
from kappaflow.conditioning.points import measuring
from kappaflow.conditioning.spectrum import largest
from kappaflow.linearization import dense

HIDDEN, BOUND = (32, 32), 40.0  # conditioners; bound on the sum of log-scales over all couplings
LINEAR = 1e6  # condition number of a linear layer
HEADS = {
    "in_float32": "products in float32",
    "at_float32": "in float64, at float32's points",
    "spectrum": "`spectrum`, dense",
    "lanczos": "`spectrum`, Lanczos",
    "profile": "`profile`",
}
Extremes = tuple[Tensor, Tensor]
Make = Callable[[int, float, int], kf.Chain]


def sigma_min(
    *,
    features: Sequence[int] = (4, 16, 64),
    condition_numbers: Sequence[float] = (1e3, 1e5, 1e7, 1e9, 1e11, 1e13, 1e17),
    seeds: int = 5,
    threads: int = 1,
    file: JsonFile = KEPT / "sigma-min.json",
) -> None:
    """Compare sigma_min and sigma_max of float32 flows with extended precision.

    The reference is the map with the float32 weights at a float32 point, computed in extended
    precision. The weights of each flow are scaled so that its condition number there is close to
    the requested one.

    Parameters
    ----------
    features
        Number of features of the flows.
    condition_numbers
        Requested condition numbers, at least 1e7 for flows with linear layers.
    seeds
        Number of flows of each kind.
    threads
        Number of threads of torch.
    file
        File of results.
    """
    torch.set_num_threads(threads)
    lines = [
        measured(name, make, n, wanted, seed)
        for name, (make, least) in CASES.items()
        for n in features
        for wanted in condition_numbers
        if wanted >= least
        for seed in range(seeds)
    ]
    results = {"seeds": seeds, "features": list(features), "lines": lines}
    write_results(file, {"machine": machine(), **results})


def measured(name: str, make: Make, n: int, wanted: float, seed: int) -> Line:
    """Returns the errors of each method at one point of a flow of about a condition number."""
    x = torch.randn(1, n, generator=torch.Generator().manual_seed(seed))
    core = scaled_to(wanted, lambda size: make(n, size, seed).eval(), x)
    whole, free = kf.spectrum(core, x), kf.spectrum(core, x, method="lanczos")
    depth = kf.profile(kf.Flow(kf.StandardNormal(n), core), x)
    found = {
        "in_float32": extremes_at(core, states(core, x)),
        "at_float32": extremes_at(core, [state.double() for state in states(core, x)]),
        "spectrum": (whole.sigma_max, whole.sigma_min),
        "lanczos": (free.sigma_max, free.sigma_min),
        "profile": (depth.sigma_max[-1], depth.sigma_min[-1]),
    }
    truth = exact_extremes(core, x[0])
    line: Line = {"flow": name, "features": n, "wanted": wanted, "seed": seed}
    line["condition_number"] = truth[0] / truth[1]
    line["worst_layer"] = depth.layer_condition_number.max().item()
    for way, values in found.items():
        errors = [abs(s.item() / true - 1) for s, true in zip(values, truth, strict=True)]
        line[way] = dict(zip(("sigma_max", "sigma_min"), errors, strict=True))
    return line


def scaled_to(wanted: float, make: Callable[[float], kf.Chain], x: Tensor) -> kf.Chain:
    """Returns a flow from `make`, with a weight size that gives a condition number."""
    low, high = 0.0, 3.0
    for _ in range(24):
        middle = (low + high) / 2
        found = kf.spectrum(make(middle), x).condition_number.log().mean().exp()
        low, high = (middle, high) if found < wanted else (low, middle)
    return make(low)


def states(core: kf.Chain, x: Tensor) -> list[Tensor]:
    """Returns the inputs of all layers, computed in the dtype of x."""
    found = [x]
    with measuring(core):
        for layer in layers_of(core)[:-1]:
            found.append(layer.bijection(found[-1])[0])
    return found


def extremes_at(core: kf.Chain, points: Sequence[Tensor]) -> Extremes:
    """Returns both ends of the product of the layers at these points, in the points' dtype."""
    twin = copy.deepcopy(core).to(points[0].dtype)
    x = torch.eye(points[0].shape[1], dtype=points[0].dtype)
    there, back = (x.expand(len(points[0]), -1, -1) for _ in range(2))
    with measuring(twin):
        for layer, point in zip(layers_of(twin), points, strict=True):
            at = layer.bijection.linearize(point)
            there = dense(at.jv, point).to(x) @ there
            back = back @ dense(at.inverse_jv, at.value).to(x)
    return largest(there.double())[:, 0], 1 / largest(back.double())[:, 0]


def couplings(n: int, size: float, seed: int, depth: int = 8) -> kf.Chain:
    """Returns couplings with random weights of a given size."""
    core = kf.real_nvp(n, depth=depth, hidden=HIDDEN, couplings={"scale_bound": BOUND}).core
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in core.parameters():
            inputs = 1 if parameter.dim() == 1 else parameter.shape[-1]
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * size / inputs**0.5)
    return core


def with_linear(n: int, size: float, seed: int, form: str) -> kf.Chain:
    """Returns couplings with an ill-conditioned linear layer between them."""
    before, after = (couplings(n, size, s, depth=4) for s in (seed, seed + 1000))
    return kf.Chain([before, linear(stretching(n, seed), form), after])


def undone(n: int, size: float, seed: int) -> kf.Chain:
    """Returns couplings between an ill-conditioned linear layer and its inverse."""
    matrix = stretching(n, seed)
    parts = linear(matrix, "plain"), linear(torch.linalg.inv(matrix), "plain")
    return kf.Chain([parts[0], couplings(n, size, seed), parts[1]])


def stretching(n: int, seed: int) -> Tensor:
    """Returns a random matrix with condition number `LINEAR`, in float64."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, n, n, generator=generator, dtype=torch.float64)
    values = torch.logspace(0.5, -0.5, n, base=LINEAR, dtype=torch.float64)
    return torch.linalg.qr(left)[0] * values @ torch.linalg.qr(right)[0]


def linear(matrix: Tensor, form: str) -> kf.Bijection:
    """Returns a float32 layer with a matrix; for "lu", with changed signs."""
    if form == "plain":
        layer = kf.bijections.Linear(len(matrix))
        layer.load_state_dict({"weight": matrix.float(), "shift": layer.shift.detach()})
        return layer
    layer = kf.bijections.LULinear(len(matrix))
    order, lower, upper = torch.linalg.lu(matrix)
    upper = upper * upper.diagonal().sign()
    with torch.no_grad():
        layer.permutation.index.copy_(order.argmax(1))
        layer.triangles.copy_(lower.tril(-1) + upper.triu(1) + upper.diagonal().log().diag())
    return layer


CASES: dict[str, tuple[Make, float]] = {  # with the least condition number to request
    "8 couplings": (couplings, 1.0),
    "32 couplings": (lambda n, size, seed: couplings(n, size, seed, depth=32), 1.0),
    "8 couplings, a dense layer of 1e6": (lambda *a: with_linear(*a, form="plain"), 1e7),
    "8 couplings, an LU layer of 1e6": (lambda *a: with_linear(*a, form="lu"), 1e7),
    "a dense layer of 1e6, 8 couplings, its inverse": (undone, 1.0),
}


def error_table(lines: Sequence[Line], end: str) -> str:
    """Returns the largest errors of one end, by kind of flow and requested condition number."""
    rows = []
    for (flow, wanted), group in grouped(lines, ("flow", "wanted")).items():
        errors = (number(max(line[way][end] for line in group)) for way in HEADS)
        rows.append([flow, f"{wanted:.0e}", *errors])
    return markdown(["flow", "condition number", *HEADS.values()], rows)
