"""The command `kappaflow tradeoff`: trains flows under condition budgets and plots the cost."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from kappaflow.cli.fit_options import DEFAULTS, LEARNING_RATE, Names
from kappaflow.cli.show import columns, say, tell
from kappaflow.cli.whole import Whole, Wholes
from kappaflow.errors import ArgumentError

Flag = Parameter(negative=())
Numbers = Annotated[list[float], Parameter(consume_multiple=True)]


def tradeoff(
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Path,
    budgets: Numbers = (10.0, 100.0, 1000.0, 10000.0),  # pyright: ignore[reportArgumentType]
    couplings: Whole = 16,
    hidden: Wholes = (128, 128),
    max_epochs: Whole = 60,
    max_time_s: float | None = None,
    columns_: Annotated[Names, Parameter(name="--columns")] = None,
    exclude: Names = None,
    context: Names = None,
    where: Names = None,
    repair: Literal["drop", "jitter", "dequantize"] | None = None,
    decimal: Literal[".", ","] | None = None,
    missing: Names = None,
    seed: Whole = 0,
    processes: Whole = 1,
    quiet: Annotated[bool, Flag] = False,
    json: Annotated[bool, Flag] = False,
) -> None:
    """Show how much likelihood it costs to bound the condition number of flows of a table.

    For example:

    kappaflow tradeoff events.csv --out runs/tradeoff

    kappaflow tradeoff magic --out runs/tradeoff

    Trains one flow for each condition budget and one without a budget, all from the same seed, and
    writes a page with the curve. If it is interrupted, run the same command
    again: it resumes, and finished trainings are not repeated.

    Parameters
    ----------
    data
        A csv, tsv, parquet, arrow, npy or npz file, or the name of a set of tables.
    out
        The folder for the runs and the page.
    budgets
        Limits for the 95 % quantile of the condition number on held-out rows, such as:
        --budgets 10 100 1000
    couplings
        Number of couplings of each flow.
    hidden
        Widths of the hidden layers of the conditioners.
    max_epochs
        Largest number of passes over the training rows.
    max_time_s
        Time limit of each training in seconds.
    columns_
        Columns to model; by default all numeric columns.
    exclude
        Columns to leave out, such as a target.
    context
        Columns that the density is conditioned on.
    where
        Use only the rows that meet a condition, such as: --where class=g
    repair
        Repair data that has no density. "drop" removes the rows or columns concerned, "jitter"
        adds noise to the columns. "dequantize" adds uniform noise to rounded columns, exactly as
        wide as one step of their values.
    decimal
        Decimal sign of a text file, such as: --decimal ,
    missing
        Values that stand for a missing value, such as: --missing -999 n.a.
    seed
        Seed of the initial weights, the order of rows and the split; the same for all flows.
    processes
        Number of trainings to run in parallel, each on one thread.
    quiet
        Show no progress and no notes.
    json
        Print the numbers as JSON.
    """
    from kappaflow.data import is_images
    from kappaflow.report.tradeoff import found_in_words, trade_off_rows
    from kappaflow.runs import ModelConfig, TableConfig
    from kappaflow.runs.tradeoff import trade_off

    if is_images(data):
        raise ArgumentError(
            f"'data' should be a table, {data} holds images: condition numbers of so many "
            "dimensions take longer to measure than the training does."
        )
    settings: dict[str, Any] = {"max_epochs": max_epochs, "max_time_s": max_time_s}
    source = TableConfig(
        data,
        columns=columns_,
        exclude=exclude or [],
        context=context or [],
        where=where or [],
        repair=repair,
        split_seed=seed,
        decimal=decimal,
        missing=missing or [],
    )
    report = trade_off(
        source,
        ModelConfig("real_nvp", {**DEFAULTS, "depth": couplings, "hidden": tuple(hidden)}),
        list(budgets),
        out,
        processes=processes,
        progress=False if quiet else None,
        say=(lambda text: None) if quiet else say,
        seed=seed,
        learning_rate=LEARNING_RATE,
        **{name: value for name, value in settings.items() if value is not None},
    )
    if json:
        tell(report.model_dump_json(indent=2))
        return
    columns(trade_off_rows(report))
    tell("\n" + "\n".join(found_in_words(report)) + f"\n\nThe page is {out / 'index.html'}")
