"""What keeps deep flows finite and well conditioned: zero last layers, or bounds on log-scales."""

import itertools
import math
from functools import cache
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from benchmarks.lines import (
    append_line,
    append_machine,
    key_of,
    parts_by_machine,
    read_lines,
    write_results,
)
from benchmarks.machine import machine
from benchmarks.suite import KEPT
from benchmarks.tables import markdown, number

# The development tables with the most columns among those with more than 10,000 rows:
# training steps and depths, in the order of measuring.
TABLES = {"patches": (300, (16, 64)), "glucose": (300, (16, 64)), "magic": (1500, (16, 64, 128))}
RATES = (1e-3, 1e-2)
STARTS = {True: "zero", False: "random"}  # the last layers of the conditioners
# Bounds on the log-scales: the form of the scale, and the bound of a layer at a depth.
BOUNDS = {
    "on the sum": ("tanh", lambda depth: 12.0 / depth),
    "on each layer": ("tanh", lambda depth: 2.0),
    "none": ("exp", lambda depth: 1.0),
}
HIDDEN, BATCH, POINTS, VALIDATED = (64, 64), 256, 64, 4096
KEY = ("table", "depth", "rate", "zero", "bound", "seed")
LineFile = Annotated[Path, Parameter(name="--json")]


def ablation(
    *,
    steps: int | None = None,
    seeds: int = 3,
    tables: list[str] | None = None,
    depths: list[int] | None = None,
    file: LineFile = KEPT / "ablation.jsonl",
) -> None:
    """Train deep RealNVPs on tables with each start of the last layers and each bound.

    Adam without clipping, at a usual and at a high learning rate. Results are appended, and an
    interrupted run continues. One thread.

    Parameters
    ----------
    steps
        Number of training steps instead of that of each table.
    seeds
        Number of trainings of each kind.
    tables
        Tables instead of patches, glucose and magic.
    depths
        Numbers of couplings instead of 16, 64 and, on magic, 128.
    file
        File of results, a line each.
    """
    torch.set_num_threads(1)
    append_machine(file, machine())
    done = {key_of(line, KEY) for line in read_lines(file)[0]}
    for table in tables or TABLES:
        planned, own_depths = TABLES[table]
        shapes = itertools.product(depths or own_depths, range(seeds))
        for (depth, seed), *rest in itertools.product(shapes, RATES, STARTS, BOUNDS):
            case: dict[str, Any] = dict(zip(KEY, (table, depth, *rest, seed), strict=True))
            if key_of(case, KEY) not in done:
                append_line(file, {**case, **_trained(**case, steps=steps or planned)})
    lines = read_lines(file)[0]
    results = {"machines": parts_by_machine(file, "table"), "lines": lines}
    write_results(file.with_suffix(".json"), results)


def _trained(
    table: str, depth: int, rate: float, zero: bool, bound: str, seed: int, steps: int
) -> dict[str, Any]:
    """Returns the steps until a loss that is not finite, and what the best weights reach."""
    import kappaflow as kf

    train, held_out = _rows(table)
    torch.manual_seed(seed)
    flow = _flow(train.shape[1], depth, zero, bound)
    with torch.no_grad():
        finite = torch.isfinite(flow.log_prob(held_out)).double().mean().item()
        new = kf.spectrum(flow.bijection, held_out[:POINTS]).condition_number
    adam = torch.optim.Adam(flow.parameters(), lr=rate, fused=True)
    best, kept, step, is_finite = math.inf, None, 0, True
    while step < steps and is_finite:
        for rows in torch.randperm(len(train)).split(BATCH):
            loss = -flow.log_prob(train[rows]).mean()
            is_finite = math.isfinite(loss.item())
            if step == steps or not is_finite:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
            step += 1
        with torch.no_grad():
            nll = -flow.log_prob(held_out).double().mean().item()
        if nll < best:
            best, kept = nll, {k: v.clone() for k, v in flow.state_dict().items()}
    found: dict[str, Any] = {
        "planned": steps,
        "steps": step,
        "new_finite": finite,
        "new_condition_number": _middle(new),
        "validation_nll": None if kept is None else best,
        "condition_number": None,
    }
    if kept is not None:
        flow.load_state_dict(kept)
        found["condition_number"] = _middle(
            kf.spectrum(flow.bijection, held_out[:POINTS]).condition_number
        )
    return found


@cache
def _rows(table: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the standardized training rows and some validation rows of a table."""
    from benchmarks.tables_suite.data import load
    from benchmarks.tables_suite.fitted import standardized

    parts = standardized(load(table))
    return tuple(  # pyright: ignore[reportReturnType]
        torch.as_tensor(rows, dtype=torch.float32)
        for rows in (parts.train, parts.validation[:VALIDATED])
    )


def _flow(features: int, depth: int, zero: bool, bound: str) -> Any:  # noqa: ANN401
    import kappaflow as kf

    scale, bound_of = BOUNDS[bound]
    half = kf.Partition.half(features)
    couplings = []
    for layer in range(depth):
        part = half.swapped() if layer % 2 else half
        net: Any = kf.nets.MLP(len(part.kept), 2 * len(part.changed), HIDDEN)
        if not zero:
            net.layers[-1].reset_parameters()
        couplings.append(kf.AffineCoupling(part, net, scale_bound=bound_of(depth), scale=scale))
    return kf.Flow(kf.StandardNormal(features), kf.CouplingStack.of(couplings))


def _middle(values: torch.Tensor) -> float | None:
    """Returns the median; None if it is not finite."""
    found = values.nan_to_num(torch.inf).quantile(0.5).item()
    return found if math.isfinite(found) else None


def ablation_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the page."""
    lines = results["lines"]
    head = ["depth", "last layers", "bound", "finite rows", "condition number"]
    for rate in RATES:
        head += [f"NLL at {rate:g}", "condition number"]
    rows = []
    for depth, zero, bound in dict.fromkeys((x["depth"], x["zero"], x["bound"]) for x in lines):
        here = [x for x in lines if (x["depth"], x["zero"], x["bound"]) == (depth, zero, bound)]
        share = here[0]["new_finite"]
        cells = [str(depth), STARTS[zero], bound, "all" if share == 1 else f"{100 * share:.1f} %"]
        cells.append(_number([x["new_condition_number"] for x in here]))
        for rate in RATES:
            cells += _cells([x for x in here if x["rate"] == rate], results["steps"])
        rows.append(cells)
    return {
        "table": markdown(head, rows),
        "seeds": len({line["seed"] for line in lines}),
        "steps": results["steps"],
        "depths": " ".join(map(str, sorted({line["depth"] for line in lines}))),
        "gap": f"{_largest_gap(lines):.2f}",
    }


def _largest_gap(lines: list[dict[str, Any]]) -> float:
    """Returns the largest difference in NLL between bounds, of zero starts at the usual rate."""
    nll: dict[int, dict[str, list[float]]] = {}
    for line in lines:
        if line["zero"] and line["rate"] == RATES[0] and line["validation_nll"] is not None:
            nll.setdefault(line["depth"], {}).setdefault(line["bound"], []).append(
                line["validation_nll"]
            )
    medians = [[median(values) for values in bounds.values()] for bounds in nll.values()]
    return max((max(values) - min(values) for values in medians), default=math.nan)


def _cells(lines: list[dict[str, Any]], steps: int) -> list[str]:
    """Returns the NLL and the condition number, with the steps of trainings that broke down."""
    if not lines:
        return ["", ""]
    known = [line for line in lines if line["validation_nll"] is not None]
    broken = [line["steps"] for line in lines if line["steps"] < steps]
    text = f"{median(line['validation_nll'] for line in known):.3f}" if known else "none"
    if broken:
        text += (
            f" ({len(broken)} of {len(lines)} broke down, at step {', '.join(map(str, broken))})"
        )
    return [text, _number([line["condition_number"] for line in lines])]


def _number(values: list[float | None]) -> str:
    return number(median(math.inf if value is None else value for value in values))
