"""`depth_curve`: how deep a flow of a table has to be, by flows of more and more couplings."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kappaflow._checks import one_of, positive_float, positive_int
from kappaflow.conditioning.profile import profile
from kappaflow.data import Table, split
from kappaflow.data.domains import Bounds, Domains
from kappaflow.data.prepare import prepare_table
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.extensions import load_by_name
from kappaflow.factor import factor_linear
from kappaflow.factor.whiten import DEPENDENT
from kappaflow.files import CONFIG
from kappaflow.flows import Flow
from kappaflow.flows.standardization import standardization_log_det
from kappaflow.options import Repair
from kappaflow.report.depth import (
    DepthCurve,
    DepthPoint,
    LinearPart,
    Rewritten,
    pays,
    render_depth_curve,
)
from kappaflow.report.numbers import with_error
from kappaflow.rewrite import rewrite_fixed_partition
from kappaflow.rewrite.layers import is_any_coupling, parts_of
from kappaflow.runs.pool import in_processes
from kappaflow.runs.recipes import LEARNING_RATE, ModelConfig, build_flow, with_bounds
from kappaflow.runs.table_data import FRACTIONS, TableConfig, TableData
from kappaflow.storage import write_bytes
from kappaflow.training import (
    Settings,
    batch_of,
    checked_settings,
    condition_at_test_rows,
    fit_split,
    log_prob_of,
)
from kappaflow.training.measure import mean, standard_error
from kappaflow.training.rows import as_table

PARTITIONS: dict[str, dict[str, Any]] = {
    "half": {"partition": "half"},
    "random": {"partition": "random"},
    "mixing": {"partition": "half", "mixing": "lu"},
}
STARTS = {"spline": "gaussianize", "real_nvp": "whiten"}
SCALE_BOUND = 1.5  # of each affine coupling, the same at all depths
FIRST = 2  # couplings: fewer leave columns unchanged
OF_TRAINING = 3  # how many times fewer epochs than `kappaflow.fit` each depth has by default
REWRITTEN_ROWS, REPEATED = 64, 3
PAGE, NUMBERS = "index.html", "report.json"
Kind = Literal["spline", "real_nvp"]


@dataclass(frozen=True)
class _Parts:
    """The rows of a table: to train on, to stop by and to compare on."""

    train: Table
    validation: Table
    test: Table
    domains: Domains
    name: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """Which couplings, up to which depth, trained how."""

    model: Kind
    hidden: tuple[int, ...]
    most: int
    nats: float
    settings: Settings
    out: Path | None
    progress: bool | None


def depth_curve(
    data: Any,  # noqa: ANN401
    *,
    model: Kind = "spline",
    partitions: Sequence[str] = tuple(PARTITIONS),
    hidden: Sequence[int] = (64, 64),
    max_depth: int = 64,
    nats: float = 0.01,
    out: str | Path | None = None,
    processes: int = 1,
    repair: Repair | None = None,
    bounds: Bounds | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
    **settings: Any,  # noqa: ANN401
) -> DepthCurve:
    """Measures how deep a flow of a table has to be, at what conditioning, for three partitions.

    For each partition flows of 2, 4, 8, ... couplings are trained, each from the start and with as
    many epochs, until twice the depth gains less than two standard errors, or less than `nats`,
    on held-out rows.

    Args:
        data: A tensor, array, data frame, path or shipped name; `kappaflow.load_table` chooses
            columns, a context and rows of it; with a context also the pair (x, context). Or a
            `TableConfig`, as of the command.
        model: "spline", or "real_nvp" for affine couplings.
        partitions: "half", "random" and "mixing" (learned linear maps, as in Glow), or some.
        hidden: Widths of the hidden layers of each conditioner.
        max_depth: The largest number of couplings.
        nats: The least gain, in nats per row, for which twice the depth is worth its price.
        out: A folder for the runs and the page, and to resume from.
        processes: Number of partitions to measure in parallel, each on one thread. With several, a
            script needs `if __name__ == "__main__":` around the call.
        repair: As for `kappaflow.fit`.
        bounds: Domains of columns by name, as for `kappaflow.fit`.
        progress: Show progress bars; by default on a terminal and in a notebook.
        say: Called with a sentence for each flow that was trained.
        **settings: Of the training at each depth, as for `kappaflow.fit`. By default it has a
            third of the epochs of `kappaflow.fit`.

    Returns:
        The curve: `recommended_depth`, and `points` with NLL, gain and conditioning.

    Raises:
        ArgumentError: An argument is wrong, or `out` holds another curve.
        DataError: The data has no density that a flow could fit.
        NumericalError: A training failed.

    Example:
        >>> import kappaflow as kf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> curve = kf.depth_curve(x, partitions=["half"], hidden=(8,), max_epochs=2)
        >>> curve.recommended_depth  # normal columns need no more than the least
        2
    """
    one_of("model", model, tuple(STARTS))
    for name in partitions:
        one_of("partitions", name, tuple(PARTITIONS))
    if not partitions:
        raise ArgumentError(f"'partitions' should name some of {', '.join(PARTITIONS)}.")
    if positive_int("max_depth", max_depth) < FIRST:
        raise ArgumentError(f"'max_depth' should be at least {FIRST}, got {max_depth}.")
    positive_int("processes", processes)
    folder = None if out is None else _checked_folder(Path(out))
    checked = checked_settings(
        ("max_depth", "nats", "out"), **{"learning_rate": LEARNING_RATE, **settings}
    )
    parts = _parts(data, bounds, repair, checked.seed)
    if len(parts.train.columns) < 2:
        raise ArgumentError("'data' should have at least two columns to model: one has no depth.")
    plan = _Plan(
        model=model,
        hidden=tuple(hidden),
        most=max_depth,
        nats=positive_float("nats", nats),
        settings=_with_epochs(checked, len(parts.train)),
        out=folder,
        progress=progress if processes == 1 else False,
    )
    flows: dict[str, _Flows] = {}
    names = list(dict.fromkeys(partitions))
    for one in in_processes(partial(_measured, parts, plan), names, processes=processes):
        flows[one.points[0].partition] = one
        for point in one.points:
            nll = with_error(point.nll, point.standard_error)
            say(f"{point.partition}, {point.depth} couplings: {nll} nats")
    curve = DepthCurve(
        data=parts.name,
        model=_described(plan, parts),
        nats=nats,
        rows=len(parts.test),
        points=[point for name in names for point in flows[name].points],
        rewritten=flows["mixing"].rewritten if "mixing" in flows else None,
        linear=_linear_part(parts.train),
        notes=list(parts.notes),
    )
    if folder is not None:
        write_bytes(folder / NUMBERS, (curve.to_json() + "\n").encode())
        write_bytes(folder / PAGE, render_depth_curve(curve).encode())
    return curve


def _checked_folder(folder: Path) -> Path:
    """Returns a folder, which is new or one of a depth curve."""
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"'out' should be a folder, {folder} is a file.")
    if (folder / CONFIG).exists():
        raise ArgumentError(f"'out' should be a new folder, {folder} is one of a run.")
    return folder


@dataclass(frozen=True)
class _Flows:
    """The flows of one partition."""

    points: list[DepthPoint]
    rewritten: Rewritten | None


def _parts(
    data: Any,  # noqa: ANN401
    bounds: Bounds | None,
    repair: Repair | None,
    seed: int,
) -> _Parts:
    """Returns the rows, checked and split."""
    if isinstance(data, TableConfig):
        rows: TableData = data.load()
        return _Parts(
            rows.train, rows.validation, rows.test, rows.domains, data.data, tuple(rows.notes)
        )
    table = as_table(data)
    prepared = prepare_table(table, bounds=bounds, repair=repair)
    train, validation, test = split(prepared.table, fractions=FRACTIONS, seed=seed)
    name = data if isinstance(data, str) else table.source
    notes = prepared.notes + prepared.warnings
    return _Parts(train, validation, test, prepared.domains, str(name), notes)


def _with_epochs(settings: Settings, rows: int) -> Settings:
    """Returns settings with a third of the usual number of epochs, unless a limit is given."""
    if settings.max_epochs is not None or settings.max_time_s is not None:
        return settings
    steps = -(-rows // settings.rows_a_step(rows))
    epochs = max(1, settings.epochs(steps) // OF_TRAINING)
    return settings.model_copy(update={"max_epochs": epochs})


def _measured(parts: _Parts, plan: _Plan, partition: str) -> _Flows:
    """Returns the flows of one partition, from 2 couplings on, until more gain too little."""
    points: list[DepthPoint] = []
    flows: list[Flow] = []
    before: Tensor | None = None
    depth = FIRST
    while depth <= plan.most:
        point, flow, scores = _trained(parts, plan, partition, depth)
        if before is not None:
            nats, error = _mean_and_error(scores - before, parts.test)
            point = point.model_copy(update={"gain": nats, "gain_error": error})
        points.append(point)
        flows.append(flow)
        if before is not None and not pays(point, plan.nats):
            break
        before, depth = scores, 2 * depth
    number = len(points) - 1 if pays(points[-1], plan.nats) else max(0, len(points) - 2)
    rewritten = None
    if partition == "mixing" and plan.model == "real_nvp":
        rewritten = _rewritten(flows[number], parts, points[number].depth)
    return _Flows(points, rewritten)


def _new(parts: _Parts, plan: _Plan, partition: str, depth: int) -> Flow:
    """Returns a new flow of one depth."""
    arguments = {
        "depth": depth,
        "hidden": plan.hidden,
        "start": STARTS[plan.model],
        **PARTITIONS[partition],
    }
    if plan.model == "real_nvp":
        arguments["scale_bound"] = SCALE_BOUND * depth
    model = with_bounds(ModelConfig(plan.model, arguments), parts.domains, parts.train)
    return build_flow(model, parts.train, plan.settings.seed)


def _trained(
    parts: _Parts, plan: _Plan, partition: str, depth: int
) -> tuple[DepthPoint, Flow, Tensor]:
    """Returns the figures of a flow on held-out rows, the flow, and log_prob of these rows."""
    name = f"{partition}-{depth}"
    result = fit_split(
        _new(parts, plan, partition, depth),
        parts.train,
        parts.validation,
        plan.settings,
        out=None if plan.out is None else plan.out / name,
        progress=plan.progress,
        about={"depth_curve": name},
    )
    flow = result.flow.eval()
    test = batch_of(parts.test, flow)
    scores, times = log_prob_of(flow, test), []
    for _ in range(REPEATED):
        started = time.process_time()
        log_prob_of(flow, test)
        times.append(time.process_time() - started)
    nll, error = _mean_and_error(-scores, parts.test)
    point = DepthPoint(
        partition=partition,
        depth=depth,
        nll=nll + standardization_log_det(flow),
        standard_error=error,
        condition_number=condition_at_test_rows(flow, test)[1],
        score_s=median(times) * 1e6 / len(test),
        time_s=result.history[-1]["time_s"] if result.history else 0.0,
        epochs=len(result.history),
    )
    return point, flow, scores


def _mean_and_error(values: Tensor, rows: Table) -> tuple[float, float]:
    weights = None if rows.weights is None else torch.from_numpy(rows.weights)
    return mean(values, weights), standard_error(values, weights)


def _rewritten(flow: Flow, parts: _Parts, depth: int) -> Rewritten | None:
    """Returns the flow as couplings of one partition; None if it cannot be rewritten."""
    rows = batch_of(parts.test, flow).at(slice(0, REWRITTEN_ROWS))
    try:
        other, _ = rewrite_fixed_partition(flow, rows.x, context=rows.context)
        layers = profile(other, rows.x, context=rows.context).layer_condition_number
    except KappaflowError:
        return None
    couplings = sum(is_any_coupling(part) for part in parts_of(other))
    return Rewritten(
        depth=depth,
        couplings=couplings,
        layer_condition_number=layers.quantile(0.95, dim=1).max().item(),
    )


def _linear_part(train: Table) -> LinearPart | None:
    """Returns the map that takes the correlations out of the columns, as couplings."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant column
        correlation = np.corrcoef(train.values.T)
    if not np.isfinite(correlation).all():
        return None
    variances, directions = np.linalg.eigh(correlation)
    if variances[0] < DEPENDENT * variances[-1]:
        return None
    root = directions / np.sqrt(variances) @ directions.T
    try:
        factors = factor_linear(root)
    except KappaflowError:
        return None
    bound = load_by_name("scaled_lower_bound")
    return LinearPart(
        condition_number=float(np.sqrt(variances[-1] / variances[0])),
        couplings=len(factors.couplings),
        coupling_condition_number=factors.condition_number,
        lower_bound=None if len(root) % 2 else bound(root, max(1, len(factors.couplings))),
    )


def _described(plan: _Plan, parts: _Parts) -> list[tuple[str, str]]:
    """Returns the settings for the page."""
    settings = plan.settings
    rows = (parts.train, parts.validation, parts.test)
    return [
        ("couplings", plan.model),
        ("hidden layers", "x".join(map(str, plan.hidden))),
        ("start", STARTS[plan.model]),
        ("epochs at each depth, at most", str(settings.max_epochs or "by the time")),
        ("seconds at each depth, at most", str(settings.max_time_s or "no limit")),
        ("learning rate", f"{settings.learning_rate:g}"),
        ("seed", str(settings.seed)),
        ("rows to train / validate / test", " / ".join(f"{len(part):,}" for part in rows)),
        ("worth its price from", f"{plan.nats:g} nats"),
    ]
