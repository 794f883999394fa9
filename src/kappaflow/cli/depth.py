"""`kappaflow depth`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kappaflow.cli.fit_options import COMMON, OUTPUT, TRAINING, ReadTable, given, without_none
from kappaflow.cli.parameters import Data, Integer, Integers, Json, Quiet
from kappaflow.cli.show import print_columns, print_note, print_text
from kappaflow.errors import ArgumentError

Names = Annotated[
    list[Literal["half", "random", "mixing"]],
    Parameter(consume_multiple=True, negative=(), group=COMMON),
]
Model = Literal["spline", "real_nvp", "glow"]


def depth(
    data: Data,
    /,
    *,
    out: Annotated[Path, Parameter(group=COMMON)],
    partitions: Names = ("half", "random", "mixing"),  # pyright: ignore[reportArgumentType]
    model: Annotated[Model | None, Parameter(group=TRAINING)] = None,
    hidden: Annotated[Integers | None, Parameter(group=TRAINING)] = None,
    max_depth: Annotated[Integer, Parameter(group=COMMON)] = 64,
    nats: Annotated[float | None, Parameter(group=COMMON)] = None,
    max_epochs: Annotated[Integer | None, Parameter(group=TRAINING)] = None,
    max_time_s: Annotated[float | None, Parameter(group=TRAINING)] = None,
    seed: Annotated[Integer, Parameter(group=TRAINING)] = 0,
    processes: Annotated[Integer, Parameter(group=TRAINING)] = 1,
    rows: Annotated[ReadTable | None, Parameter(name="*", group=COMMON)] = None,  # pyright: ignore[reportInvalidTypeForm]
    quiet: Annotated[Quiet, Parameter(group=OUTPUT)] = False,
    json: Annotated[Json, Parameter(group=OUTPUT)] = False,
) -> None:
    """Find out how deep a flow of data has to be, and what that costs in conditioning.

    For example:

    kappaflow depth magic --out runs/depth

    kappaflow depth digits --out runs/depth-digits --max-depth 16

    kappaflow depth events.csv --out runs/depth --partitions half random --processes 2

    For each partition flows of 2, 4, 8, ... couplings are trained, until twice the depth gains too
    little on held-out rows. For images it is steps of each level of a Glow. The page has the
    curves. If it is interrupted, run the same command again: it resumes, and finished trainings
    are not repeated.

    Parameters
    ----------
    data
        A table in a file, as for kappaflow fit, a folder of images, or the name of a data set.
    out
        The folder for the runs and the page.
    partitions
        half: couplings keep one half of the columns and change the other, in turn. random: a
        random order before each coupling. mixing: a learned linear map before each coupling.
        For images, of the channels.
    model
        spline, or real_nvp for affine couplings; for images glow. Default: spline or glow.
    hidden
        Widths of the hidden layers of the conditioners (64 64), or channels for images.
    max_depth
        The largest number of couplings, or of steps of each level.
    nats
        The least gain, in nats per row, for which twice the depth is worth its price. Default:
        0.01; for images 0.01 bits per dimension.
    max_epochs
        Maximum number of epochs at each depth. Default: a third of those of kappaflow fit.
    max_time_s
        Time limit of the training at each depth, in seconds.
    seed
        Seed of the initial weights, the order of rows and the split.
    processes
        Number of partitions to measure in parallel, each on one thread.
    """
    from kappaflow.data.dataset import kind_of
    from kappaflow.runs import TableConfig, depth_curve

    of_rows = given(rows or ReadTable())
    kind = kind_of(data)
    if kind is not None and of_rows:
        raise ArgumentError(f"'{next(iter(of_rows))}' should be left out for {kind.name}.")
    chosen = {"max_epochs": max_epochs, "max_time_s": max_time_s, "hidden": hidden}
    curve = depth_curve(
        TableConfig(data, split_seed=seed, **of_rows) if kind is None else data,
        model=model,
        partitions=partitions,
        max_depth=max_depth,
        nats=nats,
        out=out,
        processes=processes,
        progress=False if quiet else None,
        say=(lambda text: None) if quiet else print_note,
        seed=seed,
        **without_none(chosen),
    )
    if json:
        print_text(curve.to_json())
        return
    print_columns(curve.rows_of_table())
    print_text("\n".join(["", *curve.describe(), "", f"The page is {out / 'index.html'}"]))
