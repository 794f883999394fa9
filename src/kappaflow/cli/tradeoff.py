"""The command `kappaflow tradeoff`: trains flows under condition budgets and plots the cost."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.fit_options import COMMON, OUTPUT, TRAINING, ReadTable, given, without_none
from kappaflow.cli.parameters import Data, Integer, Integers, Json, Quiet
from kappaflow.cli.show import print_columns, print_note, print_text
from kappaflow.errors import ArgumentError

Numbers = Annotated[list[float], Parameter(consume_multiple=True, group=COMMON)]


def tradeoff(
    data: Data,
    /,
    *,
    out: Annotated[Path, Parameter(group=COMMON)],
    budgets: Numbers = (10.0, 100.0, 1000.0, 10000.0),  # pyright: ignore[reportArgumentType]
    couplings: Annotated[Integer | None, Parameter(group=TRAINING)] = None,
    hidden: Annotated[Integers | None, Parameter(group=TRAINING)] = None,
    max_epochs: Annotated[Integer, Parameter(group=TRAINING)] = 60,
    max_time_s: Annotated[float | None, Parameter(group=TRAINING)] = None,
    seed: Annotated[Integer, Parameter(group=TRAINING)] = 0,
    processes: Annotated[Integer, Parameter(group=TRAINING)] = 1,
    rows: Annotated[ReadTable | None, Parameter(name="*", group=COMMON)] = None,  # pyright: ignore[reportInvalidTypeForm]
    quiet: Annotated[Quiet, Parameter(group=OUTPUT)] = False,
    json: Annotated[Json, Parameter(group=OUTPUT)] = False,
) -> None:
    """Show how much likelihood it costs to bound the condition number of flows of a table.

    For example:

    kappaflow tradeoff events.csv --out runs/tradeoff

    kappaflow tradeoff magic --out runs/tradeoff

    Trains one flow for each condition budget and one without a budget, all from the same seed, and
    writes a page with the curve. If it is interrupted, run the same command again: it resumes, and
    finished trainings are not repeated.

    Parameters
    ----------
    data
        A table in a file, as for kappaflow fit, or the name of a set of tables.
    out
        The folder for the runs and the page.
    budgets
        Limits for the 95 % quantile of the condition number on held-out rows, such as:
        --budgets 10 100 1000
    couplings
        Number of couplings of each flow (16).
    hidden
        Widths of the hidden layers of the conditioners (128 128).
    max_epochs
        Maximum number of passes over the training rows.
    max_time_s
        Time limit of each training in seconds.
    seed
        Seed of the initial weights, the order of rows and the split; the same for all flows.
    processes
        Number of trainings to run in parallel, each on one thread.
    """
    from kappaflow.data.dataset import kind_of
    from kappaflow.extensions import load_by_name
    from kappaflow.runs import ModelConfig, TableConfig
    from kappaflow.runs.recipes import with_defaults
    from kappaflow.training.settings import LEARNING_RATE

    if kind_of(data) is not None:
        raise ArgumentError(
            f"'data' should be a table, {data} holds images: condition numbers of so many "
            "dimensions take longer to measure than the training does."
        )
    arguments = {"depth": couplings, "hidden": None if hidden is None else tuple(hidden)}
    report = load_by_name("trade_off")(
        TableConfig(data, split_seed=seed, **given(rows or ReadTable())),
        with_defaults(ModelConfig("real_nvp", without_none(arguments))),
        list(budgets),
        out,
        processes=processes,
        progress=False if quiet else None,
        say=(lambda text: None) if quiet else print_note,
        seed=seed,
        learning_rate=LEARNING_RATE,
        **without_none({"max_epochs": max_epochs, "max_time_s": max_time_s}),
    )
    if json:
        print_text(report.model_dump_json(indent=2))
        return
    print_columns(report.rows())
    print_text("\n".join(["", *report.describe(), "", f"The page is {out / 'index.html'}"]))
