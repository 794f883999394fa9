"""What a condition number costs: a flow trained for each budget, and one without."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from kappaflow._checks import positive_int
from kappaflow.errors import ArgumentError, KappaflowError, NumericalError
from kappaflow.files import CONFIG, load
from kappaflow.runs.fit import fit_run
from kappaflow.runs.recipes import ModelConfig, all_arguments
from kappaflow.runs.stored import read_finished
from kappaflow.runs.table_data import TableConfig, TableData
from kappaflow.storage import is_unfinished
from kappaflow.training import batch_of, checked_settings, condition_at_test_rows, log_prob_of
from kappaflow.training.measure import standard_error
from kappaflow_studies.condition_budget.page import (
    Budgeted,
    TradeOff,
    render_trade_off,
    trade_off_chart,
)
from kappaflow_studies.engine.folder import as_text, checked_folder, write_results
from kappaflow_studies.engine.pool import Case, Row, measured

SOURCE_OPTIONS = (
    "columns", "exclude", "context", "where", "bounds", "repair", "decimal", "missing",
)  # fmt: skip


def trade_off(
    source: TableConfig,
    model: ModelConfig,
    budgets: Sequence[float],
    out: str | Path,
    *,
    processes: int = 1,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
    **settings: Any,
) -> TradeOff:
    """Returns what budgets cost, after training the missing flows and writing the page."""
    requested = _checked(budgets, settings)
    workers = positive_int("processes", processes)
    if source.data == "-":
        raise ArgumentError(
            "'data' should be a file or the name of a set, not standard input: it is read once "
            "for each budget."
        )
    folder = _folder(checked_folder(out))
    tables = source.load()
    for note in tables.notes:
        say(note)
    order: list[float | None] = [None, *requested]  # all others are compared with the first
    cases = [
        {
            "budget": budget,
            "folder": str(folder / _name(budget)),
            "source": asdict(source),
            "model": asdict(model),
            "settings": settings,
            "progress": progress if workers == 1 else False,
        }
        for budget in order
    ]
    failed = _trained(cases, workers, say)
    flows = _compared(order, folder, tables, failed)
    report = TradeOff(
        data=source.data,
        model=_describe_model(source, model, settings, tables),
        flows=[*flows[1:], flows[0]],
        notes=list(tables.notes),
    )
    charts = [trade_off_chart(report)]
    write_results(folder, report, render_trade_off(report), charts, say, indent=2)
    return report


def train_one(case: Case) -> list[Row]:
    """Returns a row for a case after training its flow, with the error if the training failed."""
    settings = dict(case["settings"])
    if case["budget"] is not None:
        settings["condition_budget"] = case["budget"]
    try:
        fit_run(
            TableConfig(**case["source"]),
            ModelConfig(**case["model"]),
            case["folder"],
            progress=case["progress"],
            **settings,
        )
    except NumericalError as error:
        return [{"failed": str(error)}]
    except KappaflowError as error:
        return [{"refused": str(error), "kind": type(error)}]
    return [{}]


def _trained(
    cases: Sequence[Case], processes: int, say: Callable[[str], None]
) -> dict[float | None, str]:
    """Returns the errors of failed trainings by budget, after training all flows."""
    failed: dict[float | None, str] = {}
    for number, (case, rows, _) in enumerate(
        measured(train_one, cases, processes=processes), start=1
    ):
        budget, row = case["budget"], rows[0]
        if "refused" in row:
            raise row["kind"](row["refused"])
        if "failed" in row:
            failed[budget] = row["failed"]
        limit = "no budget" if budget is None else f"budget {budget:g}"
        say(f"{limit}: {'failed' if budget in failed else 'done'} ({number} of {len(cases)})")
    return failed


def _compared(
    budgets: Sequence[float | None],
    parent: Path,
    tables: TableData,
    failed: dict[float | None, str],
) -> list[Budgeted]:
    """Returns the numbers of each flow, the one without a budget first."""
    results: list[Budgeted] = []
    free: Tensor | None = None
    for budget in budgets:
        folder = parent / _name(budget)
        if budget in failed:
            results.append(Budgeted(budget=budget, folder=folder.name, failed=failed[budget]))
            continue
        result, flow = read_finished(folder), load(folder)
        test = batch_of(tables.test, flow)
        nll = -log_prob_of(flow, test)
        free = nll if budget is None else free
        more = None if free is None else nll - free
        median, p95, rows = condition_at_test_rows(flow, test)
        budgeted = Budgeted(
            budget=budget,
            folder=folder.name,
            condition_number_p95=p95,
            condition_number_median=median,
            rows=rows,
            epochs=result.epochs,
            time_s=result.time_s,
            nll=result.test.nll_standardized,
            standard_error=result.test.standard_error,
            cost=None if more is None else more.mean().item(),
            cost_error=None if more is None else standard_error(more),
        )
        results.append(budgeted)
    return results


def _checked(budgets: Sequence[float], settings: dict[str, Any]) -> list[float]:
    """Returns the budgets, ascending, each once."""
    if not budgets:
        raise ArgumentError("'budgets' should be at least one condition number, got none.")
    if "condition_budget" in settings:
        raise ArgumentError("'condition_budget' should be left out: 'budgets' has them.")
    for budget in budgets:
        try:
            checked_settings(condition_budget=budget)
        except ArgumentError as error:
            raise ArgumentError(str(error).replace("condition_budget", "budgets")) from None
    checked_settings(**settings)
    return sorted(set(map(float, budgets)))


def _folder(folder: Path) -> Path:
    """Returns the folder; it is new, or one of a trade-off."""
    if (folder / CONFIG).exists():
        raise ArgumentError(f"'out' should be a new folder, {folder} is one of a run.")
    entries = list(folder.iterdir()) if folder.exists() else []
    if not all(map(is_unfinished, entries)) and not any(folder.glob(f"budget-*/{CONFIG}")):
        raise ArgumentError(
            f"'out' should be a new folder or one of a trade-off, {folder} holds other files."
        )
    return folder


def _name(budget: float | None) -> str:
    """Returns the name of the folder of a budget."""
    return "budget-" + ("none" if budget is None else repr(budget).removesuffix(".0"))


def _describe_model(
    source: TableConfig, model: ModelConfig, settings: dict[str, Any], tables: TableData
) -> list[tuple[str, str]]:
    chosen = {name: getattr(source, name) for name in SOURCE_OPTIONS if getattr(source, name)}
    described = {"recipe": model.recipe, **all_arguments(model), **settings, **chosen}
    described["rows to train / validate / test"] = " / ".join(
        f"{len(part):,}" for part in (tables.train, tables.validation, tables.test)
    )
    return [(name.replace("_", " "), as_text(value)) for name, value in described.items()]
