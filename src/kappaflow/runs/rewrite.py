"""`rewrite_run`: rewrites the flow of a run to use a single fixed partition."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from kappaflow.errors import ArgumentError
from kappaflow.factor.strategies import Count
from kappaflow.files import load
from kappaflow.rewrite import Certificate, rewrite_fixed_partition
from kappaflow.runs.derived_run import StoredRun, write_derived_run
from kappaflow.storage import atomic_directory, write_bytes

CERTIFICATE = "certificate.json"


@dataclass(frozen=True)
class RewrittenRun:
    """The result of rewriting a run.

    `certificate` has the changes, and the differences between the two flows at `points`.
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
    couplings: Count = "auto",
    seed: int = 0,
) -> RewrittenRun:
    """Rewrites the flow of a run to use a single fixed partition, without changing its function.

    The new folder, written atomically, is a run on the same data, with the report and the result
    of the new flow. If the data of the run is missing or has changed, the numbers that depend on
    it are copied from the old report and result. The other arguments are as for
    `kappaflow.rewrite_fixed_partition`.

    Returns:
        The certificate, which is also in the folder, and the points of the comparison.

    Raises:
        ArgumentError: `out` exists, or the flow cannot use this partition.
        FileError: A file cannot be read, or written.
    """
    old, new = Path(folder), Path(out)
    if os.path.lexists(new):
        raise ArgumentError(f"'out' should be a new folder, {new} exists already.")
    run = StoredRun(old)
    flow = load(old)
    rows, points = run.points(flow)
    rewritten, certificate = rewrite_fixed_partition(
        flow,
        None if rows is None else rows.x,
        context=None if rows is None else rows.context,
        partition=partition,
        couplings=couplings,
        seed=seed,
    )
    done = RewrittenRun(new, certificate, points)
    with atomic_directory(new) as temporary:
        write_derived_run(
            rewritten.eval(), run, temporary, f"from {old} on the partition {partition}"
        )
        text = json.dumps(done.to_json(), indent=2) + "\n"
        write_bytes(temporary / CERTIFICATE, text.encode())
    return done
