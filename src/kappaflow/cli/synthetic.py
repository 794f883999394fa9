"""`kappaflow synthetic`."""

from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.parameters import Integer, Json, RunFolder
from kappaflow.cli.show import note_unfinished, print_columns, print_json, print_note, print_text


def synthetic(
    run: RunFolder,
    /,
    *,
    target: str | None = None,
    n: Annotated[Integer, Parameter(name=["-n", "--n"])] = 5_000,
    seed: Integer = 0,
    json: Json = False,
) -> None:
    """Tell whether samples of a run are copies of its rows, and whether they are useful.

    For example:

    kappaflow synthetic runs/magic

    kappaflow synthetic runs/magic --target fAlpha

    Samples should be no nearer to the training rows of the run than to its test rows. With a
    target, boosted trees learn it from samples and from training rows, and are tested on the test
    rows. The answers are also in synthetic.json in the run folder. The data of the run is read
    again.

    Parameters
    ----------
    target
        The column to predict from the others.
    n
        Number of samples; 5,000 of them are searched for copies at most.
    seed
        Random seed.
    """
    from kappaflow.runs import synthetic_run
    from kappaflow.summary import facts_of

    result = synthetic_run(run, target=target, n=n, seed=seed)
    note_unfinished(run)
    if json:
        print_json(result.to_json())
        return
    print_columns(facts_of(result.copies))
    print_text(f"\n{result.copies.verdict}")
    if result.usefulness is None:
        print_note("--target COLUMN also tests what a model learns from samples")
        return
    print_text()
    print_columns(facts_of(result.usefulness))
    print_text(f"\n{result.usefulness.verdict}")
