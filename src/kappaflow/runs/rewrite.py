"""`rewrite_run`: a run folder whose flow has one partition, and otherwise does the same."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from kappaflow.errors import ArgumentError
from kappaflow.files import load
from kappaflow.rewrite import Certificate, rewrite_fixed_partition
from kappaflow.runs.anew_folder import write_anew
from kappaflow.runs.anew_images import ImageRun
from kappaflow.runs.anew_table import TableRun
from kappaflow.runs.stored import is_image_run
from kappaflow.storage import whole_directory, write_bytes

CERTIFICATE = "certificate.json"


@dataclass(frozen=True)
class RewrittenRun:
    """What came of a rewriting.

    Attributes:
        folder: The new one.
        certificate: What was done, and how equal the two flows are.
        points: At which points they were compared, in words.
    """

    folder: Path
    certificate: Certificate
    points: str

    def to_json(self) -> dict[str, object]:
        """Returns plain values for JSON."""
        return {"compared_on": self.points, **self.certificate.to_json()}


def rewrite_run(
    folder: str | Path,
    out: str | Path,
    *,
    partition: str | int = "half",
    couplings: int | None = 6,
    seed: int = 0,
) -> RewrittenRun:
    """Writes a run anew with a flow of the same function whose couplings have one partition.

    The new folder can be scored, sampled, examined and reported like the old one: it names the
    same data, and its report and its result are those of the new flow. Where the data of the run
    is not found as it was, what only rows or images can tell is taken over from the old ones.

    Args:
        folder: A run folder, on a table or on images, or any saved model.
        out: The new folder, written whole or not at all.
        partition: As for `kappaflow.rewrite_fixed_partition`; so are couplings and seed.
        couplings: How many one linear map may take.
        seed: For searches, and for samples to compare on.

    Returns:
        The certificate, which is in the folder too, and at which points it was made.

    Raises:
        ArgumentError: `out` is there already, or the flow cannot be written on this partition.
        FileError: A file cannot be read, or written.
    """  # noqa: DOC502 - raised by the calls below
    old, new = Path(folder), Path(out)
    if os.path.lexists(new):
        raise ArgumentError(f"'out' should be a new folder, {new} is there already.")
    run = ImageRun(old) if is_image_run(old) else TableRun(old)
    flow = load(old)
    rows, points = run.points(flow)
    made, certificate = rewrite_fixed_partition(
        flow,
        None if rows is None else rows.x,
        context=None if rows is None else rows.context,
        partition=partition,
        couplings=couplings,
        seed=seed,
    )
    done = RewrittenRun(new, certificate, points)
    with whole_directory(new) as place:
        write_anew(made.eval(), run, place, f"from {old} on the partition {partition}")
        text = json.dumps(done.to_json(), indent=2) + "\n"
        write_bytes(place / CERTIFICATE, text.encode())
    return done
