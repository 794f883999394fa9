"""`depth_curve`: how deep a flow of a table has to be, by flows of more and more couplings."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from torch import Tensor

from kappaflow._checks import one_of, positive_float, positive_int
from kappaflow.conditioning.profile import profile
from kappaflow.data import Table, split
from kappaflow.data.batches import Batches
from kappaflow.data.dataset import kind_of, runs_of
from kappaflow.data.domains import Bounds, Domains
from kappaflow.data.prepare import prepare_table
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.files import CONFIG
from kappaflow.flows import Flow
from kappaflow.flows.standardization import standardization_log_det
from kappaflow.options import Repair
from kappaflow.report.depth import (
    DepthCurve,
    DepthPoint,
    Modes,
    Rewritten,
    pays,
    render_depth_curve,
)
from kappaflow.report.numbers import with_error
from kappaflow.rewrite import rewrite_fixed_partition
from kappaflow.rewrite.layers import is_any_coupling, parts_of
from kappaflow.runs.depth_theory import linear_part, modes_of
from kappaflow.runs.kinds import DataConfig
from kappaflow.runs.pool import in_processes
from kappaflow.runs.recipes import ModelConfig, build_flow, with_bounds
from kappaflow.runs.table_data import FRACTIONS
from kappaflow.storage import write_bytes
from kappaflow.training import (
    Settings,
    batch_of,
    checked_settings,
    condition_at_test_rows,
    fit_split,
    log_prob_of,
)
from kappaflow.training.measure import bits_per_dimension, has_bits, mean, standard_error
from kappaflow.training.rows import as_table
from kappaflow.training.settings import OF_TABLES

PARTITIONS: dict[str, dict[str, Any]] = {
    "half": {"partition": "half"},
    "random": {"partition": "random"},
    "mixing": {"partition": "half", "mixing": "lu"},
}
OF_IMAGES: dict[str, dict[str, Any]] = {
    "half": {"partition": "half"},
    "random": {"partition": "random-half"},
    "mixing": {},
}
STARTS = {"spline": "gaussianize", "real_nvp": "whiten"}
HIDDEN = (64, 64)
WORTH, WORTH_BITS = 0.01, 0.01  # nats of a row, bits per dimension of an image
SCALE_BOUND = 1.5  # of each affine coupling, the same at all depths
FIRST = 2  # couplings: fewer leave columns unchanged
REWRITTEN_ROWS, REPEATED = 64, 3
PAGE, NUMBERS = "index.html", "report.json"
Kind = Literal["spline", "real_nvp", "glow"]


@dataclass(frozen=True)
class Examples:
    """Rows or images: to train on, to stop by and to compare on; and new flows for them."""

    train: Any
    validation: Any
    test: Any
    flow: Callable[[ModelConfig, int], Flow]
    name: str
    notes: tuple[str, ...]
    defaults: Mapping[str, Any]  # settings of the training


@dataclass(frozen=True)
class Plan:
    """Which couplings, up to which depth, trained how."""

    model: Kind
    hidden: tuple[int, ...] | int | None
    most: int
    nats: float
    settings: Settings
    out: Path | None
    progress: bool | None


def depth_curve(
    data: Any,
    *,
    model: Kind | None = None,
    partitions: Sequence[str] = tuple(PARTITIONS),
    hidden: Sequence[int] | int | None = None,
    max_depth: int = 64,
    nats: float | None = None,
    out: str | Path | None = None,
    processes: int = 1,
    repair: Repair | None = None,
    bounds: Bounds | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
    **settings: Any,
) -> DepthCurve:
    """Measures how deep a flow of data has to be, at what conditioning, for three partitions.

    For each partition flows of 2, 4, 8, ... couplings are trained, each from the start and with as
    many epochs, until twice the depth gains less than `nats` on held-out rows. For images it is
    steps of each level of a Glow.

    Args:
        data: A tensor, array, data frame, path or shipped name; `kappaflow.load_table` chooses
            columns, a context and rows of it; with a context also the pair (x, context). The path
            or the name of images, or a `TableConfig`, as of the command.
        model: "spline", or "real_nvp" for affine couplings; images have "glow".
        partitions: "half", "random" and "mixing" (learned linear maps, as in Glow), or some.
        hidden: Widths of the hidden layers of each conditioner, 64 and 64 by default; for images
            the number of channels of each network, 32 or 64 by their size.
        max_depth: The largest number of couplings, or of steps of each level.
        nats: The least gain, in nats per row, for which twice the depth is worth its price. By
            default 0.01; for images 0.01 bits per dimension.
        out: A folder for the runs and the page, and to resume from.
        processes: Number of partitions to measure in parallel, each on one thread. With several, a
            script needs `if __name__ == "__main__":` around the call.
        repair: As for `kappaflow.fit`.
        bounds: Domains of columns by name, as for `kappaflow.fit`.
        progress: Show progress bars; by default on a terminal and in a notebook.
        say: Called with a sentence for each flow that was trained.
        **settings: Of the training at each depth, as for `kappaflow.fit`. By default it has a
            third of the epochs of `kappaflow fit`.

    Returns:
        The curve: `recommended_depth`, and `points` with NLL, gain and conditioning.

    Raises:
        ArgumentError: An argument is wrong, or `out` holds another curve.
        DataError: The data has no density that a flow could fit.
        NumericalError: A training failed.

    Example:
        >>> import torch, kappaflow as kf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> curve = kf.depth_curve(x, partitions=["half"], hidden=(8,), max_epochs=2)
        >>> curve.recommended_depth  # normal columns need no more than the least
        2
    """
    for name in partitions:
        one_of("partitions", name, tuple(PARTITIONS))
    if not partitions:
        raise ArgumentError(f"'partitions' should name some of {', '.join(PARTITIONS)}.")
    if positive_int("max_depth", max_depth) < FIRST:
        raise ArgumentError(f"'max_depth' should be at least {FIRST}, got {max_depth}.")
    positive_int("processes", processes)
    folder = None if out is None else _checked_folder(Path(out))
    images = kind_of(data) is not None
    for name, value in {"repair": repair, "bounds": bounds}.items():
        if images and value is not None:
            raise ArgumentError(f"'{name}' should be left out for images: it is for tables.")
    model = model or ("glow" if images else "spline")
    one_of("model", model, ("glow",) if images else tuple(STARTS))
    seed = checked_settings(("max_depth", "nats", "out"), **settings).seed
    parts = examples_of(data, bounds, repair, seed)
    plan = Plan(
        model=model,
        hidden=_hidden(hidden, images=images),
        most=max_depth,
        nats=_worth(parts, images=images) if nats is None else positive_float("nats", nats),
        settings=_with_epochs(settings, parts),
        out=folder,
        progress=progress if processes == 1 else False,
    )
    flows: dict[str, _Flows] = {}
    names = list(dict.fromkeys(partitions))
    for one in in_processes(partial(_measured, parts, plan), names, processes=processes):
        flows[one.points[0].partition] = one
        for point in one.points:
            nll = with_error(point.nll, point.standard_error)
            say(f"{point.partition}, depth {point.depth}: {nll} nats")
    curve = DepthCurve(
        data=parts.name,
        model=_described(plan, parts),
        nats=plan.nats,
        rows=len(parts.test),
        points=[point for name in names for point in flows[name].points],
        rewritten=flows["mixing"].rewritten if "mixing" in flows else None,
        linear=None if images else linear_part(parts.train),
        images=images,
        notes=list(parts.notes),
    )
    curve = curve.model_copy(update={"modes": flows[curve.recommended_partition].modes})
    if folder is not None:
        write_bytes(folder / NUMBERS, (curve.to_json() + "\n").encode())
        write_bytes(folder / PAGE, render_depth_curve(curve).encode())
    return curve


def _hidden(hidden: Sequence[int] | int | None, *, images: bool) -> tuple[int, ...] | int | None:
    """Returns the widths of conditioners: one number for images, at least one for tables."""
    if not images:
        return HIDDEN if hidden is None else (hidden,) if isinstance(hidden, int) else (*hidden,)
    widths = () if hidden is None else (hidden,) if isinstance(hidden, int) else (*hidden,)
    if len(widths) > 1:
        raise ArgumentError(f"'hidden' should be one number for images, got {widths}.")
    return widths[0] if widths else None


def _worth(parts: Examples, *, images: bool) -> float:
    """Returns the default least gain in nats."""
    return WORTH_BITS * math.log(2) * math.prod(parts.test.shape) if images else WORTH


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
    modes: Modes | None


def examples_of(
    data: Any, bounds: Bounds | None = None, repair: Repair | None = None, seed: int = 0
) -> Examples:
    """Returns the rows or images, checked and split."""
    kind = kind_of(data)
    if kind is not None and not isinstance(data, str | Path):
        raise ArgumentError(f"'data' should be the path or the name of {kind.name} here.")
    config = data if kind is None else runs_of(kind).config(str(data), split_seed=seed)
    if isinstance(config, DataConfig):
        loaded = config.load()
        if isinstance(loaded.train, Table):
            _check_columns(loaded.train)
        return Examples(
            loaded.trained_on,
            loaded.validation,
            loaded.test,
            loaded.build_flow,
            config.data,
            tuple(loaded.notes),
            loaded.config.training_defaults or OF_TABLES,
        )
    table = as_table(data)
    prepared = prepare_table(table, bounds=bounds, repair=repair)
    _check_columns(table)
    train, validation, test = split(prepared.table, fractions=FRACTIONS, seed=seed)
    name = data if isinstance(data, str) else table.source
    notes = prepared.notes + prepared.warnings
    flow = partial(flow_of_rows, train, prepared.domains)
    return Examples(train, validation, test, flow, str(name), notes, OF_TABLES)


def _check_columns(table: Table) -> None:
    if len(table.columns) < 2:
        raise ArgumentError("'data' should have at least two columns to model: one has no depth.")


def flow_of_rows(train: Table, domains: Domains, model: ModelConfig, seed: int) -> Flow:
    """Returns a new flow for rows, initialized from the seed alone."""
    return build_flow(with_bounds(model, domains, train), train, seed)


def _with_epochs(chosen: Mapping[str, Any], parts: Examples) -> Settings:
    """Returns settings with a third of the usual number of epochs, unless a limit is given."""
    settings = Settings(**{**parts.defaults, **chosen})
    if chosen.get("max_epochs") is not None or settings.max_time_s is not None:
        return settings
    return settings.shorter(len(parts.train))


def _measured(parts: Examples, plan: Plan, partition: str) -> _Flows:
    """Returns the flows of one partition, from 2 couplings on, until more gain too little."""
    points: list[DepthPoint] = []
    flows: list[Flow] = []
    before: Tensor | None = None
    depth = FIRST
    while depth <= plan.most:
        point, flow, scores = trained_at(parts, plan, partition, depth)
        if before is not None:
            nats, error = _mean_and_error(scores - before, parts.test.batches(flow))
            point = point.model_copy(update={"gain": nats, "gain_error": error})
        points.append(point)
        flows.append(flow)
        if before is not None and not pays(point, plan.nats):
            break
        before, depth = scores, 2 * depth
    number = len(points) - 1 if pays(points[-1], plan.nats) else max(0, len(points) - 2)
    rewritten = None
    if partition == "mixing" and plan.model == "real_nvp":
        rewritten = rewritten_at(flows[number], parts, points[number].depth)
    modes = None
    plain = isinstance(parts.train, Table) and parts.train.weights is None
    if plain and not parts.train.context_columns:
        modes = modes_of(flows[number], parts.train, parts.test)
    return _Flows(points, rewritten, modes)


def _new(parts: Examples, plan: Plan, partition: str, depth: int) -> Flow:
    """Returns a new flow of one depth."""
    if plan.model == "glow":
        width = {} if plan.hidden is None else {"hidden": plan.hidden}
        model = ModelConfig("glow", {"steps": depth, **width, **OF_IMAGES[partition]})
        return parts.flow(model, plan.settings.seed)
    arguments = {
        "depth": depth,
        "hidden": plan.hidden,
        "start": STARTS[plan.model],
        **PARTITIONS[partition],
    }
    if plan.model == "real_nvp":
        arguments["scale_bound"] = SCALE_BOUND * depth
    return parts.flow(ModelConfig(plan.model, arguments), plan.settings.seed)


def trained_at(
    parts: Examples, plan: Plan, partition: str, depth: int
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
    test = parts.test.batches(flow)
    scores, times = log_prob_of(flow, test), []
    for _ in range(REPEATED):
        started = time.process_time()
        log_prob_of(flow, test)
        times.append(time.process_time() - started)
    nll, error = _mean_and_error(-scores, test)
    point = DepthPoint(
        partition=partition,
        depth=depth,
        nll=nll + standardization_log_det(flow),
        standard_error=error,
        condition_number=condition_at_test_rows(flow, test)[1],
        score_s=median(times) * 1e6 / len(test),
        time_s=result.history[-1]["time_s"] if result.history else 0.0,
        epochs=len(result.history),
        bits_per_dimension=bits_per_dimension(flow, nll) if has_bits(flow) else None,
    )
    return point, flow, scores


def _mean_and_error(values: Tensor, rows: Batches) -> tuple[float, float]:
    return mean(values, rows.weights), standard_error(values, rows.weights)


def rewritten_at(flow: Flow, parts: Examples, depth: int) -> Rewritten | None:
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


def _of_model(plan: Plan) -> list[tuple[str, str]]:
    if not isinstance(plan.hidden, tuple):
        return [("channels of each network", str(plan.hidden or "by the size of the images"))]
    return [("hidden layers", "x".join(map(str, plan.hidden))), ("start", STARTS[plan.model])]


def _described(plan: Plan, parts: Examples) -> list[tuple[str, str]]:
    """Returns the settings for the page."""
    settings = plan.settings
    rows = (parts.train, parts.validation, parts.test)
    return [
        ("couplings", plan.model),
        *_of_model(plan),
        ("epochs at each depth, at most", str(settings.max_epochs or "by the time")),
        ("seconds at each depth, at most", str(settings.max_time_s or "no limit")),
        ("learning rate", f"{settings.learning_rate:g}"),
        ("seed", str(settings.seed)),
        ("rows to train / validate / test", " / ".join(f"{len(part):,}" for part in rows)),
        ("worth its price from", f"{plan.nats:g} nats"),
    ]
