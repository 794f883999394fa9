"""A run on images, for a flow of the same function: held-out images, report and samples anew."""

from pathlib import Path
from typing import Any

from kappaflow.conditioning import profile
from kappaflow.diagnosis import Diagnosis, diagnose_flow
from kappaflow.errors import KappaflowError
from kappaflow.flows import Flow
from kappaflow.report import ImageReport, read_report_on
from kappaflow.runs.anew import about_anew, on_samples
from kappaflow.runs.evaluate_images import evaluate_images, judged_images, points_of
from kappaflow.runs.image_samples import BEST, FOLDER, write_sheet
from kappaflow.runs.judged import judged_alone
from kappaflow.runs.stored import images_again, read_image_run
from kappaflow.runs.use_images import classes_of, draws_of
from kappaflow.storage import make_directory, write_bytes
from kappaflow.training import FitResult, Rows
from kappaflow.training.image_rows import ImageRows

COMPARED = 256  # images at most


class ImageRun:
    """A run on images, and these where they are still what they were.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_image_run(folder)
        try:
            self.parts = images_again(self.config)
        except KappaflowError:
            self.parts = None

    def points(self, flow: Flow) -> tuple[Rows, str]:
        """Returns images to compare flows on, and what they are in words."""
        if self.parts is None:
            return draws_of(flow, COMPARED), "samples of the flow"
        rows = ImageRows(self.parts.test, flow).at(slice(0, COMPARED))
        return rows, "held-out images of the run"

    def judge(self, result: FitResult, how: str) -> tuple[ImageReport, Diagnosis, dict[str, Any]]:
        """Returns report, diagnosis and what result.json says beyond the training, of a flow.

        `how` says in the report how the flow was written anew.
        """
        flow, report = result.flow, read_report_on(self.folder, ImageReport)
        about = about_anew(report.about, flow, how)
        if self.parts is not None:
            new, diagnosis = evaluate_images(result, self.parts, about)
            return new, diagnosis, judged_images(result, new, self.parts)
        rows = draws_of(flow, points_of(flow))
        diagnosis = diagnose_flow(flow, rows.x, rows.context)
        depth = diagnosis.profile or profile(flow, rows.x, context=rows.context)
        new = on_samples(report, about, diagnosis, depth)
        return new, diagnosis, judged_alone(new)

    def add_pictures(self, flow: Flow, place: Path, *, finished: bool) -> None:
        """Writes the grids of samples: those of the epochs as they were, the last anew."""
        for picture in sorted((self.folder / FOLDER).glob("epoch-*.png")):
            write_bytes(make_directory(place / FOLDER) / picture.name, picture.read_bytes())
        if finished:
            write_sheet(flow, classes_of(self.config, flow), place, BEST)
