"""`diagnose_run`, which runs the doctor on a run folder, with its held-out or other data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from kappaflow.data import Table
from kappaflow.data.batches import domains_in
from kappaflow.data.prepare import noisy
from kappaflow.data.raw import Decimal
from kappaflow.data.table import describe_values
from kappaflow.diagnosis import Diagnosis, Progress, diagnose_flow, quietly, with_findings
from kappaflow.errors import KappaflowError
from kappaflow.flows import Flow
from kappaflow.images import Images
from kappaflow.runs.content import stored_findings
from kappaflow.runs.image_content import points_of
from kappaflow.runs.image_data import images_for
from kappaflow.runs.image_samples import sample_batch
from kappaflow.runs.samples import finite_table
from kappaflow.runs.scores import refuse_table_options
from kappaflow.runs.stored import (
    is_image_run,
    load_on,
    read_image_run,
    read_run,
    read_table_run,
    reload_data,
)
from kappaflow.training import batch_of

Examine = Callable[..., Diagnosis]  # diagnose_flow, with the flow and the options
MOST_IMAGES = 4096  # with `thorough`


def diagnose_run(
    folder: Path,
    data: str | None = None,
    *,
    thorough: bool = False,
    progress: Progress = quietly,
    decimal: Decimal | None = None,
    device: str | None = None,
) -> tuple[Diagnosis, str]:
    """Returns the diagnosis of a run, and a description such as "held-out rows of the run".

    `folder` may be that of any saved model. `data` is a table with the columns of the run, or
    images for a run on images. By default it is the held-out data of the run, or samples of the
    flow if that is missing or has changed. `thorough` is as for `kappaflow.doctor`. `progress`
    receives the name of each measurement before it starts. The device is "cpu" (the default) or
    "cuda".

    Raises:
        ArgumentError: The data does not fit the run, `decimal` is given for images, or the device
            does not exist.
    """
    flow, images = load_on(folder, device), is_image_run(folder)
    examine = partial(diagnose_flow, flow, thorough=thorough, progress=progress)
    most = MOST_IMAGES if thorough else points_of(flow)
    if images:
        refuse_table_options(decimal=decimal)
    if data is not None:
        result = (
            _at_images(flow, _images_from(folder, flow, data), most, examine)
            if images
            else _at_table(flow, _table_from(folder, flow, data, decimal), examine)
        )
        return result, f"{'images' if images else 'rows'} of {data}"
    try:
        held_out = reload_data(read_run(folder))
    except KappaflowError:
        rows = sample_batch(flow, points_of(flow)) if images else None
        result = examine() if rows is None else examine(rows.x, rows.context)
        return result, "samples of the flow (the data of the run is missing or has changed)"
    if isinstance(held_out.test, Table):
        result = _at_table(flow, held_out.test, examine)
    else:
        result = _at_images(flow, held_out.test, most, examine)
    findings = stored_findings(folder, held_out.warnings)
    return with_findings(result, *findings), (
        f"held-out {'images' if images else 'rows'} of the run"
    )


def _images_from(folder: Path, flow: Flow, data: str) -> Images:
    """Returns images from another source than the run."""
    run = read_image_run(folder)
    crop = True if run.source is None else run.source.crop
    return images_for(flow, data, crop=crop, classes=run.classes_of(flow))


def _table_from(folder: Path, flow: Flow, data: str, decimal: Decimal | None) -> Table:
    """Returns rows from another source than the run."""
    run = read_table_run(folder)
    table = finite_table(data, run.columns, run.context_columns, run.reading(decimal))
    return noisy(table, run.widths, domains_in(flow, table))


def _at_images(flow: Flow, images: Images, most: int, examine: Examine) -> Diagnosis:
    """Returns the diagnosis at the first images."""
    batches = images.batches(flow)
    few = batches.at(slice(0, most))
    return examine(few.x, few.context, rows=len(batches))


def _at_table(flow: Flow, table: Table, examine: Examine) -> Diagnosis:
    """Returns the diagnosis at the rows of a table. Findings show the values of rows."""
    rows = batch_of(table, flow)
    return examine(rows.x, rows.context, names=lambda i: describe_values(table, i))
