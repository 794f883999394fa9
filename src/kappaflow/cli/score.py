"""`kappaflow score`."""

from dataclasses import asdict
from typing import Annotated, Literal

from cyclopts import Parameter

from kappaflow.cli.fit_options import TEXT, ReadText, given
from kappaflow.cli.parameters import Data, Device, Flag, RunFolder
from kappaflow.cli.show import JOINT, note_unused_cuda, print_json, print_note
from kappaflow.errors import ArgumentError


def score(
    run: RunFolder,
    data: Data,
    /,
    *,
    out: Data = "-",
    id: str | None = None,
    repair: Literal["drop"] | None = None,
    device: Device = None,
    json: Flag = False,
    text: Annotated[ReadText | None, Parameter(name="*", group=TEXT)] = None,  # pyright: ignore[reportInvalidTypeForm]
) -> None:
    """Write the log-density of each row or image, and its percentile among the held-out rows.

    For example:

    kappaflow score runs/magic events.csv --out scores.csv

    kappaflow score runs/digits photos --out scores.csv

    row is the number of the row in the table, counted from 1. A row with a value that is missing,
    text, or outside the range of float32 or float64 gets no score: its log_prob and percentile are
    empty. The number of such rows is printed on stderr.

    log_prob is in nats, in the units of the data. With padding that has no density there is only
    joint_log_prob, the density of a row together with its padding, which is not a likelihood.
    Outside the bounds of a column the density is 0 and log_prob is -inf; the number of such rows
    is printed on stderr. A percentile of 1 means that 99 % of the held-out rows have a higher
    density. The number of rows outside the range of the training rows is printed on stderr, with
    the columns: there the flow extrapolates. For images there is also bits_per_dimension, and the
    name of the file, or its number from 0, instead of row.

    A table larger than memory is read, scored and written in chunks (parquet, arrow, npy, csv and
    tsv files; not npz, gz or standard input). The file appears when all rows are scored.

    Parameters
    ----------
    data
        A table with the columns of the run, - for csv on standard input, or a shipped name; for
        a run on images a folder of images or the name of a set.
    out
        A csv, parquet, arrow, npy or npz file; - is csv on standard output.
    id
        A column of the table to copy, such as the name of an event; not to npy or npz.
    repair
        drop: leave out the rows that cannot be scored, instead of writing them without a score.
    json
        Print a summary as JSON: the numbers of rows, of infinite and empty scores, and of rows
        outside the range of the training rows, in all and by column. Needs --out FILE.
    """
    from kappaflow.runs import write_scores
    from kappaflow.runs.stored import run_kind

    if json and out == "-":
        raise ArgumentError("'out' should be a file with 'json' (--out FILE), got '-'.")
    note_unused_cuda(device)
    options = given(text or ReadText())
    written = write_scores(run, data, out, identifier=id, repair=repair, device=device, **options)
    if json:
        print_json(asdict(written))
    items = run_kind(run).plural
    if "joint_log_prob" in written.columns:
        print_note(JOINT)
    if written.infinite and items == "rows":
        print_note(
            f"{written.infinite:,} of {written.rows:,} rows have a log_prob of -inf: the density "
            "is 0 outside of the bounds of a column"
        )
    if written.empty and items == "rows":
        print_note(
            f"{written.empty:,} of {written.rows:,} rows could not be scored and have an empty "
            f"log_prob, the first is {written.first_name}: a value is missing, is text, or "
            "is too large for the flow's numbers"
        )
    if written.outside.rows:
        print_note(written.outside.note(written.rows + written.dropped))
    if written.dropped:
        print_note(f"{written.dropped:,} rows could not be scored and were left out")
    if out != "-":
        print_note(f"the scores of {written.rows:,} {items} are in {out}")
