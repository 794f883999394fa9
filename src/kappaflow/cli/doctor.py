"""`kappaflow doctor`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import say_if_unfinished, table


def doctor(
    run: Path,
    data: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Say what is wrong with the flow of a run: in which layer, why, and what to do about it.

    The exit status is 1 if there is a finding of severity error.

    Parameters
    ----------
    run
        The run folder, or any saved model.
    data
        A table with the columns of the run, or images; those held out if left out.
    json
        Print the diagnosis as JSON.
    """
    from kappaflow.runs import examine_image_run, examine_run, is_image_run

    say_if_unfinished(run)
    examine = examine_image_run if is_image_run(run) else examine_run
    diagnosis, points = examine(run, data)
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
