"""`write_report`: the page of a report on a flow, from Python."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.points import checked_flow
from kappaflow.data import Kind, Table
from kappaflow.data.dataset import kind_for, kind_of, runs_of
from kappaflow.errors import ArgumentError, DataError
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.options import COMMAND
from kappaflow.report.content import About
from kappaflow.report.files import check_output_path, render
from kappaflow.runs.evaluate import evaluate
from kappaflow.runs.kinds import RunData
from kappaflow.runs.tables import TABLES
from kappaflow.runs.written import versions
from kappaflow.storage import write_bytes
from kappaflow.summary import register_view
from kappaflow.training import FitResult
from kappaflow.training.progress import describe_flow
from kappaflow.training.rows import rows_for
from kappaflow.training.session import history_facts

LEAST_ROWS = 10
BY_VALIDATION = "The held-out {} are the validation {}, which decided which epoch to keep."
BY_HALF = (
    "A random half of the {} takes the place of the unknown training {}; this page is about the "
    "other half."
)


@register_view("report", FitResult)
def write_report(
    flow: Flow | FitResult,
    data: Any = None,
    path: str | Path = "report.html",
    *,
    train: Any = None,
    title: str = "",
) -> Path:
    """Writes the page of a report on a flow of a table or of images.

    It is one HTML file that needs no network, with the sections of the page that `kappaflow fit`
    writes. For a table these are the likelihood of held-out rows, compared with a Gaussian and a
    Gaussian mixture; the conditioning over depth; samples against data; the latent; and the
    findings and the verdict of the doctor. For images it shows samples and reconstructions, and
    compares the likelihood with independent pixels. For the result of a training the page has the
    learning curves.

    Args:
        flow: The flow, or what `kappaflow.fit` or `fit_auto` returned. It stays unchanged.
        data: Held-out rows: a tensor, array, data frame, `Table`, path or shipped name; for a
            conditional flow the pair (x, context). For a flow of images `Images`, or their path or
            name. For the result of a training they are the validation rows if left out.
        path: The file, ending in .html. An existing file is replaced, never half written.
        train: The rows or images that the flow was trained on, to which it is compared; for the
            result of a training they are known. Without them, a random half of `data` takes their
            place, and the page is about the other half.
        title: The title of the page.

    Returns:
        The path.

    Raises:
        ArgumentError: The data do not fit the flow or are missing, or the path does not end in
            .html or is a folder.
        DataError: There are fewer than 10 rows, or a value is not finite or outside its domain.
        FileError: The file cannot be written.

    Example:
        >>> import tempfile, torch, kappaflow as kf
        >>> x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kf.write_report(flow, x, f"{folder}/page.html").name
        'page.html'
    """
    check_output_path("path", path, ".html")
    result = flow if isinstance(flow, FitResult) else _untrained(flow)
    own = checked_flow(result.flow)
    kind = kind_for(own) or kind_of(result.validation if data is None else data)
    runs, note = TABLES if kind is None else runs_of(kind), ""
    if data is None:
        data, note = result.validation, BY_VALIDATION.replace("{}", runs.plural)
    if data is None:
        raise ArgumentError("'data' should be given: rows that the flow was not trained on.")
    if kind is None:
        fitted, held_out = _rows(result, data, train)
    else:
        fitted, held_out = _examples(kind, result, data, train)
    if len(held_out) < LEAST_ROWS:
        raise DataError(
            f"a report needs at least {LEAST_ROWS} {runs.plural}, got {len(held_out)}."
        )
    if fitted is None:
        note = BY_HALF.replace("{}", runs.plural)
        fitted, held_out = _halves(kind, held_out)
    validation: Any = held_out if result.validation is None else result.validation
    rows = runs.split_data(own, fitted, validation, held_out)
    with evaluation_mode(own):
        device = own.device
        try:
            about = _about(
                result, rows, runs.plural, title, by_validation=data is result.validation
            )
            notes = [*result.notes, *([note] if note else [])]
            report = evaluate(result, rows, about, notes, calibrated=False).report
        finally:
            own.to(device)
    write_bytes(Path(path), render(report, alone=True).encode())
    return Path(path)


def _untrained(flow: object) -> FitResult:
    """Returns a flow as a result without a history."""
    return FitResult(checked_flow(flow), (), math.nan, 0, "")


def _rows(result: FitResult, data: Any, train: Any) -> tuple[Any, Any]:
    """Returns the rows that references are fitted to, or None, and held-out rows."""
    fitted = result.train if train is None else rows_for(result.flow, train)
    fitted = fitted if isinstance(fitted, Table) else None
    held_out = rows_for(result.flow, data, fitted)
    if fitted is None or fitted is result.train:
        return fitted, held_out
    return replace(fitted, warnings=()), held_out


def _examples(kind: Kind, result: FitResult, data: Any, train: Any) -> tuple[Any, Any]:
    """Returns examples of another kind to compare with, or None, and held-out ones."""
    flow, fitted = result.flow, result.train if train is None else train
    for name, source in (("data", data), ("train", fitted)):
        if not isinstance(source, str | Path | None) and not kind.recognizes(source):
            raise ArgumentError(
                f"'{name}' should be {kind.name} for a flow of {kind.name}, got "
                f"{type(source).__name__}."
            )
    parts = [None if source is None else kind.load(source, flow) for source in (fitted, data)]
    for part in parts:
        if part is not None:
            part.batches(flow)
            part.check(flow)
    return parts[0], parts[1]


def _halves(kind: Kind | None, held_out: Any) -> tuple[Any, Any]:
    """Returns two random halves of held-out data."""
    if kind is not None:
        return kind.split(held_out, (0.5, 0.5), 0)
    order = np.random.default_rng(0).permutation(len(held_out))
    half = len(held_out) // 2
    return replace(held_out.select(order[:half]), warnings=()), held_out.select(order[half:])


def _about(
    result: FitResult, rows: RunData, plural: str, title: str, *, by_validation: bool
) -> About:
    flow, test = result.flow, rows.test
    facts = [
        ("source", test.source),
        (f"held-out {plural}", f"{len(test):,}"),
        (f"{plural} for comparison", f"{len(rows.train):,}"),
        *rows.form(),
    ]
    described = describe_flow(flow)
    return About(
        title=title or f"{described.partition(',')[0]} on {test.source}",
        data=facts,
        model=[("flow", described), ("layers", str(len(layers_of(flow.core))))],
        training=[*history_facts(result), ("versions", versions())],
        by_validation=by_validation,
        finished_at=result.finished_at,
        command=COMMAND.get(),
        fingerprint=test.fingerprint(),
    )
