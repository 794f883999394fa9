"""`kappaflow score`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import JOINT, say
from kappaflow.errors import ArgumentError


def score(
    run: Path,
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
) -> None:
    """Write the log-density of each row or image, and its percentile among those trained on.

    log_prob is in nats, in the units of the data; with padding that has no density there is only
    joint_log_prob, of a row and its padding, which is no likelihood. Outside of the bounds that a
    column was given the density is 0, and log_prob -inf; how many rows lie there is said. A
    percentile of 1 means that 99 % of the training rows lie where the density is higher. Of images
    there are bits_per_dimension too, and the name of the file, or its number from 0.

    Parameters
    ----------
    run
        The run folder.
    data
        A table with the columns of the run, - for csv on standard input, or a shipped name; for
        a run on images a folder of images or the name of a set.
    out
        A csv, parquet, arrow, npy or npz file; - is csv on standard output.
    """
    import numpy as np

    from kappaflow.data import check_writable, write_table
    from kappaflow.runs import is_image_run, score_image_run, score_run

    check_writable(out)
    of_images = is_image_run(run)
    scores = (score_image_run if of_images else score_run)(run, data)
    first = next(iter(scores.values()))
    if out.lower().endswith(".npy") and first.dtype.kind == "U":
        raise ArgumentError(
            f"'out' should be a csv, parquet, arrow or npz file, got {out!r}: the names of the "
            "images are text, and an npy file holds numbers."
        )
    if "joint_log_prob" in scores:
        say(JOINT)
    without = int(np.isneginf(first).sum()) if first.dtype.kind == "f" else 0
    if without:
        say(
            f"{without:,} of {len(first):,} rows have a log_prob of -inf: outside of the bounds "
            "that columns were given the density is 0"
        )
    write_table(scores, out)
    if out != "-":
        what = "images" if of_images else "rows"
        say(f"the scores of {len(first):,} {what} are in {out}")
