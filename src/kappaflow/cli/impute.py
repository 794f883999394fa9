"""`kappaflow impute`."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.fit_options import TEXT, ReadText, given
from kappaflow.cli.parameters import Data, Flag, Integer, RunFolder
from kappaflow.cli.show import print_json, print_note
from kappaflow.errors import ArgumentError


def impute(
    run: RunFolder,
    data: Data,
    /,
    *,
    out: Data = "-",
    seed: Integer = 0,
    json: Flag = False,
    text: Annotated[ReadText | None, Parameter(name="*", group=TEXT)] = None,  # pyright: ignore[reportInvalidTypeForm]
) -> None:
    """Fill in missing values by draws given the rest of each row.

    For example:

    kappaflow fit people.csv --kinds auto --out runs/people

    kappaflow impute runs/people people.csv --out done.csv

    kappaflow impute runs/people people.csv --seed 1 --out again.csv

    The run has to be one that was fitted with --kinds. Each missing value is drawn from its
    distribution given the present values, which assumes that values are missing at random given
    these. Several seeds give several imputations.

    Parameters
    ----------
    data
        A table with the columns of the run.
    out
        A csv, parquet or arrow file; - is csv on standard output.
    seed
        Random seed.
    json
        Print a summary as JSON: the numbers of rows, of completed rows, and of completed rows
        that are uncertain. Needs --out FILE.
    """
    from kappaflow.runs import impute_run

    if json and out == "-":
        raise ArgumentError("'out' should be a file with 'json' (--out FILE), got '-'.")
    result = impute_run(run, data, out, seed=seed, **given(text or ReadText()))
    if json:
        print_json(asdict(result))
    if result.uncertain:
        print_note(
            f"{result.uncertain:,} of {result.completed:,} completed rows are far from the "
            "training rows: fewer than 10 of 256 draws agree with their present values"
        )
    if out != "-":
        print_note(f"{result.completed:,} of {result.rows:,} rows were completed, in {out}")
