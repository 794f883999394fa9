"""Run folders whose flow was made from that of another run, as `rewrite_run` does."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from kappaflow.conditioning import layers_of, profile
from kappaflow.diagnosis import diagnose_flow, doctor
from kappaflow.errors import ArgumentError, FileError, KappaflowError
from kappaflow.factor.strategies import Count
from kappaflow.files import (
    CONFIG,
    WEIGHTS,
    describe_run,
    load,
    read_config,
    write_config,
    write_weights,
)
from kappaflow.flows import Flow
from kappaflow.report.content import About
from kappaflow.report.files import AnyReport, read_report
from kappaflow.report.result import Conditioning
from kappaflow.rewrite import Certificate, rewrite_fixed_partition
from kappaflow.runs.evaluate import Evaluation, diagnosis_fields, evaluate, write_figures
from kappaflow.runs.kinds import COMPARED, RunData, RunKind, points_of
from kappaflow.runs.stored import EVALUATED, RESULT, read_run, reload_data, run_kind
from kappaflow.runs.table_content import POINTS
from kappaflow.storage import atomic_directory, write_bytes
from kappaflow.training import Batch, FitResult, read_result

METRICS = "metrics.jsonl"
CERTIFICATE = "certificate.json"
REWRITTEN = "rewritten"
OLD_CURVES = "the learning curves and the times are those of the flow before it was rewritten"
AT_SAMPLES = (
    "the data of the run is missing or has changed: conditioning is measured at samples of the "
    "flow"
)
AT_TEST_ROWS = ("condition_number_median", "condition_number_p95", "condition_rows")


class StoredRun:
    """A run, or a saved model, with the data of the run if it has not changed.

    `config` is None for a saved model; `data` is None if the data is missing or has changed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = None if read_config(folder / CONFIG).run is None else read_run(folder)

    @cached_property
    def data(self) -> RunData | None:
        with suppress(KappaflowError):
            return None if self.config is None else reload_data(self.config)
        return None

    @property
    def kind(self) -> RunKind:
        """The kind of data."""
        return run_kind(self.folder)

    def points(self, flow: Flow) -> tuple[Batch | None, str]:
        """Returns points to compare flows at, and a description; None for samples."""
        if self.data is not None:
            description = f"held-out {self.kind.plural} of the run"
            return self.kind.compared(flow, self.data.test), description
        samples = self.kind.sample_batch(flow, COMPARED)
        if samples is not None:
            return samples, "samples of the flow"
        if flow.context_features:
            raise ArgumentError(
                f"'run' should be one whose data still exists, and that of {self.folder} is "
                "missing or has changed: conditional flows are compared on rows with a context. "
                "Restore the data, or call kappaflow.rewrite_fixed_partition(flow, x, "
                "context=context) on other rows."
            )
        return None, "samples of the flow"

    def evaluate(self, result: FitResult, how: str) -> Evaluation:
        """Returns the evaluation of another flow on the data of the run, or else at samples.

        `result` is the training of the run with the other flow; `how` says how it was made, for
        the report.
        """
        report = read_report(self.folder, self.kind.name)
        about = about_derived(report.about, result.flow, how)
        report = report.model_copy(update={"about": about})
        notes = list(dict.fromkeys([*report.result.notes, OLD_CURVES]))
        if self.data is None:
            return self._at_samples(report, result.flow, [*notes, AT_SAMPLES])
        return evaluate(result, self.data, about, notes, report.result.condition_budget)

    def _at_samples(self, report: AnyReport, flow: Flow, notes: list[str]) -> Evaluation:
        """Returns a report with the diagnosis and the conditioning of a flow at samples of it."""
        rows = self.kind.sample_batch(flow, points_of(flow))
        if rows is not None:
            diagnosis = diagnose_flow(flow, rows.x, rows.context)
            depth = diagnosis.profile or profile(flow, rows.x, context=rows.context)
        else:
            diagnosis = doctor(flow)
            points = flow.sample(POINTS, generator=torch.Generator().manual_seed(0))
            depth = diagnosis.profile or profile(flow, points)
        quantiles, budget = depth.quantiles(), report.result.condition_budget
        kept = {} if budget is None else report.result.model_dump(include=set(AT_TEST_ROWS))
        figures = dict(Conditioning.at(quantiles)) | kept | diagnosis_fields(diagnosis)
        result = report.result.model_copy(update={**figures, "notes": notes})
        changed = report.model_copy(update={"result": result, "profile": quantiles})
        return Evaluation(changed, diagnosis)


def write_derived_run(flow: Flow, run: StoredRun, target: Path, how: str) -> None:
    """Writes a run folder for a flow made from another run; `how` tells its report how."""
    stored_run = read_config(run.folder / CONFIG).run
    described = describe_run(flow, stored_run)
    write_weights(target / WEIGHTS, flow.state_dict(), described)
    write_config(target / CONFIG, described)
    for name in (METRICS, RESULT):
        if (run.folder / name).exists():
            write_bytes(target / name, (run.folder / name).read_bytes())
    stored = read_result(run.folder) if (target / RESULT).exists() else {}
    finished = EVALUATED in stored  # not for a saved model or a run of kappaflow.fit
    run.kind.copy_files(run.config, flow, run.folder, target, finished=finished)
    if not finished:
        return
    try:
        result = FitResult.stored(flow, stored)
    except KeyError as error:
        raise FileError(f"{run.folder / RESULT} lacks {error}: it was changed.") from None
    write_figures(run.evaluate(result, how), target)


def about_derived(about: About, flow: Flow, how: str) -> About:
    """Returns the facts of a report for a flow that was made from that of another run."""
    facts = dict(about.model) | {
        "layers": str(len(layers_of(flow.core))),
        "parameters": f"{sum(p.numel() for p in flow.parameters()):,}",
        REWRITTEN: how,
    }
    title = about.title.removesuffix(f", {REWRITTEN}")
    changed = {"title": f"{title}, {REWRITTEN}", "model": list(facts.items())}
    return about.model_copy(update=changed)


@dataclass(frozen=True)
class RewrittenRun:
    """The result of rewriting a run."""

    folder: Path
    certificate: Certificate  # the changes, and the differences of the flows at `points`
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
