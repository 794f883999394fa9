"""`kappaflow report`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import tell


def report(run: Path, /, *, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Write the report of a finished run again, from its stored results.

    For example:

    kappaflow report runs/magic

    kappaflow report runs/digits

    Parameters
    ----------
    run
        The run folder.
    json
        Print the numbers as JSON instead.
    """
    from kappaflow.report import draw_again, read_report

    if json:
        tell(read_report(run).model_dump_json(indent=2))
        return
    tell(draw_again(run))
