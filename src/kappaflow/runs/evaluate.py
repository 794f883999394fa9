"""Evaluates a trained flow on held-out data: diagnosis, result and report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kappaflow.conditioning import ProfileQuantiles, profile
from kappaflow.diagnosis import Diagnosis, with_findings
from kappaflow.flows import Flow
from kappaflow.report.content import About, Report
from kappaflow.report.files import AnyReport, store_report
from kappaflow.report.result import Conditioning, HeldOut, Result
from kappaflow.results import to_plain
from kappaflow.runs.kinds import Calibration, RunData
from kappaflow.runs.stored import runs_on
from kappaflow.storage import write_bytes
from kappaflow.training import FitResult, read_result, write_result

DIAGNOSIS = "diagnosis.json"
PERCENTILES = 1000  # steps of the stored distribution of held-out scores


@dataclass(frozen=True)
class Evaluation:
    """The report and the diagnosis of a run, and what scores of other rows are compared with."""

    report: AnyReport
    diagnosis: Diagnosis
    calibration: Calibration | None = None


def evaluate(
    result: FitResult,
    data: RunData,
    about: About,
    notes: Sequence[str],
    budget: float | None = None,
    *,
    calibrated: bool = True,
) -> Evaluation:
    """Returns the evaluation of a trained flow on the test rows or images of a run.

    A flow of tables is moved to the CPU. `budget` is the condition budget of the training, if any.
    """
    content = data.content(result, budget)
    points = content.points
    depth = content.diagnosis.profile or profile(result.flow, points.x, context=points.context)
    history, stopped_because = result.history, result.stopped_because
    kind = runs_on(data.config.kind)
    findings = kind.findings(content.held_out, history, stopped_because, data.warnings)
    findings += kind.data_findings(result.flow, data.train)
    diagnosis = with_findings(content.diagnosis, findings)
    quantiles = depth.quantiles()
    report = Report(
        about=about,
        result=result_of(result, content.held_out, quantiles, diagnosis, notes, content.condition),
        curves=list(result.history),
        best_epoch=result.best_epoch,
        profile=quantiles,
        charts=content.charts,
    )
    calibration = _calibration(result.flow, data) if calibrated else None
    return Evaluation(report, diagnosis, calibration)


def result_of(
    result: FitResult,
    held_out: HeldOut,
    depth: ProfileQuantiles,
    diagnosis: Diagnosis,
    notes: Sequence[str],
    condition: Mapping[str, float],
) -> Result:
    """Returns all figures of a run; `condition` replaces figures of the profile."""
    last = result.history[-1] if result.history else {}
    names = {"epoch": "epochs", "time_s": "time_s", "skipped_steps": "skipped_steps"}
    return Result.model_validate({
        **dict(held_out),
        **{name: last[key] for key, name in names.items() if key in last},
        "stopped_because": result.stopped_because,
        **dict(Conditioning.at(depth)),
        **condition,
        **diagnosis_fields(diagnosis),
        "notes": list(notes),
    })


def diagnosis_fields(diagnosis: Diagnosis) -> dict[str, object]:
    """Returns the fields of a result that a diagnosis determines."""
    findings = list(diagnosis.findings)
    figures = {"level": diagnosis.level, "ok": diagnosis.ok, "verdict": diagnosis.verdict}
    return {**figures, "findings": findings}


def write_evaluation(evaluation: Evaluation, flow: Flow, data: RunData, folder: Path) -> None:
    """Writes diagnosis, report and result to a run folder, which completes the run."""
    data.write_files(flow, folder)
    write_figures(evaluation, folder)


def write_figures(evaluation: Evaluation, folder: Path) -> None:
    """Writes diagnosis, report and result to a run folder."""
    write_bytes(folder / DIAGNOSIS, evaluation.diagnosis.to_json().encode())
    store_report(evaluation.report, folder)
    more = evaluation.calibration
    calibration = {} if more is None else {"calibration": to_plain(more)}
    write_result(folder, read_result(folder) | to_plain(evaluation.report.result) | calibration)


def _calibration(flow: Flow, data: RunData) -> Calibration:
    """Returns the quantiles of log_prob of held-out rows, and the range of each column.

    A flow scores its training rows higher than new ones. Validation rows chose the epoch, which
    biases their scores by less than the error of quantiles of the test rows alone.
    """
    scores = data.held_out_scores(flow)
    with np.errstate(invalid="ignore"):  # nan between infinities
        quantiles = np.quantile(scores, np.linspace(0, 1, PERCENTILES + 1))
    return Calibration(log_prob_quantiles=quantiles.tolist(), ranges=dict(data.ranges()))
