"""Exports the flow of a run, and runs the doctor on exported flows."""

from collections.abc import Sequence
from pathlib import Path

import torch

from kappaflow.data import load_table
from kappaflow.data.raw import Decimal
from kappaflow.data.table import describe_values, require_finite
from kappaflow.diagnosis import Diagnosis, Progress, diagnose_flow, quietly
from kappaflow.errors import ArgumentError
from kappaflow.files import CONFIG, load, read_config
from kappaflow.interop.exports import Exported, export
from kappaflow.interop.exports.exported import read_exported
from kappaflow.options import ExportFormat
from kappaflow.runs.stored import TableRunConfig, read_run


def export_run(
    folder: Path,
    out: Path,
    *,
    format: ExportFormat = "torch",
    functions: Sequence[str] | None = None,  # noqa: A002
) -> Exported:
    """Returns the export of a run or of any saved model, with the names of its columns."""
    flow = load(folder)
    columns, context = (), ()
    if read_config(folder / CONFIG).run is not None:
        run = read_run(folder)
        if isinstance(run, TableRunConfig):
            columns, context = run.columns, run.context_columns
        else:
            context = run.classes_of(flow)
    return export(
        flow, out, format=format, functions=functions, columns=columns, context_columns=context
    )


def diagnose_exported(
    path: Path,
    data: str | None = None,
    *,
    trust: bool,
    thorough: bool = False,
    progress: Progress = quietly,
    decimal: Decimal | None = None,
) -> tuple[Diagnosis, str]:
    """Returns the diagnosis of an exported flow, and a description of the points."""
    flow = read_exported(path, trust=trust)
    if data is None:
        result = diagnose_flow(flow, thorough=thorough, progress=progress)
        return result, "samples of the flow"
    if not flow.columns:
        raise ArgumentError(
            f"DATA should be left out: {path} has no names of columns. Pass 'columns' to "
            "kappaflow.export."
        )
    table = load_table(data, columns=flow.columns, context=flow.context_columns, decimal=decimal)
    require_finite(table, data)
    rows = torch.from_numpy(table.values).to(flow.dtype)
    context = None if table.context is None else torch.from_numpy(table.context).to(flow.dtype)

    def name(row: int) -> str:
        return describe_values(table, row)

    result = diagnose_flow(flow, rows, context, thorough=thorough, progress=progress, names=name)
    return result, f"rows of {data}"
