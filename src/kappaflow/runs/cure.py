"""`cure_run`: what the doctor found in a run, mended where that takes no judgement."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kappaflow._checks import one_of, positive_int
from kappaflow.cures import CURES
from kappaflow.diagnosis import Diagnosis, examined, with_findings
from kappaflow.diagnosis.progress import Progress, quietly
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.files import CONFIG, load, read_config
from kappaflow.flows import Flow
from kappaflow.report import Report, read_report_on
from kappaflow.runs.anew import about_anew
from kappaflow.runs.anew_folder import RESULT, write_anew
from kappaflow.runs.anew_images import ImageRun
from kappaflow.runs.anew_table import TableRun
from kappaflow.runs.cure_columns import COLUMN_CURES, near_relation, train_anew
from kappaflow.runs.fit import training_facts, write_judgement
from kappaflow.runs.stored import is_image_run
from kappaflow.runs.stored_findings import stored_findings
from kappaflow.runs.trainable import Trainable, trainable
from kappaflow.storage import plain, whole_directory, write_bytes
from kappaflow.training import Rows, fit_tables, log_prob_of, read_result

NAMES = (*CURES, *COLUMN_CURES)
EPOCHS, SLOWER = 20, 0.3  # more epochs, and at which share of the run's learning rate
CURED = "cures.json"


@dataclass(frozen=True)
class Health:
    """A run as the doctor sees it.

    Attributes:
        diagnosis: The findings.
        nll: Mean NLL of the held-out rows in nats, None where they are not found.
        likelihood: What that is: exact, a bound or joint.
    """

    diagnosis: Diagnosis
    nll: float | None
    likelihood: str

    def to_json(self) -> dict[str, object]:
        """Returns plain values for JSON."""
        return {"nll": self.nll, "likelihood": self.likelihood, **self.diagnosis.to_dict()}


@dataclass(frozen=True)
class CuredRun:
    """What came of curing a run.

    Attributes:
        folder: The new run, None where nothing was done.
        done: What was done, a sentence each.
        before: The run before.
        after: And after; None where nothing was done.
        points: At which points, in words.
        on_request: What else could be done, by its name.
    """

    folder: Path | None
    done: tuple[str, ...]
    before: Health
    after: Health | None
    points: str
    on_request: dict[str, str]

    def to_json(self) -> dict[str, object]:
        """Returns plain values for JSON."""
        said: dict[str, object] = plain({
            "folder": None if self.folder is None else str(self.folder),
            "done": list(self.done),
            "points": self.points,
            "on_request": self.on_request,
            "before": self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
        })
        return said


def cure_run(
    folder: str | Path,
    into: str | Path,
    cures: Sequence[str] = (),
    *,
    epochs: int = EPOCHS,
    progress: bool | None = None,
    show: Progress = quietly,
) -> CuredRun:
    """Writes a run anew with a flow about which the doctor has less to say.

    Without names the findings above a note decide, among "fuse" (neighbouring linear layers become
    one), "bound" (nearly singular linear layers get a form with a bound) and "float64". Others
    change what is modelled, and are done where they are named: "pad" (Gaussian padding), "drop"
    and "jitter" (of a column that nearly follows from others; the run is trained anew). After
    "bound" and "pad" the flow is trained on, on the rows of the run; such a fix that was
    interrupted goes on when it is asked for again.

    Args:
        folder: A run folder, or any saved model. It is left as it is.
        into: The new folder.
        cures: Names of cures; "drop" and "jitter" each alone.
        epochs: For how many epochs at most a flow is trained on.
        progress: Show a progress bar of trainings; on a terminal only if left out.
        show: Is told what is done, before it is.

    Returns:
        What was done, and the run before and after.

    Raises:
        ArgumentError: `into` is there already or in the run, there is no such cure, or the flow or
            its data are not such as the cure needs.
        FileError: A file cannot be read, or written.
    """  # noqa: DOC502 - raised by the calls below
    old, new = Path(folder), Path(into)
    positive_int("epochs", epochs)
    for name in cures:
        one_of("fix", name, NAMES)
    if len(cures) > 1 and set(cures) & set(COLUMN_CURES):
        raise ArgumentError(
            "'fix' should name 'drop' or 'jitter' alone: they train anew, and the new run can be "
            "fixed in its turn."
        )
    if os.path.lexists(new) and not _goes_on(new):
        raise ArgumentError(f"'into' should be a new folder, {new} is there already.")
    if old.resolve() in new.resolve().parents:
        raise ArgumentError(f"'into' should be outside of {old}, which stays as it is, got {new}.")
    patient = _Patient(old, epochs, progress, show)
    if set(cures) & set(COLUMN_CURES):
        return patient.with_other_columns(new, cures[0])
    return patient.with_another_flow(new, tuple(cures))


def _goes_on(folder: Path) -> bool:
    """Returns whether a folder holds a training that has not come to its end."""
    if not (folder / CONFIG).is_file() or read_config(folder / CONFIG).run is None:
        return False
    return not (folder / RESULT).is_file() or "test_nll" not in read_result(folder)


class _Patient:
    """A run, its flow, and the points at which both are examined."""

    def __init__(self, folder: Path, epochs: int, progress: bool | None, show: Progress) -> None:
        self.folder, self.epochs, self.progress, self.show = folder, epochs, progress, show
        self.flow = load(folder)
        self.run = ImageRun(folder) if is_image_run(folder) else TableRun(folder)
        self.data = trainable(self.run) if isinstance(self.run, TableRun) else None
        self.rows, self.points = self.run.points(self.flow)
        self.before = _judged(self.health(self.flow, self.rows), folder)

    def health(self, flow: Flow, rows: Rows | None) -> Health:
        """Returns what the doctor says of a flow at points, and their likelihood."""
        if rows is None:
            return Health(examined(flow, progress=self.show), None, flow.likelihood)
        rows = Rows(
            rows.x.to(flow.dtype), None if rows.context is None else rows.context.to(flow.dtype)
        )
        found = examined(flow, rows.x, rows.context, progress=self.show)
        nll = -log_prob_of(flow, rows).mean().item()
        return Health(found, nll, flow.likelihood)

    def with_another_flow(self, new: Path, names: tuple[str, ...]) -> CuredRun:
        """Returns the run with its flow changed, and trained on where that is called for."""
        flow, now, done, trains = self.flow, self.before, [], False
        for name, cure in CURES.items():
            if name not in names and (names or not cure.is_asked_for(now.diagnosis)):
                continue
            if cure.trains and self.data is None:
                if not names:
                    continue
                raise _not_here(name)
            cured = cure.apply(flow)
            if cured is None:
                continue
            self.show(cured.said)
            flow, trains = cured.flow, trains or cure.trains
            done.append(f"{name}: {cured.said}")
            if not names:
                now = self.health(flow, self.rows)
        if not done:
            return CuredRun(None, (), self.before, None, self.points, self.on_request())
        if trains and self.data is not None:
            flow = self.train_on(flow, self.data, new, done)
        else:
            if os.path.lexists(new):
                raise ArgumentError(
                    f"'into' should be a new folder, {new} holds a training that goes on."
                )
            with whole_directory(new) as place:
                write_anew(flow.eval(), self.run, place, f"from {self.folder}: {'; '.join(done)}")
        return self.written(new, done, self.health(flow, self.rows), self.on_request())

    def train_on(self, flow: Flow, data: Trainable, new: Path, done: list[str]) -> Flow:
        """Returns a flow trained on, on the rows of the run, and writes its folder."""
        tables = data.tables
        rate = SLOWER * data.settings.learning_rate
        settings = data.settings.model_copy(
            update={"max_epochs": self.epochs, "learning_rate": rate}
        )
        result = fit_tables(
            flow,
            tables.trained_on,
            tables.validation,
            settings,
            out=new,
            progress=self.progress,
            about={
                "source": asdict(data.source),
                **({"widths": tables.widths} if tables.widths else {}),
                "cured": {"from": str(self.folder), "by": done},
            },
        )
        done.append(f"trained on for {len(result.history)} epochs")
        old = read_report_on(self.folder, Report).about
        about = about_anew(old, result.flow, "; ".join(done))
        facts = training_facts(result, settings)
        about = about.model_copy(update={"training": facts, "notes": list(tables.notes)})
        write_judgement(result, tables, about, settings.condition_budget, new)
        return result.flow

    def with_other_columns(self, new: Path, cure: str) -> CuredRun:
        """Returns the run trained anew with a column less, or with one that was given noise."""
        if self.data is None:
            raise _not_here(cure)
        said = train_anew(self.folder, new, cure, self.data, self.progress)
        cured = _Patient(new, self.epochs, self.progress, self.show)
        after = cured.before
        if cure == "drop":  # a likelihood of fewer columns compares with nothing
            after = replace(after, nll=None)
        return self.written(new, [f"{cure}: {said}"], after, cured.on_request())

    def written(
        self, new: Path, done: list[str], after: Health, on_request: dict[str, str]
    ) -> CuredRun:
        """Returns what was done, and writes it to the new folder."""
        after = _judged(after, new)
        found = CuredRun(new, tuple(done), self.before, after, self.points, on_request)
        text = json.dumps(found.to_json(), indent=2) + "\n"
        write_bytes(new / CURED, text.encode())
        return found

    def on_request(self) -> dict[str, str]:
        """Returns what else could be done, by name."""
        try:
            found = None if self.data is None else near_relation(self.data.tables)
        except KappaflowError:
            return {}
        if found is None:
            return {}
        column, relation = found
        said = f"column {column!r} nearly follows from others, {relation}"
        return {name: said for name in COLUMN_CURES}


def _judged(health: Health, folder: Path) -> Health:
    """Returns a health with the findings on the run as a whole, from what it has stored."""
    known = {finding.code for finding in health.diagnosis.findings}
    found, checked = stored_findings(folder)
    more = [finding for finding in found if finding.code not in known]
    return replace(health, diagnosis=with_findings(health.diagnosis, more, checked))


def _not_here(cure: str) -> ArgumentError:
    return ArgumentError(
        f"'fix' should not be {cure!r} here: the flow has to be trained after it, which a run on "
        "a table can be whose data is found as it was, and was not left on disk."
    )
