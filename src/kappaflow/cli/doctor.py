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
    out: Path | None = None,
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
    out
        An HTML file: the findings, and what was measured drawn beside them.
    json
        Print the diagnosis as JSON.
    """
    from kappaflow.cli.progress import words_shown
    from kappaflow.diagnosis import check_codes, chosen
    from kappaflow.errors import ArgumentError
    from kappaflow.report import write_diagnosis
    from kappaflow.report.places import check_place
    from kappaflow.runs import (
        examine_code,
        examine_image_run,
        examine_run,
        is_code,
        is_image_run,
    )

    check_codes(select or (), ignore or ())
    check_place("out", out, ".html")
    if context and not is_code(run):
        raise ArgumentError("'context' should be left out: a run knows the columns of its own.")
    if not is_code(run):
        say_if_unfinished(Path(run))
    with words_shown(visible=False if json else None) as show:
        if is_code(run):
            diagnosis, points = examine_code(run, data, tuple(context or ()), progress=show)
        else:
            examine = examine_image_run if is_image_run(Path(run)) else examine_run
            diagnosis, points = examine(Path(run), data, progress=show)
        diagnosis = chosen(diagnosis, select or (), ignore or ())
        if out is not None:
            show("drawing the page")
            write_diagnosis(diagnosis, out, title=_title(run), points=points)
    if json:
        print(diagnosis.to_json())
        return 0 if diagnosis.ok else 1
    print(f"{diagnosis.verdict}\n")
    for finding in diagnosis.findings:
        where = f" in layer {finding.layer}" if finding.layer else ""
        print(f"{finding.severity} {finding.code}{where}: {finding.message}")
        print(f"  cause: {finding.cause}\n  cure:  {finding.cure}\n")
    measured = {"examined at": points, **diagnosis.measured}
    if out is not None:
        measured["page"] = str(out)
    table((name.replace("_", " "), _short(value)) for name, value in measured.items())
    return 0 if diagnosis.ok else 1


def _title(run: str) -> str:
    """Returns what was examined: the name of a run folder, or of a flow in a file."""
    home, colon, name = run.rpartition(":")
    return Path(run).resolve().name if not colon else f"{Path(home).name}:{name}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
