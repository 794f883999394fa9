"""`kappaflow doctor`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from kappaflow.cli.fit_options import TEXT, ReadText, given
from kappaflow.cli.parameters import Data, Device, Flag, Integer, Json, Names
from kappaflow.cli.show import (
    note_unfinished,
    note_unused_cuda,
    print_columns,
    print_findings,
    print_json,
    print_text,
    shown_step,
)
from kappaflow.errors import ArgumentError

if TYPE_CHECKING:
    from kappaflow.diagnosis import Diagnosis
    from kappaflow.runs import FixedRun, Health

NLL = {
    "exact": "NLL of held-out rows, nats",
    "bound": "bound on the NLL of held-out rows, nats",
    "joint": "joint NLL of held-out rows and padding, nats",
}
FIGURES = (
    "condition_number_median",
    "condition_number_max",
    "round_trip_data_max",
    "round_trip_latent_max",
)
Fixes = Annotated[
    list[Literal["fuse", "bound", "float64"]] | None,
    Parameter(consume_multiple=True),
]


def doctor(
    run: str,
    data: Data | None = None,
    /,
    *,
    context: Names = None,
    select: Names = None,
    ignore: Names = None,
    out: Path | None = None,
    fix: Fixes = None,
    into: Path | None = None,
    epochs: Integer | None = None,
    thorough: Flag = False,
    json: Json = False,
    device: Device = None,
    text: Annotated[ReadText | None, Parameter(name="*", group=TEXT)] = None,  # pyright: ignore[reportInvalidTypeForm]
) -> int:
    """Find what is wrong with a flow, in which layer, why, and how to fix it.

    For example:

    kappaflow doctor runs/magic

    kappaflow doctor flows.py:make events.csv --out page.html

    The exit status is 1 if a finding is an error.

    Parameters
    ----------
    run
        A run folder, a saved model, or a PyTorch flow in your own code: FILE.py:NAME or
        MODULE:NAME, where NAME is a flow or a function that returns a flow, (flow, x) or (flow,
        x, context).
    data
        A table with the columns of the run, or images. Default: the held-out rows of the run. For
        a flow in code, a table on the scale that the flow expects. Default: samples of the flow.
    context
        For a flow in code: columns of the data that its density is conditioned on.
    select
        Show only these codes or prefixes of codes: --select KF2 KF301
    ignore
        Hide these codes or prefixes of codes.
    out
        Write an HTML file with the findings and figures of what was measured.
    fix
        Fix a run: write a new run, and compare both. Without names, the findings decide among
        fuse (merge neighboring linear layers), bound (bound nearly singular linear layers, then
        train further) and float64.
    into
        The new run that --fix writes. Default: RUN-fixed.
    epochs
        The maximum number of epochs of further training with --fix (20).
    thorough
        Also run the slow checks: more points, all rows, all columns of a context, bases of
        any dimension. Without it, "not checked" in the output names what was left out.
    """
    from kappaflow.diagnosis import check_codes, filter_findings
    from kappaflow.report.diagnosis import write_diagnosis
    from kappaflow.report.files import check_output_path
    from kappaflow.runs import diagnose_code, diagnose_run, is_code

    is_code_flow = is_code(run)
    _check_target(run, context, is_code_flow=is_code_flow)
    written = given(text or ReadText())
    other_options = (data, context, select, ignore, out, written, device, thorough)
    _check_fix(fix, into, epochs, is_code_flow=is_code_flow, has_others=any(other_options))
    if fix is not None:
        return _run_fixes(Path(run), fix, into, epochs, json=json)
    check_codes(select or (), ignore or ())
    check_output_path("out", out, ".html")
    if not is_code_flow:
        note_unused_cuda(device)
        note_unfinished(Path(run))
    with shown_step(visible=False if json else None) as show:
        options: dict[str, Any] = {
            "thorough": thorough,
            "progress": show,
            "device": device,
            **written,
        }
        if is_code_flow:
            diagnosis, points_text = diagnose_code(run, data, tuple(context or ()), **options)
        else:
            diagnosis, points_text = diagnose_run(Path(run), data, **options)
        diagnosis = filter_findings(diagnosis, select or (), ignore or ())
        if out is not None:
            show("drawing the page")
            write_diagnosis(diagnosis, out, title=_title(run), points=points_text)
    if json:
        print_json(diagnosis.to_dict())
    else:
        _print(diagnosis, points_text, out)
    return 0 if diagnosis.ok else 1


def _print(diagnosis: "Diagnosis", points_text: str, page: Path | None) -> None:
    """Prints a diagnosis as text."""
    print_text(f"{diagnosis.verdict}\n")
    print_findings(diagnosis.findings, fixes=True)
    measured = {"examined at": points_text, **diagnosis.measured}
    for name in ("not_checked", "not_compared"):
        if not measured[name]:
            del measured[name]
    if page is not None:
        measured["page"] = str(page)
    print_columns(
        (name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
        for name, value in measured.items()
    )


def _check_target(run: str, context: Sequence[str] | None, *, is_code_flow: bool) -> None:
    """Raises an error for a file of code without a name in it, and for a context of a run."""
    home = run.rpartition(":")[0] or run
    if not is_code_flow and home.endswith(".py") and not Path(run).is_dir():
        raise ArgumentError(f"{run} should name a flow in the file: {home}:NAME.")
    if context and not is_code_flow:
        raise ArgumentError("'context' is for a flow in code: a run stores its own context.")


def _check_fix(
    fix: Sequence[str] | None,
    into: Path | None,
    epochs: int | None,
    *,
    is_code_flow: bool,
    has_others: bool,
) -> None:
    """Raises an error for options that do not fit together."""
    if (is_code_flow or fix is None) and (into is not None or epochs is not None):
        name = "into" if into is not None else "epochs"
        raise ArgumentError(f"'{name}' is an option of --fix for a run: leave it out.")
    if fix is not None and is_code_flow:
        raise ArgumentError(
            "'fix' changes runs only. For a flow in code, follow the fix of each finding."
        )
    if fix is not None and has_others:
        raise ArgumentError(
            "'fix' only combines with --into, --epochs and --json: it examines the run at its own "
            "held-out rows, and the new run has a report."
        )


def _run_fixes(
    run: Path, fixes: Sequence[str], into: Path | None, epochs: int | None, *, json: bool
) -> int:
    """Fixes a run, prints it before and after, and returns the exit status."""
    from kappaflow.results import to_plain
    from kappaflow.runs import fix_run

    note_unfinished(run)
    options = {} if epochs is None else {"epochs": epochs}
    folder = run.resolve()
    out = folder.with_name(f"{folder.name}-fixed") if into is None else into
    visible = False if json else None
    with shown_step(visible=visible) as show:
        result = fix_run(run, out, fixes, progress=visible, show=show, **options)
    if json:
        print_json(to_plain(result))
    else:
        _print_fixed(result, fixes)
    return 0 if (result.after or result.before).ok else 1


def _print_fixed(fixed_run: "FixedRun", fixes: Sequence[str]) -> None:
    """Prints what was done, the run before and after, and further fixes."""
    if fixed_run.after is None:
        why = _why_nothing(fixed_run.before, fixes)
        print_text(f"{fixed_run.before.verdict}\n\nNothing changed: {why}.")
    else:
        print_text("\n".join(fixed_run.done) + "\n")
        _compare(fixed_run.before, fixed_run.after)
        print_text(f"\n{fixed_run.after.verdict}\n\nThe new run is {fixed_run.folder}")
    if fixed_run.hint:
        print_text(f"Another training may help: {fixed_run.hint}")


def _why_nothing(diagnosis: "Diagnosis", fixes: Sequence[str]) -> str:
    """Returns why nothing changed in the run."""
    if fixes:
        return f"{' and '.join(fixes)} {'find' if fixes[1:] else 'finds'} nothing to change"
    severe = any(finding.severity != "note" for finding in diagnosis.findings)
    return "no automatic fix applies to these findings" if severe else "there is nothing to fix"


def _compare(before: "Health", after: "Health") -> None:
    """Prints the figures of two flows side by side."""
    healths = (before, after)
    codes = (_codes(health) for health in healths)
    rows: list[tuple[str, ...]] = [("", "before", "after"), ("findings", *codes)]
    if before.nll is not None and after.nll is not None:
        for kind in dict.fromkeys(health.likelihood for health in healths):
            nlls = (f"{health.nll:.4g}" if health.likelihood == kind else "" for health in healths)
            rows.append((NLL[kind], *nlls))
    for name in FIGURES:
        values = (health.measured[name] for health in healths)
        rows.append((name.replace("_", " "), *(f"{value:.3g}" for value in values)))
    print_columns(rows)


def _codes(diagnosis: "Diagnosis") -> str:
    return " ".join(dict.fromkeys(finding.code for finding in diagnosis.findings)) or "none"


def _title(run: str) -> str:
    """Returns the name of a run folder, or of a flow in a file."""
    home, colon, name = run.rpartition(":")
    return Path(run).resolve().name if not colon else f"{Path(home).name}:{name}"
