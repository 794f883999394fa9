"""`kappaflow fit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from kappaflow.cli.show import number, numbers, say, table
from kappaflow.cli.whole import Whole, Wholes

if TYPE_CHECKING:
    from kappaflow.runs import RunSummary


def fit(
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Path,
    model: Literal["real_nvp", "nice"] = "real_nvp",
    depth: Whole = 16,
    hidden: Wholes = (128, 128),
    partition: Literal["half", "alternating", "random", "random-half"] = "random-half",
    residual: Annotated[bool, Parameter(negative=())] = False,
    dropout: float = 0.1,
    scale_bound: float | None = None,
    memory: Literal["recompute", "store", "invert"] = "recompute",
    columns: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    exclude: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    context: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    where: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    against: str | None = None,
    repair: Literal["drop", "jitter"] | None = None,
    max_epochs: Whole = 60,
    max_time_s: float | None = None,
    batch_size: Whole | None = None,
    learning_rate: float = 5e-3,
    patience: Whole | None = None,
    precision: Literal["full", "bf16"] | None = None,
    seed: Whole = 0,
    quiet: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a flow on a table and write a run folder with the model, its figures and a report.

    The rows are split into 80 % to train on, 10 % to stop by and 10 % to judge by; duplicate rows
    are dropped first. Columns of text are left out. A run that was interrupted goes on where it
    stopped when the same command is given again.

    Parameters
    ----------
    data
        A csv, tsv, parquet, arrow, npy or npz file, - for csv on standard input, or the name of a
        data set that comes along (see kappaflow data).
    out
        The run folder.
    model
        real_nvp (affine couplings) or nice (additive couplings).
    depth
        Number of couplings.
    hidden
        Widths of the hidden layers of the conditioners, such as: --hidden 128 128
    partition
        What each coupling keeps: the first half, the even features, a random half for each
        (random), or a random half for every two, which take turns (random-half).
    residual
        Add each hidden layer to the next of equal width.
    dropout
        Share of the hidden units that a training step leaves out.
    scale_bound
        Bound on the sum over depth of the log-scales.
    memory
        What is kept for the backward pass: the half that each coupling reads (recompute),
        everything (store), or the points at every 32nd coupling, from which the others are found
        by inversion (invert).
    columns
        Columns to model; all columns of numbers if left out.
    exclude
        Columns to leave out, such as a target.
    context
        Columns that the density is conditioned on.
    where
        Train on the rows that meet a condition, such as: --where class=g
    against
        Score the rows that meet this condition too, and report how well log_prob tells them apart.
    repair
        Go on where the data has no density: drop the rows or columns concerned, or jitter the
        columns.
    max_epochs
        Most passes over the training rows.
    max_time_s
        Seconds after which training ends.
    batch_size
        Rows a step.
    learning_rate
        Highest learning rate.
    patience
        Epochs without improvement after which training ends.
    precision
        bf16 trains with the products of the conditioners in bfloat16; scores, samples and reports
        are in full precision all the same.
    seed
        Decides the initial weights, the order of rows and the split.
    quiet
        Show no progress and no notes.
    json
        Print the result as JSON.
    """
    from kappaflow.runs import Model, Source, fit_run

    recipe = {
        "depth": depth,
        "hidden": hidden,
        "partition": partition,
        "residual": residual,
        "dropout": dropout,
        "scale_bound": scale_bound,
        "memory": memory,
    }
    settings = {
        "max_epochs": max_epochs,
        "max_time_s": max_time_s,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "patience": patience,
        "precision": precision,
    }
    summary = fit_run(
        Source(
            data,
            columns=columns,
            exclude=exclude or [],
            context=context or [],
            where=where or [],
            against=against,
            repair=repair,
            split_seed=seed,
        ),
        Model(model, _given(recipe)),
        out,
        progress=False if quiet else None,
        say=(lambda text: None) if quiet else say,
        seed=seed,
        **_given(settings),
    )
    if json:
        print(summary.result.model_dump_json(indent=2, exclude={"train_log_prob_quantiles"}))
    else:
        _print_summary(summary, against)


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
        (
            "condition number, median and 95 %",
            numbers(result.condition_number_median, result.condition_number_p95, ".3g"),
        ),
        ("worst layer", result.worst_layer),
        (
            "round trip, data and latent",
            numbers(result.round_trip_data, result.round_trip_latent, ".1e"),
        ),
        *([("steps skipped", f"{result.skipped_steps:,}")] if result.skipped_steps else []),
        ("epochs", f"{result.epochs} in {result.time_s:.0f} s ({result.stopped_because})"),
    ]
    if against is not None:
        auc = f"{number(result.auc, '.4f')} +- {number(result.auc_standard_error, '.4f')}"
        rows.append((f"AUC against {against}", auc))
    table(rows)
    print(f"\n{result.verdict}\n\nThe report is {out / 'report.html'}")


def _given(arguments: dict[str, object]) -> dict[str, object]:
    """Returns the arguments that were given; the others keep the defaults of the library."""
    return {name: value for name, value in arguments.items() if value is not None}
