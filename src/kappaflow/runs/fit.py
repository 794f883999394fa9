"""`fit_run`: from a data file to a run folder with a trained flow, its result and its report."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import kappaflow
from kappaflow.conditioning import layers_of
from kappaflow.data import Table
from kappaflow.data.domains import Domains
from kappaflow.errors import ArgumentError
from kappaflow.locking import locked
from kappaflow.report import About, write_report
from kappaflow.runs.evaluate import evaluate
from kappaflow.runs.job import Source, Tables, tables_for
from kappaflow.runs.judged import judged
from kappaflow.runs.model_search import ModelSearch, search_model
from kappaflow.runs.recipes import COUPLINGS, Model, build_flow, is_one_feature, with_bounds
from kappaflow.runs.stored import Result, read_finished
from kappaflow.storage import write_bytes
from kappaflow.training import (
    Callback,
    FitResult,
    Settings,
    checked_settings,
    correlation_note,
    fit_tables,
    read_result,
    write_result,
)
from kappaflow.training.collectives import from_rank_zero

DIAGNOSIS = "diagnosis.json"
HANDLED = {"keep": "kept", "drop": "dropped", "weigh": "counted by weights"}


@dataclass(frozen=True)
class RunSummary:
    """What a run came to, and whether it was finished before it was asked for."""

    folder: Path
    result: Result
    notes: tuple[str, ...]
    was_finished: bool


def fit_run(
    source: Source,
    model: Model | ModelSearch,
    out: str | Path,
    *,
    device: str | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,  # noqa: ANN401
) -> RunSummary:
    """Trains a flow on a table and writes a run folder: model, metrics, result, diagnosis, report.

    Args:
        source: Where the rows come from.
        model: The recipe, or a search that chooses one; its choice is stored in the folder.
        out: The run folder; an interrupted run goes on, a finished one is not repeated.
        device: Where to train, "cpu" (if left out) or "cuda".
        progress: Show a progress bar; on a terminal only if left out.
        say: Is told what there is to know about the data, before training starts.
        callbacks: Are told of each epoch.
        **settings: Fields of `kappaflow.training.Settings`.

    Returns:
        The summary.

    Raises:
        ArgumentError: An argument is wrong, or `out` was made with other data or arguments.
        DataError: The data has no density that a flow could fit.
    """  # noqa: DOC502 - raised by the calls below
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"'out' should be a folder, {folder} is a file.")
    checked = checked_settings(**settings)
    choice, start, about = None, None, {"source": asdict(source)}
    with locked(folder), tables_for(source, folder, device, progress) as tables:
        if isinstance(model, ModelSearch):
            choice, start = search_model(
                _raced(tables),
                tables.validation,
                replace(model, learning_rate=settings.get("learning_rate", model.learning_rate)),
                checked,
                folder=folder,
                domains=tables.domains,
                device=device,
                progress=progress,
            )
            model, about["model_search"] = choice.model, choice.model_dump(mode="json")
            checked = choice.settings(checked)
            tables = replace(tables, notes=(*tables.notes, str(choice)))
        tables = _with_note(model, tables, checked.condition_budget)
        tables = replace(tables, notes=(*tables.notes, *_of_circles(model, tables.domains)))
        if tables.widths:
            about["widths"] = tables.widths
        for note in tables.notes:
            say(note)
        model = with_bounds(model, tables.domains, tables.train)
        flow = build_flow(model, tables.train, checked.seed)
        result = fit_tables(
            flow,
            tables.trained_on,
            tables.validation,
            checked,
            out=folder,
            device=device,
            progress=progress,
            about=about,
            callbacks=callbacks,
            start=start,
        )
        result.flow.cpu()  # where rows are measured, wherever it was trained

        def judgement() -> tuple[Result, bool]:
            done = "test_nll" in read_result(folder)
            if not done:
                about = _about(result, source, model, tables, checked)
                if choice is not None:
                    about = about.model_copy(update={"trials": choice.rows()})
                write_judgement(result, tables, about, checked.condition_budget, folder)
            return read_finished(folder), done

        found, done = from_rank_zero(judgement)
        return RunSummary(folder, found, tables.notes, done)


def write_judgement(
    result: FitResult, tables: Tables, about: About, budget: float | None, folder: Path
) -> None:
    """Writes what held-out rows say of a trained flow to its folder: diagnosis, report, result.

    Args:
        result: What training came to.
        tables: The rows of the run.
        about: What was trained on what.
        budget: The condition number that was asked for, if one was.
        folder: The run folder, which is finished then.
    """
    report, diagnosis = evaluate(result, tables, about, budget)
    stored = read_result(folder) | judged(result, report, tables)
    write_bytes(folder / DIAGNOSIS, diagnosis.to_json().encode())
    write_report(report, folder)
    write_result(folder, stored)


def _raced(tables: Tables) -> Table:
    """Returns the rows that a model search trains on: those of the run, or a sample of a file."""
    rows = tables.trained_on
    return rows if isinstance(rows, Table) else tables.train


def _with_note(model: Model, tables: Tables, budget: float | None) -> Tables:
    """Returns the tables, with what is to be said where a coupling, or a budget, can do little."""
    said = None if budget is None else correlation_note(tables.train, budget)
    if said is not None:
        return replace(tables, notes=(*tables.notes, said))
    couples = model.recipe in COUPLINGS and is_one_feature(model, tables.train)
    couples = couples and "gaussianize" not in model.arguments.get("start", "identity")
    if not couples or tables.train.context_columns:
        return tables
    said = "one column leaves a coupling nothing to read: the flow is a Gaussian"
    return replace(tables, notes=(*tables.notes, said))


def _of_circles(model: Model, domains: Domains) -> tuple[str, ...]:
    """Returns what is to be said of circles that a recipe does not keep."""
    names = [repr(name) for name, domain in domains.items() if domain.circular]
    if not names or model.recipe == "spline":
        return ()
    return (
        f"{model.recipe} cuts the circle of {' and '.join(names)} where the training rows are "
        "rarest, and its density has a seam there: spline has none",
    )


def _about(
    result: FitResult,
    source: Source,
    model: Model,
    tables: Tables,
    settings: Settings,
) -> About:
    flow = result.flow
    parts = (tables.trained_on, tables.validation, tables.test)
    repeats = f"{tables.repeats:,}, {HANDLED[source.duplicates]}" if tables.repeats else "none"
    data = [
        ("source", source.data),
        ("rows read", f"{tables.loaded:,}"),
        ("rows that repeat earlier ones", repeats),
        ("rows to train / validate / test", " / ".join(f"{len(part):,}" for part in parts)),
        ("columns", ", ".join(tables.train.columns)),
        ("columns left out", ", ".join(tables.train.left_out) or "none"),
    ]
    if source.where:
        data.insert(1, ("rows where", ", ".join(source.where)))
    if tables.domains:
        said = (f"{name} {domain.in_words}" for name, domain in tables.domains.items())
        data.append(("domains", "; ".join(said)))
    if tables.train.context_columns:
        data.append(("given", ", ".join(tables.train.context_columns)))
    described = {"recipe": model.recipe, **model.arguments}
    described.pop("bounds", None)  # said of the data, by name
    described["layers"] = len(layers_of(flow.core))
    described["parameters"] = f"{sum(p.numel() for p in flow.parameters()):,}"
    batch_size = settings.rows_a_step(len(tables.trained_on))
    trained = [
        *training_facts(result, settings.model_copy(update={"batch_size": batch_size})),
        ("versions", f"kappaflow {kappaflow.__version__}, torch {torch.__version__}"),
    ]
    return About(
        title=f"{model.recipe} on {source.data}",
        data=data,
        model=[(name.replace("_", " "), str(value)) for name, value in described.items()],
        training=trained,
        notes=list(tables.notes),
    )


def training_facts(result: FitResult, settings: Settings) -> list[tuple[str, str]]:
    """Returns what a report says of the training."""
    last = result.history[-1]
    return [
        ("epochs", f"{last['epoch']} (best: {result.best_epoch})"),
        ("stopped because of", result.stopped_because),
        ("time", f"{last['time_s']:.0f} s"),
        ("peak memory of the process", f"{last['memory_bytes'] / 2**20:.0f} MiB"),
        ("steps skipped", str(last["skipped_steps"])),
        *(
            (name.replace("_", " "), str(value))
            for name, value in settings.model_dump().items()
            if value is not None
        ),
    ]
