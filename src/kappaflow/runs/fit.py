"""`fit_run`: from data to a run folder with a trained flow, its result and its report."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from kappaflow.conditioning import layers_of
from kappaflow.errors import ArgumentError
from kappaflow.locking import locked
from kappaflow.options import COMMAND
from kappaflow.report.content import About
from kappaflow.report.numbers import plain_text
from kappaflow.report.result import Result
from kappaflow.runs.candidate import ModelSearch
from kappaflow.runs.evaluate import evaluate, write_evaluation
from kappaflow.runs.kinds import DataConfig, RunData
from kappaflow.runs.race import ModelChoice
from kappaflow.runs.recipes import ModelConfig
from kappaflow.runs.stored import EVALUATED, read_finished
from kappaflow.runs.written import versions
from kappaflow.training import (
    Callback,
    FitResult,
    Settings,
    checked_settings,
    fit_split,
    read_result,
    write_result,
)
from kappaflow.training.collectives import from_rank_zero
from kappaflow.training.session import TrainingState, history_facts

EVALUATING = "measuring the flow and writing its report"


@dataclass(frozen=True)
class RunSummary:
    """The outcome of a run, and whether it was finished before this call."""

    folder: Path
    result: Result
    notes: tuple[str, ...]
    was_finished: bool


def fit_run(
    source: DataConfig,
    model: ModelConfig | ModelSearch,
    out: str | Path,
    *,
    device: str | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> RunSummary:
    """Trains a flow and writes a run folder: model, metrics, result, diagnosis and report.

    An interrupted run is resumed, and a finished one is not trained again. `model` is a recipe;
    for a table also a search, whose choice is stored in the folder. `say` receives notes on the
    data before training starts. `**settings` are fields of `kappaflow.training.Settings`; for
    images the defaults are 60 epochs, 64 images a step and a learning rate of 2e-3.

    Returns:
        The summary.

    Raises:
        ArgumentError: An argument is wrong, or `out` was made with other data or arguments.
        DataError: The data has no density that a flow could fit, or images have different sizes.
        FileError: A file cannot be read.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"'out' should be a folder, {folder} is a file.")
    checked = checked_settings(**{**source.training_defaults, **settings})
    rate = settings.get("learning_rate")
    with locked(folder), source.opened(folder, device, progress) as data:
        options = {"folder": folder, "device": device, "progress": progress}
        model, choice, start = _chosen(model, data, checked, rate, **options)
        if choice is not None:
            checked = choice.settings(checked)
            data = replace(data, notes=(*data.notes, str(choice)))
        data = replace(data, notes=data.notes + data.model_notes(model, checked.condition_budget))
        for note in data.notes:
            say(note)
        flow = data.build_flow(model, checked.seed)
        stored = {} if choice is None else {"model_search": choice.model_dump(mode="json")}
        result = fit_split(
            flow,
            data.trained_on,
            data.validation,
            checked,
            out=folder,
            device=device,
            progress=progress,
            about={"source": asdict(source), **stored, **data.to_store},
            callbacks=[*data.callbacks(folder, checked), *callbacks],
            start=start,
        )

        def evaluated() -> tuple[Result, bool]:
            stored = {"command": COMMAND.get(), **read_result(folder)}
            done = EVALUATED in stored
            if not done:
                say(EVALUATING)
                write_result(folder, stored)
                about = _about(result, model, data, checked, choice)
                about = about.model_copy(update={"command": str(stored["command"])})
                value = evaluate(
                    result, cast("Any", data), about, data.notes, checked.condition_budget
                )
                write_evaluation(value, result.flow, cast("Any", data), folder)
            return read_finished(folder), done

        value, done = from_rank_zero(evaluated)
        return RunSummary(folder, value, data.notes, done)


def _chosen(
    model: ModelConfig | ModelSearch,
    data: RunData,
    settings: Settings,
    learning_rate: float | None,
    **options: Any,
) -> tuple[ModelConfig, ModelChoice | None, TrainingState | None]:
    """Returns a model; of a search its choice, and the state of the winner."""
    if isinstance(model, ModelConfig):
        return model, None, None
    search = replace(model, learning_rate=learning_rate or model.learning_rate)
    choice, start = data.search(search, settings, **options)
    return choice.model, choice, start


def _about(
    result: FitResult,
    model: ModelConfig,
    data: RunData,
    settings: Settings,
    choice: ModelChoice | None,
) -> About:
    """Returns the facts of a report about the data, the model and the training."""
    batch_size = settings.rows_a_step(len(data.trained_on))
    settings = settings.model_copy(update={"batch_size": batch_size})
    model_facts = {
        "recipe": model.recipe,
        **data.model_facts(model),
        "layers": len(layers_of(result.flow.core)),
        "parameters": f"{sum(p.numel() for p in result.flow.parameters()):,}",
    }
    return About(
        title=f"{model.recipe} on {data.config.data}",
        data=data.facts(),
        model=[(name.replace("_", " "), plain_text(value)) for name, value in model_facts.items()],
        training=[*training_facts(result, settings), ("versions", versions())],
        trials=[] if choice is None else choice.rows(),
        finished_at=result.finished_at,
        fingerprint=data.fingerprint,
    )


def training_facts(result: FitResult, settings: Settings) -> list[tuple[str, str]]:
    """Returns the facts of a report about the training."""
    return [
        *history_facts(result),
        *(
            (name.replace("_", " ").replace(" time s", " time (s)"), plain_text(value))
            for name, value in settings.model_dump().items()
            if value is not None
        ),
    ]
