"""`rewrite_run`: a run folder whose flow has one partition, and otherwise does the same."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kappaflow.conditioning import layers_of, profile
from kappaflow.diagnosis import Diagnosis, doctor
from kappaflow.errors import ArgumentError, FileError, KappaflowError
from kappaflow.files import (
    CONFIG,
    WEIGHTS,
    ModelConfig,
    describe_model,
    load,
    read_config,
    write_config,
    write_weights,
)
from kappaflow.flows import Flow
from kappaflow.report import (
    About,
    FindingView,
    ImageReport,
    ProfileView,
    Report,
    read_report,
    write_report,
)
from kappaflow.rewrite import Certificate, rewrite_fixed_partition
from kappaflow.runs.evaluate import POINTS, evaluate
from kappaflow.runs.fit import DIAGNOSIS
from kappaflow.runs.job import Tables
from kappaflow.runs.judged import judged, judged_alone
from kappaflow.runs.stored import is_image_run, read_run, tables_again
from kappaflow.storage import whole_directory, write_bytes
from kappaflow.training import FitResult, Rows, read_result, rows_of, write_result

CERTIFICATE, METRICS, RESULT = "certificate.json", "metrics.jsonl", "result.json"
ANEW = "written anew"


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
    is not found as it was, what only rows can tell is taken over from the old ones.

    Args:
        folder: A run folder, or any saved model.
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
    if is_image_run(old):
        raise ArgumentError(
            f"'run' should be one of a table, {old} is one of images: in Python, "
            "kappaflow.rewrite_fixed_partition(kappaflow.load(run)) writes its flow anew."
        )
    flow, config = load(old), read_config(old / CONFIG)
    tables = _tables(old, config)
    rows = None if tables is None else rows_of(tables.test, flow)
    if rows is None and flow.context_features:
        raise ArgumentError(
            f"'run' should be one whose data is found as it was, since conditional flows are "
            f"compared on rows with a context, and that of {old} is not: put the data back, or "
            "call kappaflow.rewrite_fixed_partition(flow, x, context=context) on other rows."
        )
    made, certificate = _rewritten(flow, rows, partition, couplings, seed)
    points = "held-out rows of the run" if rows else "samples of the flow"
    done = RewrittenRun(new, certificate, points)
    with whole_directory(new) as place:
        described = describe_model(made).model_copy(update={"run": config.run})
        write_weights(place / WEIGHTS, made.state_dict(), described)
        write_config(place / CONFIG, described)
        text = json.dumps(done.to_json(), indent=2) + "\n"
        write_bytes(place / CERTIFICATE, text.encode())
        _judge_again(old, place, made, tables, f"from {old} on the partition {partition}")
    return done


def _tables(folder: Path, config: ModelConfig) -> Tables | None:
    """Returns the rows of a run, where it is one and its data is still what it was."""
    if config.run is None:
        return None
    try:
        return tables_again(read_run(folder))
    except KappaflowError:
        return None


def _rewritten(
    flow: Flow, rows: Rows | None, partition: str | int, couplings: int | None, seed: int
) -> tuple[Flow, Certificate]:
    made, certificate = rewrite_fixed_partition(
        flow,
        None if rows is None else rows.x,
        context=None if rows is None else rows.context,
        partition=partition,
        couplings=couplings,
        seed=seed,
    )
    return made.eval(), certificate


def _judge_again(old: Path, place: Path, flow: Flow, tables: Tables | None, how: str) -> None:
    """Writes to a new folder what the old one says of its flow, for the new flow."""
    for name in (METRICS, RESULT):
        if (old / name).exists():
            write_bytes(place / name, (old / name).read_bytes())
    stored = read_result(old) if (old / RESULT).exists() else {}
    if "test_nll" not in stored:  # a saved model, a run of the library, one that is not finished
        return
    report = read_report(old)
    if isinstance(report, ImageReport):
        raise FileError(f"{old} is a run on a table, and the report in it is one on images.")
    about = _about(report.about, flow, how)
    if tables is None:
        report, diagnosis = _examined(report, flow, about)
        stored |= judged_alone(report)
    else:
        result = FitResult(
            flow=flow,
            history=tuple(stored["history"]),
            validation_nll=stored["validation_nll"],
            best_epoch=stored["best_epoch"],
            stopped_because=stored["stopped_because"],
        )
        report, diagnosis = evaluate(result, tables, about)
        stored |= judged(result, report, tables)
    write_bytes(place / DIAGNOSIS, diagnosis.to_json().encode())
    write_report(report, place)
    write_result(place, stored)


def _examined(report: Report, flow: Flow, about: About) -> tuple[Report, Diagnosis]:
    """Returns a report with the conditioning of another flow of the same function."""
    diagnosis = doctor(flow)
    depth = diagnosis.profile or profile(flow, _draws(flow))
    said = "its data was not found as it was: the conditioning is that at samples of the flow"
    changed = {
        "about": about.model_copy(update={"notes": [*about.notes, said]}),
        "profile": ProfileView.model_validate(depth.to_dict()),
        "verdict": diagnosis.verdict,
        "ok": diagnosis.ok,
        "findings": [FindingView(**vars(finding)) for finding in diagnosis.findings],
    }
    return report.model_copy(update=changed), diagnosis


def _draws(flow: Flow) -> Tensor:
    """Returns a few samples of a flow."""
    return flow.sample(POINTS, generator=torch.Generator().manual_seed(0))


def _about(about: About, flow: Flow, how: str) -> About:
    """Returns what a report says of the model, for a flow that was written anew."""
    facts = dict(about.model) | {
        "layers": str(len(layers_of(flow.core))),
        "parameters": f"{sum(p.numel() for p in flow.parameters()):,}",
        ANEW: how,
    }
    title = about.title.removesuffix(f", {ANEW}")
    note = "the learning curves and the times are those of the flow before it was written anew"
    return about.model_copy(
        update={
            "title": f"{title}, {ANEW}",
            "model": list(facts.items()),
            "notes": list(dict.fromkeys([*about.notes, note])),
        }
    )
