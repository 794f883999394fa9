"""A run on a table, for a flow of the same function: its held-out rows, and its report anew."""

from pathlib import Path
from typing import Any

import torch

from kappaflow.conditioning import profile
from kappaflow.diagnosis import Diagnosis, doctor
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.files import CONFIG, read_config
from kappaflow.flows import Flow
from kappaflow.report import Report, read_report_on
from kappaflow.runs.anew import about_anew, on_samples
from kappaflow.runs.evaluate import POINTS, evaluate
from kappaflow.runs.judged import judged, judged_alone
from kappaflow.runs.stored import read_run, tables_again
from kappaflow.training import FitResult, Rows, rows_of


class TableRun:
    """A run on a table, or a saved model, and its rows where they are still what they were.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables = None
        if read_config(folder / CONFIG).run is not None:
            try:
                self.tables = tables_again(read_run(folder))
            except KappaflowError:
                return

    def points(self, flow: Flow) -> tuple[Rows | None, str]:
        """Returns rows to compare flows on, None for samples, and what they are in words."""
        if self.tables is not None:
            return rows_of(self.tables.test, flow), "held-out rows of the run"
        if flow.context_features:
            raise ArgumentError(
                "'run' should be one whose data is found as it was, since conditional flows are "
                f"compared on rows with a context, and that of {self.folder} is not: put the data "
                "back, or call kappaflow.rewrite_fixed_partition(flow, x, context=context) on "
                "other rows."
            )
        return None, "samples of the flow"

    def judge(self, result: FitResult, how: str) -> tuple[Report, Diagnosis, dict[str, Any]]:
        """Returns report, diagnosis and what result.json says beyond the training, of a flow.

        `how` says in the report how the flow was written anew.
        """
        flow, report = result.flow, read_report_on(self.folder, Report)
        about = about_anew(report.about, flow, how)
        if self.tables is not None:
            asked = None if report.budget is None else report.budget.asked
            new, diagnosis = evaluate(result, self.tables, about, asked)
            return new, diagnosis, judged(result, new, self.tables)
        diagnosis = doctor(flow)
        drawn = flow.sample(POINTS, generator=torch.Generator().manual_seed(0))
        new = on_samples(report, about, diagnosis, diagnosis.profile or profile(flow, drawn))
        return new, diagnosis, judged_alone(new)

    def add_pictures(self, flow: Flow, place: Path, *, finished: bool) -> None:
        """A run on a table has none."""
