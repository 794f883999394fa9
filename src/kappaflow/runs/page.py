"""`write_report`: the page of a report on a flow of a table, from Python."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.points import checked_flow
from kappaflow.errors import ArgumentError, DataError
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.options import COMMAND
from kappaflow.report import About, Report, render
from kappaflow.report.files import check_output_path
from kappaflow.runs.chunked_output import versions
from kappaflow.runs.evaluate import report_on
from kappaflow.runs.table_data import TableConfig, TableData
from kappaflow.storage import write_bytes
from kappaflow.training import FitResult
from kappaflow.training.fit import rows_for
from kappaflow.training.progress import describe_flow
from kappaflow.training.session import history_facts

LEAST_ROWS = 10
BY_VALIDATION = "The held-out rows are the validation rows, which decided which epoch to keep."
BY_HALF = (
    "Without training rows, the Gaussian and the mixture are fitted to a random half of the data; "
    "this page is about the other half."
)


def write_report(
    flow: Flow | FitResult,
    data: Any = None,  # noqa: ANN401
    path: str | Path = "report.html",
    *,
    train: Any = None,  # noqa: ANN401
    title: str = "",
) -> Path:
    """Writes the page of a report on a flow of a table: one HTML file that needs no network.

    The page has the likelihood of held-out rows, compared with a Gaussian and a Gaussian mixture;
    the conditioning over depth; samples against data; the latent; and the findings and the verdict
    of the doctor. For the result of a training it also has the learning curves.

    Args:
        flow: The flow, or what `kappaflow.fit` or `fit_auto` returned. It stays unchanged.
        data: Held-out rows: a tensor, array, data frame, `Table`, path or shipped name; for a
            conditional flow the pair (x, context). For the result of a training they are the
            validation rows if left out.
        path: The file, ending in .html. An existing file is replaced, never half written.
        train: The rows that the flow was trained on, to which the Gaussian and the mixture are
            fitted; for the result of a training they are known. Without them, both are fitted to a
            random half of `data`, and the page is about the other half.
        title: The title of the page.

    Returns:
        The path.

    Raises:
        ArgumentError: The flow is not one of a table, the data do not fit it or are missing, or
            the path does not end in .html or is a folder.
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
    if len(own.event_shape) > 1:
        raise ArgumentError(
            "'flow' should be a flow of a table, got one of images: kappaflow fit writes their "
            "report."
        )
    rows, note = _rows(result, data, train)
    with evaluation_mode(own):
        device = own.device
        try:
            report, _ = report_on(result, rows, _about(result, rows, note, title))
        finally:
            own.to(device)
    write_bytes(Path(path), render(cast(Report, report), files="").encode())
    return Path(path)


def _untrained(flow: object) -> FitResult:
    """Returns a flow as a result without a history."""
    return FitResult(checked_flow(flow), (), math.nan, 0, "")


def _rows(result: FitResult, data: Any, train: Any) -> tuple[TableData, str]:  # noqa: ANN401
    """Returns held-out rows and those that references are fitted to, and a remark on them."""
    note = ""
    if data is None:
        data, note = result.validation, BY_VALIDATION
    if data is None:
        raise ArgumentError("'data' should be given: rows that the flow was not trained on.")
    fitted = result.train if train is None else rows_for(result.flow, train)
    held_out = rows_for(result.flow, data, fitted)
    if len(held_out) < LEAST_ROWS:
        raise DataError(f"a report needs at least {LEAST_ROWS} rows, got {len(held_out)}.")
    if fitted is None:
        order = np.random.default_rng(0).permutation(len(held_out))
        half = len(held_out) // 2
        fitted, held_out = held_out.select(order[:half]), held_out.select(order[half:])
        note = BY_HALF
    rows = TableData(
        TableConfig(held_out.source),
        fitted,
        held_out,
        held_out,
        None,
        loaded=len(held_out),
        repeats=0,
        notes=(),
    )
    return rows, note


def _about(result: FitResult, rows: TableData, note: str, title: str) -> About:
    flow, test = result.flow, rows.test
    facts = [
        ("source", test.source),
        ("held-out rows", f"{len(test):,}"),
        ("rows for comparison", f"{len(rows.train):,}"),
        ("columns", ", ".join(test.columns)),
    ]
    if test.context_columns:
        facts.append(("given", ", ".join(test.context_columns)))
    described = describe_flow(flow)
    return About(
        title=title or f"{described.partition(',')[0]} on {test.source}",
        data=facts,
        model=[("flow", described), ("layers", str(len(layers_of(flow.core))))],
        training=[*history_facts(result), ("versions", versions())],
        notes=[note] if note else [],
        finished_at=result.finished_at,
        command=COMMAND.get(),
        fingerprint=test.fingerprint(),
    )
