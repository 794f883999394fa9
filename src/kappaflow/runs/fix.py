"""`fix_run`: applies the doctor's automatic fixes to the flow of a run, and writes a new run."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kappaflow._checks import one_of, positive_int
from kappaflow.data.naming import JITTER
from kappaflow.data.statistics import nearest_relation
from kappaflow.diagnosis import Diagnosis, ShowStep, diagnose_flow, quietly
from kappaflow.diagnosis.fixes import FIXES
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.files import CONFIG, load, read_config
from kappaflow.flows import Flow
from kappaflow.report.files import read_report
from kappaflow.results import to_plain
from kappaflow.runs.derived_run import StoredRun, about_derived, write_derived_run
from kappaflow.runs.diagnose import diagnose_run
from kappaflow.runs.evaluate import evaluate, write_evaluation
from kappaflow.runs.fit import training_facts
from kappaflow.runs.stored import EVALUATED, RESULT, read_finished
from kappaflow.runs.table_data import TableData
from kappaflow.storage import atomic_directory, write_bytes
from kappaflow.training import Batch, checked_settings, fit_split, read_result

EPOCHS, SLOWER = 20, 0.3  # more epochs, and their share of the run's learning rate
FIXED = "fixes.json"


@dataclass(frozen=True, repr=False)
class Health(Diagnosis):
    """The diagnosis of a run, and the mean NLL of its held-out rows in nats, if they are known."""

    nll: float | None = None
    likelihood: str = "exact"


@dataclass(frozen=True)
class FixedRun:
    """The result of fixing a run, which fixes.json holds."""

    folder: Path | None  # the new run; None if nothing was done, as `after`
    done: tuple[str, ...]  # one clause for each fix
    before: Health
    after: Health | None
    points: str  # at which the runs are diagnosed, as text
    hint: str = ""  # what only another training helps; empty if there is nothing


def fix_run(
    folder: str | Path,
    into: str | Path,
    fixes: Sequence[str] = (),
    *,
    epochs: int = EPOCHS,
    progress: bool | None = None,
    show: ShowStep = quietly,
) -> FixedRun:
    """Returns what was done to fix a run in the folder `into`, and the run before and after.

    Without names, the errors and warnings decide among "fuse" (merge neighboring linear layers),
    "bound" (bound the condition number of nearly singular linear layers) and "float64". After
    "bound" the flow is trained further on the rows of the run. If that is interrupted, the same
    call resumes it. The folder, that of a run or any saved model, stays unchanged. `show` receives
    the name of each step before it starts.

    Raises:
        ArgumentError: `into` exists or is inside the run, a fix does not exist, or the flow or its
            data do not allow it.
        FileError: A file cannot be read, or written.
    """
    old, new = Path(folder), Path(into)
    positive_int("epochs", epochs)
    for name in fixes:
        one_of("fix", name, tuple(FIXES))
    if os.path.lexists(new) and not _is_unfinished_training(new):
        raise ArgumentError(f"'into' should be a new folder, {new} exists already.")
    if old.resolve() in new.resolve().parents:
        raise ArgumentError(f"'into' should be outside of {old}, got {new}.")
    run, flow = StoredRun(old), load(old)
    rows = run.points(flow)[0]
    data = run.data if isinstance(run.data, TableData) and run.data.in_file is None else None
    before, points = _health(old, show)
    flow, done, trains = _applied(flow, before, rows, fixes, data=data, show=show)
    if not done:
        return FixedRun(None, (), before, None, points, _hint(data))
    if trains and data is not None:
        flow = _trained_further(flow, data, old, new, done, epochs, progress)
    else:
        if os.path.lexists(new):
            raise ArgumentError(
                f"'into' should be a new folder, {new} holds an unfinished training."
            )
        with atomic_directory(new) as temporary:
            write_derived_run(flow.eval(), run, temporary, f"from {old}: {'; '.join(done)}")
    result = FixedRun(new, tuple(done), before, _health(new, show)[0], points, _hint(data))
    write_bytes(new / FIXED, (json.dumps(to_plain(result), indent=2) + "\n").encode())
    return result


def _is_unfinished_training(folder: Path) -> bool:
    if not (folder / CONFIG).is_file() or read_config(folder / CONFIG).run is None:
        return False
    return not (folder / RESULT).is_file() or EVALUATED not in read_result(folder)


def _health(folder: Path, show: ShowStep) -> tuple[Health, str]:
    """Returns the diagnosis and the likelihood of a run, and a description of the points."""
    diagnosis, points = diagnose_run(folder, progress=show)
    try:
        result = read_finished(folder)
    except KappaflowError:  # a saved model, or a run of kappaflow.fit
        return Health(**vars(diagnosis)), points
    return Health(**vars(diagnosis), nll=result.test.nll, likelihood=result.likelihood), points


def _applied(
    flow: Flow,
    health: Diagnosis,
    rows: Batch | None,
    names: Sequence[str],
    *,
    data: TableData | None,
    show: ShowStep,
) -> tuple[Flow, list[str], bool]:
    """Returns a flow after fixes, one clause for each, and whether it has to be trained."""
    done, trains = [], False
    for name, fix in FIXES.items():
        if name not in names and (names or not fix.applies_to(health)):
            continue
        if fix.trains and data is None:
            if not names:
                continue
            raise ArgumentError(
                f"'fix' should not be {name!r} here: this fix trains the flow, and needs a run on "
                "a table in memory whose original data still exists."
            )
        fixed = fix.apply(flow)
        if fixed is None:
            continue
        show(fixed.note)
        flow, trains = fixed.flow, trains or fix.trains
        done.append(f"{name}: {fixed.note}")
        if not names:
            points = (None, None) if rows is None else (rows.x, rows.context)
            health = diagnose_flow(flow, *points, progress=show)
    return flow, done, trains


def _trained_further(
    flow: Flow,
    rows: TableData,
    old: Path,
    new: Path,
    done: list[str],
    epochs: int,
    progress: bool | None,
) -> Flow:
    """Returns a flow trained further on the rows of the run `old`, and writes the run `new`."""
    settings = checked_settings(**(read_config(old / CONFIG).run or {})["training"])
    settings = settings.model_copy(
        update={"max_epochs": epochs, "learning_rate": SLOWER * settings.learning_rate}
    )
    fixed = {"from": str(old), "by": [*done]}
    result = fit_split(
        flow,
        rows.trained_on,
        rows.validation,
        settings,
        out=new,
        progress=progress,
        about={"source": asdict(rows.config), **rows.to_store, "fixed": fixed},
    )
    done.append(f"trained for {len(result.history)} more epochs")
    about = about_derived(read_report(old).about, result.flow, "; ".join(done))
    about = about.model_copy(update={"training": training_facts(result, settings)})
    value = evaluate(result, rows, about, rows.notes, settings.condition_budget)
    write_evaluation(value, result.flow, rows, new)
    return result.flow


def _hint(data: TableData | None) -> str:
    """Returns which column nearly follows from the others, and how to train without that."""
    if data is None or len(data.train.columns) < 2 or data.train.context is not None:
        return ""
    try:
        relation, left = nearest_relation(data.train.values)
    except KappaflowError:
        return ""
    if left >= JITTER / 2:
        return ""
    columns, name = data.train.columns, data.train.columns[relation.column]
    return (
        f"column {name!r} nearly follows from others, {relation.text(columns)}, up to {left:.1e} "
        f"of its spread: fit again with --exclude {name}, or with --jitter {name}"
    )
