"""`kappaflow report`."""

from kappaflow.cli.parameters import Json, RunFolder
from kappaflow.cli.show import print_text


def report(run: RunFolder, /, *, json: Json = False) -> None:
    """Write the report of a finished run again, from its stored results.

    For example:

    kappaflow report runs/magic

    kappaflow report runs/digits
    """
    from kappaflow.report.files import draw_again, read_report

    if json:
        print_text(read_report(run).model_dump_json(indent=2))
        return
    print_text(draw_again(run))
