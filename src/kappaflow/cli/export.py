"""`kappaflow export`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import note_unfinished, print_columns, print_text
from kappaflow.options import ExportFormat, ExportFunction

Functions = Annotated[list[ExportFunction] | None, Parameter(consume_multiple=True)]


def export(
    run: Path,
    /,
    *,
    out: Path,
    format: ExportFormat = "torch",  # noqa: A002
    functions: Functions = None,
) -> int:
    """Write the flow of a run as programs that run without kappaflow.

    For example:

    kappaflow export runs/magic --out exported

    kappaflow export runs/magic --out scores --format onnx --functions log_prob

    The new folder has one file for each function: log_prob.pt2, sample.pt2, encode.pt2 and
    decode.pt2, or the same with .onnx. Each is compared with the flow before the folder appears.
    A function that cannot be exported is not written. The exit status is 1 if you have named it.

    Parameters
    ----------
    run
        The run folder, or any saved model.
    out
        The new folder.
    format
        torch, for torch.export.load, or onnx, for ONNX Runtime and others.
    functions
        The functions to write. Default: all that the flow has.
    """
    from kappaflow.extensions import load_by_name

    note_unfinished(run)
    done = load_by_name("export_run")(run, out, format=format, functions=functions)
    print_text("largest difference to the flow on random rows\n")
    rows = [(name, f"{error:.1e}") for name, error in done.differences.items()]
    if done.round_trip is not None:
        rows.append(("decode(encode(x)), to x", f"{done.round_trip:.1e}"))
    print_columns(rows)
    for reason in done.left_out.values():
        print_text(f"\nNot written: {reason}")
    print_text(f"\nThe exported flow is {done.path}")
    return 1 if functions and done.left_out else 0
