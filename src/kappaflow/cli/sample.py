"""`kappaflow sample`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import say, say_if_unfinished
from kappaflow.cli.whole import Whole


def sample(
    run: Path,
    /,
    *,
    n: Annotated[Whole, Parameter(name=["-n", "--n"])],
    out: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    context: str | None = None,
    seed: Whole = 0,
) -> None:
    """Draw samples from the flow of a run, in the units of its data.

    Parameters
    ----------
    run
        The run folder.
    n
        How many; for each row of --context where there is one.
    out
        A csv, parquet, arrow, npy or npz file; - is csv on standard output.
    context
        A table with the context columns, for a conditional flow.
    seed
        Of the draws.
    """
    from kappaflow.data import check_writable, write_table
    from kappaflow.runs import sample_run

    check_writable(out)
    say_if_unfinished(run)
    write_table(sample_run(run, n, context=context, seed=seed), out)
    if out != "-":
        say(f"{n:,} samples{' for each context' if context else ''} are in {out}")
