"""`rewrite_run`: a run folder whose flow has one partition, and otherwise does the same."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kappaflow.errors import ArgumentError, FileError
from kappaflow.files import (
    CONFIG,
    WEIGHTS,
    describe_model,
    load,
    read_config,
    write_config,
    write_weights,
)
from kappaflow.flows import Flow
from kappaflow.report import write_report
from kappaflow.rewrite import Certificate, rewrite_fixed_partition
from kappaflow.runs.fit import DIAGNOSIS
from kappaflow.runs.rewrite_images import ImageRun
from kappaflow.runs.rewrite_table import TableRun
from kappaflow.runs.stored import is_image_run
from kappaflow.storage import whole_directory, write_bytes
from kappaflow.training import FitResult, read_result, write_result

CERTIFICATE, METRICS, RESULT = "certificate.json", "metrics.jsonl", "result.json"


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
        _write(made.eval(), run, done, place, f"from {old} on the partition {partition}")
    return done


def _write(
    flow: Flow, run: TableRun | ImageRun, done: RewrittenRun, place: Path, how: str
) -> None:
    """Writes to a new folder the flow, and what the old one says of its own, for this one."""
    asked = read_config(run.folder / CONFIG).run
    described = describe_model(flow).model_copy(update={"run": asked})
    write_weights(place / WEIGHTS, flow.state_dict(), described)
    write_config(place / CONFIG, described)
    text = json.dumps(done.to_json(), indent=2) + "\n"
    write_bytes(place / CERTIFICATE, text.encode())
    for name in (METRICS, RESULT):
        if (run.folder / name).exists():
            write_bytes(place / name, (run.folder / name).read_bytes())
    stored = read_result(run.folder) if (place / RESULT).exists() else {}
    finished = "test_nll" in stored  # else a saved model, a run of the library, or one going on
    run.add_pictures(flow, place, finished=finished)
    if finished:
        _judge_again(flow, run, stored, place, how)


def _judge_again(
    flow: Flow, run: TableRun | ImageRun, stored: dict[str, Any], place: Path, how: str
) -> None:
    """Writes report, diagnosis and result of a new flow to its folder."""
    try:
        result = FitResult(
            flow=flow,
            history=tuple(stored["history"]),
            validation_nll=stored["validation_nll"],
            best_epoch=stored["best_epoch"],
            stopped_because=stored["stopped_because"],
        )
    except KeyError as error:
        raise FileError(f"{run.folder / RESULT} should say {error}, it does not.") from None
    report, diagnosis, found = run.judge(result, how)
    write_bytes(place / DIAGNOSIS, diagnosis.to_json().encode())
    write_report(report, place)
    write_result(place, stored | found)
