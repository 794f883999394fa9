"""`kappaflow report`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.printable import tell


def report(run: Path, /, *, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Draw the report of a finished run anew, from its numbers.

    Parameters
    ----------
    run
        The run folder.
    json
        Print the numbers as JSON instead.
    """
    from kappaflow.report import read_report, write_report

    content = read_report(run)
    if json:
        tell(content.model_dump_json(indent=2))
        return
    write_report(content, run)
    tell(run / "report.html")
