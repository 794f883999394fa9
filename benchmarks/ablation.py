"""What keeps deep flows finite and well conditioned: zero last layers, or bounds on log-scales."""

import itertools
import math
from functools import cache
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from benchmarks.lines import (
    Line,
    append_line,
    append_machine,
    grouped,
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
LARGE = 1e4  # NLL that is shown by its power of ten
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
    planned = {line["table"]: line["planned"] for line in lines}
    return {
        "steps": ", ".join(f"{steps:,} on {table}" for table, steps in planned.items()),
        "seeds": len({line["seed"] for line in lines}),
        "fewer": _fewer_seeds(lines),
        "compared": _compared_table(lines),
        "broken": {
            start: [_broken_text(lines, zero, bound) for bound in BOUNDS]
            for zero, start in STARTS.items()
        },
        "overall": {
            name: [_overall(lines, *option, rate) for rate in RATES]
            for name, option in OPTIONS.items()
        },
        "worse": {name: _clear(lines, *option, 1) for name, option in OPTIONS.items()},
        "better": {name: _clear(lines, *option, -1) for name, option in OPTIONS.items()},
        "factors": [_factors(lines, rate) for rate in RATES],
        "table": _medians_table(lines),
    }


DEFAULT = (True, "on the sum")  # the start and the bound of our recipes
OPTIONS = {
    "random": (False, "on the sum"),
    "each": (True, "on each layer"),
    "none": (True, "none"),
}
NAMES = {"random": "random last layers", "each": "bound on each layer", "none": "no bound"}
MIN_PAIRS = 2  # for a standard error


def _fewer_seeds(lines: list[Line]) -> str:
    """Returns the depths of tables that have fewer seeds than the others, as text."""
    seeds = {key: {line["seed"] for line in rows} for key, rows in _groups(lines).items()}
    most = max(map(len, seeds.values()))
    fewer = dict.fromkeys((key[:2], len(own)) for key, own in seeds.items() if len(own) < most)
    return ", ".join(f"{n} on {table} at depth {depth}" for (table, depth), n in fewer)


def _groups(lines: list[Line]) -> dict[tuple[Any, ...], list[Line]]:
    """Returns the trainings by table, depth and learning rate, ordered."""
    ordered = sorted(lines, key=lambda line: (line["depth"], line["rate"]))
    return grouped(sorted(ordered, key=lambda x: list(TABLES).index(x["table"])), KEY[:3])


def _broken_text(lines: list[Line], zero: bool, bound: str) -> str:
    """Returns how many trainings with a start and a bound broke down, such as "3 of 36"."""
    own = [line for line in lines if (line["zero"], line["bound"]) == (zero, bound)]
    return f"{sum(line['steps'] < line['planned'] for line in own)} of {len(own)}"


def _pairs(lines: list[Line], zero: bool, bound: str) -> tuple[list[tuple[float, float]], int]:
    """Returns differences to the default by seed, of NLL and of log condition numbers.

    Pairs in which a training broke down are left out, and counted.
    """
    default, option = (
        {line["seed"]: line for line in lines if (line["zero"], line["bound"]) == key}
        for key in (DEFAULT, (zero, bound))
    )
    pairs = [(line, default[seed]) for seed, line in option.items() if seed in default]
    kept = [pair for pair in pairs if all(x["steps"] == x["planned"] for x in pair)]
    differences = [
        (
            line["validation_nll"] - base["validation_nll"],
            math.log(line["condition_number"] / base["condition_number"]),
        )
        for line, base in kept
    ]
    return differences, len(pairs) - len(kept)


def _mean(values: list[float]) -> tuple[float, float]:
    """Returns the mean and its standard error; nan for a single value."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) >= MIN_PAIRS else math.nan
    return fmean(values), error


def _compared_table(lines: list[Line]) -> str:
    """Returns the paired differences of each option to the default, over seeds and tables."""
    tables = list(dict.fromkeys(key[0] for key in _groups(lines)))
    places = sorted({(line["rate"], line["depth"]) for line in lines})
    head = ["learning rate", "depth", "instead of the default", *tables, "mean of tables",
            "condition number, factor"]  # fmt: skip
    rows = []
    for (rate, depth), (name, option) in itertools.product(places, OPTIONS.items()):
        cells, means, logs = [], [], []
        for table in tables:
            own = _groups(lines).get((table, depth, rate), [])
            differences, broken = _pairs(own, *option)
            cells.append(_difference([nll for nll, _ in differences], broken))
            if differences:
                means.append(fmean(nll for nll, _ in differences))
                logs.append(fmean(log for _, log in differences))
        rows.append([f"{rate:g}", str(depth), NAMES[name], *cells,
                     _difference(means, 0), _factor(logs)])  # fmt: skip
    return markdown(head, rows)


def _difference(values: list[float], broken: int) -> str:
    """Returns a mean difference with its standard error, and the pairs that broke down."""
    note = f"{broken} broke down" if broken else ""
    if not values:
        return note
    mean, error = _mean(values)
    if abs(mean) > LARGE:
        text = f"{mean:+.0e}"
    else:
        text = f"{mean:+.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")
    return f"{text} ({note})" if note else text


def _factor(logs: list[float]) -> str:
    """Returns the geometric mean of ratios of condition numbers, with one standard error."""
    if not logs:
        return ""
    mean, error = _mean(logs)
    text = f"{math.exp(mean):.2f}"
    return text if math.isnan(error) else f"{text} ×/÷ {math.exp(error):.2f}"


def _overall(lines: list[Line], zero: bool, bound: str, rate: float) -> str:
    """Returns the mean difference to the default by table and seed, over the shared depths."""
    by_table = grouped(lines, ("table",)).values()
    depths = set.intersection(*({line["depth"] for line in rows} for rows in by_table))
    means, broken = [], 0
    own = [line for line in lines if line["rate"] == rate and line["depth"] in depths]
    for rows in grouped(own, ("table", "seed")).values():
        pairs = [_pairs(here, zero, bound) for here in grouped(rows, ("depth",)).values()]
        if any(count for _, count in pairs):
            broken += 1
        elif all(differences for differences, _ in pairs):
            means.append(fmean(nll for differences, _ in pairs for nll, _ in differences))
    larger = sum(mean > 0 for mean in means)
    note = f"; in {broken} more a training broke down" if broken else ""
    return f"{_difference(means, 0)} nats, larger in {larger} of {len(means)} pairs{note}"


def _clear(lines: list[Line], zero: bool, bound: str, sign: int) -> str:
    """Returns where an option is worse (1) or better (-1) by two standard errors, as text."""
    places = {}
    for (table, depth, rate), own in _groups(lines).items():
        values = [nll for nll, _ in _pairs(own, zero, bound)[0]]
        if len(values) >= MIN_PAIRS:
            mean, error = _mean(values)
            if sign * mean > 2 * error:
                places.setdefault(f"{table} at {rate:g}", []).append(str(depth))
    listed = [f"{name} (depth {', '.join(depths)})" for name, depths in places.items()]
    return ", ".join(listed) or "nowhere"


def _factors(lines: list[Line], rate: float) -> str:
    """Returns the range of the mean factors by which options change the condition number."""
    own = [rows for key, rows in _groups(lines).items() if key[2] == rate]
    logs = [_pairs(rows, *option)[0] for rows in own for option in OPTIONS.values()]
    means = [math.exp(fmean(log for _, log in pairs)) for pairs in logs if pairs]
    return f"{min(means):.2f} to {max(means):.2f}"


def _medians_table(lines: list[Line]) -> str:
    """Returns medians over seeds of each kind of training."""
    head = ["table", "depth", "last layers", "bound", "finite rows", "condition number"]
    for rate in RATES:
        head += [f"NLL at {rate:g}", "condition number"]
    keys = ("table", "depth", "zero", "bound")
    ordered = [line for group in _groups(lines).values() for line in group]
    rows = []
    for (table, depth, zero, bound), here in grouped(ordered, keys).items():
        share = min(x["new_finite"] for x in here)
        cells = [table, str(depth), STARTS[zero], bound]
        cells.append("all" if share == 1 else f"{math.floor(1000 * share) / 10:.1f} %")
        cells.append(_number([x["new_condition_number"] for x in here]))
        for rate in RATES:
            cells += _cells([x for x in here if x["rate"] == rate])
        rows.append(cells)
    return markdown(head, rows)


def _cells(lines: list[Line]) -> list[str]:
    """Returns the NLL and the condition number, with the steps of trainings that broke down."""
    if not lines:
        return ["", ""]
    known = [line for line in lines if line["validation_nll"] is not None]
    broken = [line["steps"] for line in lines if line["steps"] < line["planned"]]
    nll = median(line["validation_nll"] for line in known) if known else math.nan
    text = "none" if not known else f"{nll:.0e}" if abs(nll) > LARGE else f"{nll:.3f}"
    if broken:
        steps = ", ".join(map(str, broken))
        text += f" ({len(broken)} of {len(lines)} broke down, at step {steps})"
    return [text, _number([line["condition_number"] for line in lines])]


def _number(values: list[float | None]) -> str:
    return number(median(math.inf if value is None else value for value in values))
