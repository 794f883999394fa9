"""`kappaflow fit` on a table."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kappaflow.cli.show import measured_rows, number, say, table
from kappaflow.cli.table_options import DEFAULTS, LEARNING_RATE, TableOptions

if TYPE_CHECKING:
    from kappaflow.runs import RunSummary


def fit_table(
    data: str,
    model: str,
    recipe: dict[str, Any],
    options: TableOptions,
    *,
    out: Path,
    seed: int,
    settings: dict[str, Any],
    progress: bool | None,
    say: Callable[[str], None],
    json: bool,
) -> None:
    """Fits a flow to a table and prints what it came to."""
    from kappaflow.runs import Model, Source, fit_run

    names = ("partition", "start", "residual", "dropout")
    asked = {**recipe, **{name: getattr(options, name) for name in names}}
    given = {name: value for name, value in asked.items() if value is not None}
    summary = fit_run(
        Source(
            data,
            columns=options.columns,
            exclude=options.exclude or [],
            context=options.context or [],
            where=options.where or [],
            against=options.against,
            repair=options.repair,
            split_seed=seed,
        ),
        Model(model, {**DEFAULTS, **given}),
        out,
        progress=progress,
        say=say,
        seed=seed,
        **{"learning_rate": LEARNING_RATE, **settings},
    )
    if json:
        print(summary.result.model_dump_json(indent=2, exclude={"train_log_prob_quantiles"}))
    else:
        _print_summary(summary, options.against)


def _print_summary(summary: "RunSummary", against: str | None) -> None:
    """Prints what a run came to, for people."""
    result, out = summary.result, summary.folder
    if summary.was_finished:
        say(f"{out} was finished already; this is its stored result")
    error = f" +- {number(result.test_nll_standard_error, '.3f')} nats"
    rows = [
        (
            "held-out NLL, standardised columns",
            number(result.test_nll_standardised, ".3f") + error,
        ),
        *(
            (f"  {name}", f"{number(value, '.3f')} nats")
            for name, value in result.test_nll_standardised_by_part.items()
        ),
        ("  of a Gaussian", f"{number(result.gaussian_nll_standardised, '.3f')} nats"),
        ("held-out NLL, units of the data", f"{number(result.test_nll, '.3f')} nats"),
        *measured_rows(result),
    ]
    if against is not None:
        auc = f"{number(result.auc, '.4f')} +- {number(result.auc_standard_error, '.4f')}"
        rows.append((f"AUC against {against}", auc))
    table(rows)
    print(f"\n{result.verdict}\n\nThe report is {out / 'report.html'}")
