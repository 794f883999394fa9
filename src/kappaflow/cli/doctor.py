"""`kappaflow doctor`."""

from collections.abc import Callable, Sequence
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from kappaflow.cli.printable import tell
from kappaflow.cli.show import print_json, say_if_unfinished, table
from kappaflow.cli.table_options import Names
from kappaflow.cli.whole import Whole
from kappaflow.errors import ArgumentError

if TYPE_CHECKING:
    from kappaflow.diagnosis import Diagnosis

Cures = Annotated[
    list[Literal["fuse", "bound", "float64", "pad", "drop", "jitter"]] | None,
    Parameter(consume_multiple=True),
]


def doctor(
    run: str,
    data: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    context: Names = None,
    select: Names = None,
    ignore: Names = None,
    out: Path | None = None,
    fix: Cures = None,
    into: Path | None = None,
    epochs: Whole | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    decimal: Literal[".", ","] | None = None,
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
    fix
        Write a new run about which there is less to say, and show both. Alone, it does what keeps
        the density or what an error calls for: fuse (neighbouring linear layers become one), bound
        (nearly singular linear layers, and then the flow is trained on) and float64. What changes
        the model or the data has to be named: pad (Gaussian padding; trained on), drop or jitter
        (of a column that nearly follows from others; trained anew). Of a flow of code it prints
        the lines to change, as a diff that patch -p0 takes.
    into
        The new run of --fix; RUN-fixed if left out.
    epochs
        For how many epochs at most --fix trains on (20).
    json
        Print the diagnosis as JSON.
    decimal
        Decimal sign of the data in text form; if left out, that of the run, or recognised.
    """
    from kappaflow.cli.progress import words_shown
    from kappaflow.diagnosis import check_codes, chosen
    from kappaflow.report import write_diagnosis
    from kappaflow.report.places import check_place
    from kappaflow.runs import is_code

    of_code = is_code(run)
    _check_target(run, context, of_code=of_code)
    alone = not (data or context or select or ignore or out or decimal)
    _check_fix(fix, into, epochs, of_code=of_code, alone=alone)
    if fix is not None and not of_code:
        return _fixed(Path(run), fix, into, epochs, json=json)
    check_codes(select or (), ignore or ())
    check_place("out", out, ".html")
    if not of_code:
        say_if_unfinished(Path(run))
    with words_shown(visible=False if json else None) as show:
        diagnosis, points, lines = _examined(
            run, data, tuple(context or ()), decimal, wants_lines=fix is not None, show=show
        )
        diagnosis = chosen(diagnosis, select or (), ignore or ())
        if out is not None:
            show("drawing the page")
            write_diagnosis(diagnosis, out, title=_title(run), points=points)
    if json:
        said = loads(diagnosis.to_json())
        print_json(said if lines is None else {**said, "lines_to_change": lines})
    else:
        _print(diagnosis, points, out, lines)
    return 0 if diagnosis.ok else 1


def _examined(
    run: str,
    data: str | None,
    context: tuple[str, ...],
    decimal: Literal[".", ","] | None,
    *,
    wants_lines: bool,
    show: Callable[[str], None],
) -> "tuple[Diagnosis, str, str | None]":
    """Returns the diagnosis, the points in words, and of code the lines to change if wanted."""
    from kappaflow.runs import (
        examine_code,
        examine_image_run,
        examine_run,
        is_code,
        is_image_run,
        lines_for,
    )

    if is_code(run):
        diagnosis, points, flow = examine_code(run, data, context, progress=show, decimal=decimal)
        return diagnosis, points, lines_for(run, flow, diagnosis) if wants_lines else None
    if not is_image_run(Path(run)):
        return *examine_run(Path(run), data, progress=show, decimal=decimal), None
    if decimal is not None:
        raise ArgumentError("'decimal' should be left out for images: it is for tables.")
    return *examine_image_run(Path(run), data, progress=show), None


def _print(diagnosis: "Diagnosis", points: str, page: Path | None, lines: str | None) -> None:
    """Prints a diagnosis for people."""
    tell(f"{diagnosis.verdict}\n")
    for finding in diagnosis.findings:
        where = f" in layer {finding.layer}" if finding.layer else ""
        tell(f"{finding.severity} {finding.code}{where}: {finding.message}")
        tell(f"  cause: {finding.cause}\n  cure:  {finding.cure}\n")
    measured = {"examined at": points, **diagnosis.measured}
    if page is not None:
        measured["page"] = str(page)
    table((name.replace("_", " "), _short(value)) for name, value in measured.items())
    if lines is not None:
        tell(f"\nLines to change:\n\n{lines}" if lines else "\nNo line to change is known.")


def _check_target(run: str, context: Sequence[str] | None, *, of_code: bool) -> None:
    """Refuses a file of code without a name in it, and a context for a run."""
    home = run.rpartition(":")[0] or run
    if not of_code and home.endswith(".py") and not Path(run).is_dir():
        raise ArgumentError(f"{run} should name a flow in the file, such as {home}:make.")
    if context and not of_code:
        raise ArgumentError("'context' should be left out: a run knows the columns of its own.")


def _check_fix(
    fix: Sequence[str] | None, into: Path | None, epochs: int | None, *, of_code: bool, alone: bool
) -> None:
    """Refuses options that do not go with what is examined."""
    if (of_code or fix is None) and (into is not None or epochs is not None):
        name = "into" if into is not None else "epochs"
        raise ArgumentError(f"'{name}' should be left out: it is of --fix for a run.")
    if fix and of_code:
        raise ArgumentError("'fix' should name no cure for a flow of code: it prints lines.")
    if fix is not None and not of_code and not alone:
        raise ArgumentError(
            "'fix' goes with --into, --epochs and --json alone: the run is examined on its own "
            "held-out rows, and the new one has a report."
        )


def _fixed(
    run: Path, cures: Sequence[str], into: Path | None, epochs: int | None, *, json: bool
) -> int:
    """Cures a run and returns the exit status."""
    from kappaflow.cli.fix import fix

    say_if_unfinished(run)
    return fix(run, cures, into, epochs, json=json)


def _title(run: str) -> str:
    """Returns what was examined: the name of a run folder, or of a flow in a file."""
    home, colon, name = run.rpartition(":")
    return Path(run).resolve().name if not colon else f"{Path(home).name}:{name}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
