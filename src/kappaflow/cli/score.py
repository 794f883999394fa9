"""`kappaflow score`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import say


def score(
    run: Path,
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
) -> None:
    """Write the log-density of each row, and its percentile among the training rows.

    log_prob is in nats, in the units of the data. A percentile of 1 means that 99 % of the
    training rows lie where the density is higher.

    Parameters
    ----------
    run
        The run folder.
    data
        A table with the columns of the run, - for csv on standard input, or a shipped name.
    out
        A csv, parquet, arrow, npy or npz file; - is csv on standard output.
    """
    from kappaflow.data import check_writable, write_table
    from kappaflow.runs import score_run

    check_writable(out)
    scores = score_run(run, data)
    write_table(scores, out)
    if out != "-":
        say(f"the scores of {len(scores['log_prob']):,} rows are in {out}")
