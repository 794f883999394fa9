"""`fix_run`: applies the doctor's automatic fixes to a run, and writes a new run."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kappaflow._checks import one_of, positive_int
from kappaflow.data.statistics import nearest_relation
from kappaflow.data.table import JITTER
from kappaflow.diagnosis import Diagnosis, Progress, diagnose_flow, quietly, with_findings
from kappaflow.diagnosis.fixes import FIXES
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.files import CONFIG, load, read_config
from kappaflow.flows import Flow
from kappaflow.registry import build
from kappaflow.report import read_report
from kappaflow.runs.content import stored_findings
from kappaflow.runs.derived_run import (
    ReopenedRun,
    StoredRun,
    about_derived,
    write_derived_run,
)
from kappaflow.runs.evaluate import evaluate, write_evaluation
from kappaflow.runs.fit import fit_run, training_facts
from kappaflow.runs.recipes import ModelConfig, named_recipe
from kappaflow.runs.stored import EVALUATED, RESULT
from kappaflow.runs.table_data import TableData
from kappaflow.storage import atomic_directory, plain, write_bytes
from kappaflow.training import Batch, fit_split, log_prob_of, read_result

COLUMN_FIXES = ("drop", "jitter")  # of a column that nearly follows from others
NAMES = (*FIXES, *COLUMN_FIXES)
FROM_TABLE = ("features", "context_features", "bounds")  # arguments that the table decides
EPOCHS, SLOWER = 20, 0.3  # more epochs, and their share of the run's learning rate
FIXED = "fixes.json"


@dataclass(frozen=True)
class Health:
    """The diagnosis and the likelihood of a run.

    `nll` is the mean NLL of the held-out rows in nats; None if the rows are missing.
    """

    diagnosis: Diagnosis
    nll: float | None
    likelihood: str

    def to_json(self) -> dict[str, object]:
        return {"nll": self.nll, "likelihood": self.likelihood, **self.diagnosis.to_dict()}


@dataclass(frozen=True)
class FixedRun:
    """The result of fixing a run.

    `folder` and `after` are None if nothing was done. `done` has one clause per fix. `points`
    describes the examined points. `on_request` has fixes that only run when named, with their
    reasons.
    """

    folder: Path | None
    done: tuple[str, ...]
    before: Health
    after: Health | None
    points: str
    on_request: dict[str, str]

    def to_json(self) -> dict[str, object]:
        content: dict[str, object] = plain({
            "folder": None if self.folder is None else str(self.folder),
            "done": list(self.done),
            "points": self.points,
            "on_request": self.on_request,
            "before": self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
        })
        return content


def fix_run(
    folder: str | Path,
    into: str | Path,
    fixes: Sequence[str] = (),
    *,
    epochs: int = EPOCHS,
    progress: bool | None = None,
    show: Progress = quietly,
) -> FixedRun:
    """Returns what was done to fix a run in the folder `into`, and the run before and after.

    Without names, the errors and warnings decide among "fuse" (merge neighboring linear layers),
    "bound" (bound the condition number of nearly singular linear layers) and "float64". Other
    fixes change the model or the data, and only run when named: "pad" (Gaussian padding), "drop"
    and "jitter" (of a column that nearly follows from others; the run is trained again). After
    "bound" and "pad" the flow is trained further on the rows of the run. If that is interrupted,
    the same call resumes it. The folder, that of a run or any saved model, stays unchanged. `show`
    receives the name of each step before it starts.

    Raises:
        ArgumentError: `into` exists or is inside the run, a fix does not exist, or the flow or its
            data do not allow it.
        FileError: A file cannot be read, or written.
    """
    old, new = Path(folder), Path(into)
    positive_int("epochs", epochs)
    for name in fixes:
        one_of("fix", name, NAMES)
    if len(fixes) > 1 and set(fixes) & set(COLUMN_FIXES):
        raise ArgumentError(
            "'fix' should name 'drop' or 'jitter' alone: they train the run again. Fix the new "
            "run afterwards."
        )
    if os.path.lexists(new) and not _can_resume(new):
        raise ArgumentError(f"'into' should be a new folder, {new} exists already.")
    if old.resolve() in new.resolve().parents:
        raise ArgumentError(f"'into' should be outside of {old}, got {new}.")
    under_repair = _RunUnderRepair(old, epochs, progress, show)
    if set(fixes) & set(COLUMN_FIXES):
        return under_repair.with_other_columns(new, fixes[0])
    return under_repair.with_another_flow(new, tuple(fixes))


def _can_resume(folder: Path) -> bool:
    """Returns whether a folder holds an unfinished training."""
    if not (folder / CONFIG).is_file() or read_config(folder / CONFIG).run is None:
        return False
    return not (folder / RESULT).is_file() or EVALUATED not in read_result(folder)


class _RunUnderRepair:
    """A run, its flow, and the points at which the doctor examines it."""

    def __init__(self, folder: Path, epochs: int, progress: bool | None, show: Progress) -> None:
        self.folder, self.epochs, self.progress, self.show = folder, epochs, progress, show
        self.flow = load(folder)
        self.run = StoredRun(folder)
        self.data = self.run.reopened()
        self.rows, self.points = self.run.points(self.flow)
        self.before = _with_stored_findings(self.health(self.flow, self.rows), folder)

    def health(self, flow: Flow, rows: Batch | None) -> Health:
        """Returns the diagnosis of a flow at the points, and their likelihood."""
        if rows is None:
            return Health(diagnose_flow(flow, progress=self.show), None, flow.likelihood)
        rows = Batch(
            rows.x.to(flow.dtype), None if rows.context is None else rows.context.to(flow.dtype)
        )
        result = diagnose_flow(flow, rows.x, rows.context, progress=self.show)
        nll = -log_prob_of(flow, rows).mean().item()
        return Health(result, nll, flow.likelihood)

    def with_another_flow(self, new: Path, names: tuple[str, ...]) -> FixedRun:
        """Returns the run with fixes applied to its flow, trained further where necessary."""
        flow, now, done, trains = self.flow, self.before, [], False
        for name, fix in FIXES.items():
            if name not in names and (names or not fix.applies_to(now.diagnosis)):
                continue
            if fix.trains and self.data is None:
                if not names:
                    continue
                raise _needs_data(name)
            fixed = fix.apply(flow)
            if fixed is None:
                continue
            self.show(fixed.note)
            flow, trains = fixed.flow, trains or fix.trains
            done.append(f"{name}: {fixed.note}")
            if not names:
                now = self.health(flow, self.rows)
        if not done:
            return FixedRun(None, (), self.before, None, self.points, self.on_request())
        if trains and self.data is not None:
            flow = self.train_on(flow, self.data, new, done)
        else:
            if os.path.lexists(new):
                raise ArgumentError(
                    f"'into' should be a new folder, {new} holds an unfinished training."
                )
            with atomic_directory(new) as place:
                write_derived_run(
                    flow.eval(), self.run, place, f"from {self.folder}: {'; '.join(done)}"
                )
        after = _with_stored_findings(self.health(flow, self.rows), new)
        return self.written(new, done, after, self.on_request())

    def train_on(self, flow: Flow, data: ReopenedRun, new: Path, done: list[str]) -> Flow:
        """Returns a flow trained further on the rows of the run, and writes its folder."""
        rows = data.data
        rate = SLOWER * data.settings.learning_rate
        settings = data.settings.model_copy(
            update={"max_epochs": self.epochs, "learning_rate": rate}
        )
        result = fit_split(
            flow,
            rows.trained_on,
            rows.validation,
            settings,
            out=new,
            progress=self.progress,
            about={
                "source": asdict(data.source),
                **rows.to_store,
                "fixed": {"from": str(self.folder), "by": done},
            },
        )
        done.append(f"trained for {len(result.history)} more epochs")
        about = about_derived(read_report(self.folder).about, result.flow, "; ".join(done))
        facts = training_facts(result, settings)
        about = about.model_copy(update={"training": facts})
        value = evaluate(result, rows, about, rows.notes, settings.condition_budget)
        write_evaluation(value, result.flow, rows, new)
        return result.flow

    def with_other_columns(self, new: Path, fix: str) -> FixedRun:
        """Returns the run trained again without a column, or with noise added to it."""
        if self.data is None:
            raise _needs_data(fix)
        done = train_again(self.folder, new, fix, self.data, self.progress)
        fixed = _RunUnderRepair(new, self.epochs, self.progress, self.show)
        after = fixed.before
        if fix == "drop":  # likelihoods of different columns cannot be compared
            after = replace(after, nll=None)
        return self.written(new, [f"{fix}: {done}"], after, fixed.on_request())

    def written(
        self, new: Path, done: list[str], after: Health, on_request: dict[str, str]
    ) -> FixedRun:
        """Returns the result, and writes it to the new folder."""
        result = FixedRun(new, tuple(done), self.before, after, self.points, on_request)
        text = json.dumps(result.to_json(), indent=2) + "\n"
        write_bytes(new / FIXED, text.encode())
        return result

    def on_request(self) -> dict[str, str]:
        """Returns the fixes that only run when named, with their reasons."""
        try:
            result = None if self.data is None else near_relation(self.data.data)
        except KappaflowError:
            return {}
        if result is None:
            return {}
        column, relation = result
        reason = f"column {column!r} nearly follows from others, {relation}"
        return dict.fromkeys(COLUMN_FIXES, reason)


def _with_stored_findings(health: Health, folder: Path) -> Health:
    """Returns a health with the findings on likelihood and training that the run stores."""
    known = {finding.code for finding in health.diagnosis.findings}
    result, checked = stored_findings(folder)
    more = [finding for finding in result if finding.code not in known]
    return replace(health, diagnosis=with_findings(health.diagnosis, more, checked))


def _needs_data(fix: str) -> ArgumentError:
    return ArgumentError(
        f"'fix' should not be {fix!r} here: this fix trains the flow, and needs a run on a table "
        "in memory whose original data still exists."
    )


def near_relation(data: TableData) -> tuple[str, str] | None:
    """Returns the column that nearly follows from the others, and the relation as text.

    None if its deviation from the relation is as large as the noise that jittering adds.
    """
    train = data.train
    if len(train.columns) < 2 or train.context is not None:
        return None
    relation, left = nearest_relation(train.values)
    if left >= JITTER / 2:
        return None
    text = f"{relation.text(train.columns)}, up to {left:.1e} of its spread"
    return train.columns[relation.column], text


def train_again(
    folder: Path, out: Path, fix: str, data: ReopenedRun, progress: bool | None
) -> str:
    """Returns a sentence on the fix, after training a run again in the folder `out`.

    The fix is "drop" or "jitter"; `data` has the data and the settings of the run.
    """
    result = near_relation(data.data)
    if result is None:
        raise ArgumentError(
            f"'fix' should not be {fix!r}: no column of the run follows from the others up to "
            f"{JITTER / 2:g} of its spread."
        )
    (column, relation), source = result, data.source
    if fix == "drop":
        source = replace(
            source,
            exclude=[] if source.columns else [*source.exclude, column],
            columns=[c for c in source.columns if c != column] if source.columns else None,
        )
        done = f"dropped column {column!r}: {relation}"
    else:
        source = replace(source, jitter=[*(source.jitter or []), column])
        done = f"added Gaussian noise of {JITTER:g} of its spread to column {column!r}: {relation}"
    fit_run(source, _model(folder), out, progress=progress, **data.settings.model_dump())
    return done


def _model(folder: Path) -> ModelConfig:
    """Returns the recipe of a run's flow, with its arguments."""
    described: dict[str, Any] = read_config(folder / CONFIG).model
    named = named_recipe(described["name"], described["arguments"])
    if named is None:
        raise ArgumentError(
            "'fix' should not be 'drop' or 'jitter': they train the recipe of the run again, and "
            "this flow was assembled from layers."
        )
    arguments = {
        name: build(value) if isinstance(value, dict) else value
        for name, value in named[1].items()
        if name not in FROM_TABLE
    }
    return ModelConfig(named[0], arguments)
