"""`write_report`: the page of a report on a flow, from Python."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.points import checked_flow
from kappaflow.data import Table
from kappaflow.errors import ArgumentError, DataError
from kappaflow.flows import Flow
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.images import Images, split_images
from kappaflow.images.kind import ImageKind
from kappaflow.options import COMMAND
from kappaflow.report.content import About
from kappaflow.report.files import check_output_path, render
from kappaflow.runs.evaluate import report_on
from kappaflow.runs.image_data import ImageConfig, ImageData
from kappaflow.runs.stored import RunData
from kappaflow.runs.table_data import TableConfig, TableData
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
    "Without training rows, the Gaussian and the mixture are fitted to a random half of the data; "
    "this page is about the other half."
)
IMAGES_BY_HALF = (
    "A random half of the images takes the place of the unknown training images; this page is "
    "about the other half."
)


@register_view("report", FitResult)
def write_report(
    flow: Flow | FitResult,
    data: Any = None,  # noqa: ANN401
    path: str | Path = "report.html",
    *,
    train: Any = None,  # noqa: ANN401
    title: str = "",
) -> Path:
    """Writes the page of a report on a flow of a table or of images.

    It is one HTML file that needs no network, with the sections of the page that `kappaflow fit`
    writes. For a table these are the likelihood of held-out rows, compared with a Gaussian and a
    Gaussian mixture; the conditioning over depth; samples against data; the latent; and the
    findings and the verdict of the doctor. For images they are also samples, reconstructions,
    interpolations and the nearest training images, and the likelihood is compared with independent
    pixels. For the result of a training the page has the learning curves.

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
    of_images = len(own.event_shape) == 3
    note = ""
    if data is None:
        data = result.validation
        note = BY_VALIDATION.replace("{}", "images" if of_images else "rows")
    if data is None:
        raise ArgumentError("'data' should be given: rows that the flow was not trained on.")
    rows, note = (_images if of_images else _rows)(result, data, train, note)
    with evaluation_mode(own):
        device = own.device
        try:
            about = _about(result, rows, title, by_validation=data is result.validation)
            report, _ = report_on(result, rows, about, [*result.notes, *([note] if note else [])])
        finally:
            own.to(device)
    write_bytes(Path(path), render(report, alone=True).encode())
    return Path(path)


def _untrained(flow: object) -> FitResult:
    """Returns a flow as a result without a history."""
    return FitResult(checked_flow(flow), (), math.nan, 0, "")


def _rows(result: FitResult, data: Any, train: Any, note: str) -> tuple[TableData, str]:  # noqa: ANN401
    """Returns held-out rows and those that references are fitted to, and a remark on them."""
    fitted = result.train if train is None else rows_for(result.flow, train)
    fitted = fitted if isinstance(fitted, Table) else None
    held_out = rows_for(result.flow, data, fitted)
    _check_count(held_out, "rows")
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
        warnings=fitted.warnings if fitted is result.train else (),
    )
    return rows, note


def _images(result: FitResult, data: Any, train: Any, note: str) -> tuple[ImageData, str]:  # noqa: ANN401
    """Returns held-out images and those that the flow was trained on, and a remark on them."""
    flow = result.flow
    fitted: Any = result.train if train is None else train
    for name, given in (("data", data), ("train", fitted)):
        if not isinstance(given, Images | str | Path | None):
            raise ArgumentError(
                f"'{name}' should be images for a flow of images: kappaflow.load_images reads "
                f"them; got {type(given).__name__}."
            )
    held_out = ImageKind().load(data, flow)
    _check_count(held_out, "images")
    if fitted is None:
        fitted, held_out = split_images(held_out, fractions=(0.5, 0.5))
        note = IMAGES_BY_HALF
    else:
        fitted = ImageKind().load(fitted, flow)
    for part in (held_out, fitted):
        part.batches(flow)
        part.check(flow)
    validation = result.validation if isinstance(result.validation, Images) else held_out
    config = ImageConfig(held_out.source, by_class=bool(flow.context_features))
    return ImageData(config, fitted, validation, held_out), note


def _check_count(held_out: Table | Images, name: str) -> None:
    if len(held_out) < LEAST_ROWS:
        raise DataError(f"a report needs at least {LEAST_ROWS} {name}, got {len(held_out)}.")


def _about(result: FitResult, rows: RunData, title: str, *, by_validation: bool) -> About:
    flow, test = result.flow, rows.test
    name = "images" if isinstance(test, Images) else "rows"
    facts = [
        ("source", test.source),
        (f"held-out {name}", f"{len(test):,}"),
        (f"{name} for comparison", f"{len(rows.train):,}"),
    ]
    if isinstance(test, Images):
        facts.append(("shape", " x ".join(map(str, test.shape))))
        facts.append(("values of a pixel", str(test.values)))
        facts.append(("given the class", "yes" if flow.context_features else "no"))
    else:
        facts.append(("columns", ", ".join(test.columns)))
        if test.context_columns:
            facts.append(("given", ", ".join(test.context_columns)))
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
