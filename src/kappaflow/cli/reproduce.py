"""`kappaflow reproduce`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kappaflow.cli.show import print_json, say, table
from kappaflow.cli.whole import Whole
from kappaflow.errors import ArgumentError

Flag = Parameter(negative=())


def reproduce(
    experiment: str | None = None,
    /,
    *,
    preset: Literal["minutes", "full"] = "minutes",
    out: Path | None = None,
    seed: Whole = 0,
    list: Annotated[bool, Flag] = False,
    quiet: Annotated[bool, Flag] = False,
    json: Annotated[bool, Flag] = False,
) -> None:
    """Repeat an experiment: train its flows into run folders, and write one page about them.

    What was interrupted goes on where it stopped when the same command is given again.

    Parameters
    ----------
    experiment
        Its name; --list says which there are.
    preset
        minutes for a few of them on one core, full for a night.
    out
        The folder of the runs and of the page; runs/NAME if left out.
    seed
        Decides the initial weights, the order of the images and the split.
    list
        List the experiments.
    quiet
        Show no progress and no notes.
    json
        Print the numbers as JSON.
    """
    from kappaflow.experiments import EXPERIMENTS, experiment_named

    if list and json:
        print_json([{"name": one.name, "about": one.about} for one in EXPERIMENTS.values()])
        return
    if list:
        table((one.name, one.about) for one in EXPERIMENTS.values())
        return
    if experiment is None:
        raise ArgumentError(f"'experiment' should be one of {', '.join(EXPERIMENTS)}.")
    chosen = experiment_named(experiment)
    done = chosen.run(
        Path("runs") / chosen.name if out is None else out,
        preset=preset,
        seed=seed,
        progress=False if quiet else None,
        say=(lambda text: None) if quiet else say,
    )
    if json:
        print(done.report.model_dump_json(indent=2))
        return
    for sentence in done.found:
        print(sentence)
    print(f"\nThe page is {done.page}")
