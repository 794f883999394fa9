"""`kappaflow doctor`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import say_if_unfinished, table
from kappaflow.cli.table_options import Names


def doctor(
    run: str,
    data: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    context: Names = None,
    select: Names = None,
    ignore: Names = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Say what is wrong with a flow: in which layer, why, and what to do about it.

    The exit status is 1 if there is a finding of severity error.

    Parameters
    ----------
    run
        The run folder, any saved model, or a flow of any library in your own code: FILE.py:NAME or
        MODULE:NAME, a flow or a function that returns one, (flow, x) or (flow, x, context).
    data
        A table with the columns of the run, or images; those held out if left out. For a flow of
        code a table in the units that it expects; samples of the flow if left out.
    context
        For a flow of code: columns of the data that its density is conditioned on.
    select
        Codes of findings, or beginnings of them: --select KF2 KF301
    ignore
        The same, to leave out.
    json
        Print the diagnosis as JSON.
    """
    from kappaflow.diagnosis import check_codes, chosen
    from kappaflow.errors import ArgumentError
    from kappaflow.runs import (
        examine_code,
        examine_image_run,
        examine_run,
        is_code,
        is_image_run,
    )

    check_codes(select or (), ignore or ())
    if is_code(run):
        diagnosis, points = examine_code(run, data, tuple(context or ()))
    elif context:
        raise ArgumentError("'context' should be left out: a run knows the columns of its own.")
    else:
        say_if_unfinished(Path(run))
        examine = examine_image_run if is_image_run(Path(run)) else examine_run
        diagnosis, points = examine(Path(run), data)
    diagnosis = chosen(diagnosis, select or (), ignore or ())
    if json:
        print(diagnosis.to_json())
        return 0 if diagnosis.ok else 1
    print(f"{diagnosis.verdict}\n")
    for finding in diagnosis.findings:
        where = f" in layer {finding.layer}" if finding.layer else ""
        print(f"{finding.severity} {finding.code}{where}: {finding.message}")
        print(f"  cause: {finding.cause}\n  cure:  {finding.cure}\n")
    measured = {"examined at": points, **diagnosis.measured}
    table((name.replace("_", " "), _short(value)) for name, value in measured.items())
    return 0 if diagnosis.ok else 1


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
