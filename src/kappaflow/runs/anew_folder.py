"""A run folder for a flow that was made from the flow of another run, without training it."""

from pathlib import Path
from typing import Any

from kappaflow.errors import FileError
from kappaflow.files import (
    CONFIG,
    WEIGHTS,
    describe_model,
    read_config,
    write_config,
    write_weights,
)
from kappaflow.flows import Flow
from kappaflow.report import write_report
from kappaflow.runs.anew_images import ImageRun
from kappaflow.runs.anew_table import TableRun
from kappaflow.runs.fit import DIAGNOSIS
from kappaflow.storage import write_bytes
from kappaflow.training import FitResult, read_result, write_result

METRICS, RESULT = "metrics.jsonl", "result.json"


def write_anew(flow: Flow, run: TableRun | ImageRun, place: Path, how: str) -> None:
    """Writes to a new folder the flow, and what the old one says of its own, for this one.

    Args:
        flow: The flow, in evaluation mode.
        run: The old folder.
        place: The new one.
        how: The flow was made from the old one, in words for its report.
    """
    asked = read_config(run.folder / CONFIG).run
    described = describe_model(flow).model_copy(update={"run": asked})
    write_weights(place / WEIGHTS, flow.state_dict(), described)
    write_config(place / CONFIG, described)
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
