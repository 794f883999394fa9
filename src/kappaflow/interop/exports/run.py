"""Exports the flow of a run, for the command."""

from collections.abc import Sequence
from pathlib import Path

from kappaflow.files import CONFIG, load, read_config
from kappaflow.interop.exports import Exported, export
from kappaflow.options import ExportFormat
from kappaflow.runs.stored import read_run


def export_run(
    folder: Path,
    out: Path,
    *,
    format: ExportFormat = "torch",
    functions: Sequence[str] | None = None,
) -> Exported:
    """Returns the export of a run or of any saved model, with the names of its columns."""
    flow = load(folder)
    columns, context = (), ()
    if read_config(folder / CONFIG).run is not None:
        columns, context = read_run(folder).names(flow)
    return export(
        flow, out, format=format, functions=functions, columns=columns, context_columns=context
    )
