"""`kappaflow fit` on a table."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kappaflow.cli.of_models import given_of
from kappaflow.cli.printable import tell
from kappaflow.cli.show import JOINT, measured_rows, number, say, table
from kappaflow.cli.table_options import (
    DEFAULT,
    DEFAULTS,
    LEARNING_RATE,
    OF_ANY,
    OF_MODELS,
    OF_SOURCE,
    OF_TRAINING,
    TableOptions,
)

if TYPE_CHECKING:
    from kappaflow.runs import Model, ModelSearch, RunSummary
    from kappaflow.runs.stored import Result

WHAT = {
    "exact": "held-out NLL",
    "bound": "bound on the held-out NLL",
    "joint": "joint NLL of rows and padding",
}


def fit_table(
    data: str,
    model: str | None,
    recipe: dict[str, Any],
    options: TableOptions,
    *,
    search_time: float,
    out: Path,
    device: str | None,
    seed: int,
    settings: dict[str, Any],
    progress: bool | None,
    say: Callable[[str], None],
    callbacks: list[Any],
    json: bool,
) -> None:
    """Fits a flow to a table and prints what it came to."""
    from kappaflow.runs import Model, Source, fit_run

    given = vars(options)
    settings |= {name: given[name] for name in OF_TRAINING if given[name] is not None}
    chosen = _model(model, recipe, options, search_time)
    if isinstance(chosen, Model):
        settings = {"learning_rate": LEARNING_RATE, **settings}
    summary = fit_run(
        Source(
            data,
            columns=options.columns,
            exclude=options.exclude or [],
            context=options.context or [],
            where=options.where or [],
            against=options.against,
            duplicates=options.duplicates or "keep",
            repair=options.repair,
            split_seed=seed,
            jitter=options.jitter,
            bounds=options.bounds,
            on_disk=options.on_disk,
            decimal=options.decimal,
            missing=options.missing or [],
        ),
        chosen,
        out,
        device=device,
        progress=progress,
        say=say,
        callbacks=callbacks,
        seed=seed,
        **settings,
    )
    if json:
        tell(summary.result.model_dump_json(indent=2, exclude={"train_log_prob_quantiles"}))
    else:
        _print_summary(summary, options.against)


def _model(
    model: str | None, recipe: dict[str, Any], options: TableOptions, search_time: float
) -> "Model | ModelSearch":
    """Returns the model, or a search where no option names anything of the model."""
    from kappaflow.runs import Model, ModelSearch

    search = ModelSearch(seconds=search_time)
    arguments = _arguments(model or DEFAULT, recipe, options)
    own = {**recipe, **_own(options)}
    said = [name for name, value in own.items() if value is not None and name not in OF_ANY]
    if model is not None or said:
        return Model(model or DEFAULT, arguments)
    return replace(search, arguments=given_of(DEFAULT, own, OF_MODELS))


def _own(options: TableOptions) -> dict[str, Any]:
    """Returns the options that are a model's."""
    others = (*OF_SOURCE, *OF_TRAINING)
    return {name: value for name, value in vars(options).items() if name not in others}


def _arguments(model: str, recipe: dict[str, Any], options: TableOptions) -> dict[str, Any]:
    """Returns the arguments of a recipe: those given, and what tables take for others."""
    given = given_of(model, {**recipe, **_own(options)}, OF_MODELS)
    if "partition" not in OF_MODELS[model]:
        return given
    if "tail_bound" in given:
        given["bound"] = given.pop("tail_bound")
    return {**DEFAULTS, **({"partition": "half"} if "mixing" in given else {}), **given}


def _print_summary(summary: "RunSummary", against: str | None) -> None:
    """Prints what a run came to, for people."""
    result, out = summary.result, summary.folder
    if summary.was_finished:
        say(f"{out} was finished already; this is its stored result")
    error = f" +- {number(result.test_nll_standard_error, '.3f')} nats"
    what = WHAT[result.likelihood]
    rows = [
        (f"{what}, standardised columns", number(result.test_nll_standardised, ".3f") + error),
        *_weighted_rows(result),
        *(
            (f"  {name}", f"{number(value, '.3f')} nats")
            for name, value in result.test_nll_standardised_by_part.items()
        ),
        *_reference_rows(result),
        (f"{what}, units of the data", f"{number(result.test_nll, '.3f')} nats"),
        *measured_rows(result),
    ]
    if against is not None:
        auc = f"{number(result.auc, '.4f')} +- {number(result.auc_standard_error, '.4f')}"
        rows.append((f"AUC against {against}", auc))
    table(rows)
    if result.likelihood == "joint":
        tell(f"\n{JOINT}")
    tell(f"\n{result.verdict}\n\nThe report is {out / 'report.html'}")


def _reference_rows(result: "Result") -> list[tuple[str, str]]:
    """Returns the likelihood of a Gaussian and of a mixture, and how the flow compares."""
    if result.likelihood == "joint":
        return []
    if not result.references:
        return [("  of a Gaussian", f"{number(result.gaussian_nll_standardised, '.3f')} nats")]
    rows = []
    for one in result.references:
        name = "of a linear-Gaussian regression" if one.conditional else "of a Gaussian"
        if one.kind != "Gaussian":
            count = f"{one.components} component{'s' if one.components > 1 else ''}"
            noise = "of one with noise of a" if one.conditional else "of a"
            name = f"{noise} Gaussian mixture ({count})"
        paired = f"{number(one.difference, '+.3f')} +- {number(one.standard_error, '.3f')}"
        value = f"{number(one.nll_standardised, '.3f')} nats (the flow: {paired})"
        rows.append((f"  {name}", value))
    return rows


def _weighted_rows(result: "Result") -> list[tuple[str, str]]:
    """Returns the likelihood by importance weights, where there is one."""
    if result.weighted_nll_standardised is None:
        return []
    error = number(result.weighted_monte_carlo_error, ".3f")
    value = f"{number(result.weighted_nll_standardised, '.3f')} nats, Monte Carlo error {error}"
    return [("  by importance weights", value)]
