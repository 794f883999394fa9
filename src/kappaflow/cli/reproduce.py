"""`kappaflow reproduce`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from kappaflow.cli.printable import tell
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
    config: Path | None = None,
    processes: Whole | None = None,
    list: Annotated[bool, Flag] = False,
    quiet: Annotated[bool, Flag] = False,
    json: Annotated[bool, Flag] = False,
) -> None:
    """Repeat an experiment: measure it, and write its raw results, its charts and one page.

    "all" runs each in turn and writes one page over them: the source, claim by claim. What was
    interrupted goes on where it stopped when the same command is given again.

    Parameters
    ----------
    experiment
        Its name, or all; --list says which there are.
    preset
        minutes to see it, full for the figures of the documentation.
    out
        The folder of the results and of the page; runs/NAME if left out.
    seed
        Decides all that is random.
    config
        A file of settings instead of a preset: TOML, or an edited config.json of a folder.
    processes
        How many cases at once, each on one thread; one for each core if left out.
    list
        List the experiments.
    quiet
        Show no progress and no notes.
    json
        Print the numbers as JSON.
    """
    from kappaflow_studies import EXPERIMENTS, experiment_named, reproduce_all

    if list and json:
        print_json([{"name": one.name, "about": one.about} for one in EXPERIMENTS.values()])
        return
    if list:
        table((one.name, one.about) for one in EXPERIMENTS.values())
        return
    names = ", ".join(EXPERIMENTS)
    if experiment is None:
        raise ArgumentError(f"'experiment' should be one of {names} or all.")
    arguments: dict[str, Any] = {
        "preset": preset,
        "seed": seed,
        "processes": processes,
        "progress": False if quiet else None,
        "say": (lambda text: None) if quiet else say,
    }
    place = Path("runs") / experiment if out is None else out
    if experiment == "all":
        if config is not None:
            raise ArgumentError("'config' should be left out: it is for one experiment.")
        page, done = reproduce_all(EXPERIMENTS, place, **arguments)
        if json:
            print_json({name: one.report.model_dump(mode="json") for name, one in done.items()})
            return
        for name, one in done.items():
            tell("\n".join([f"{name}:", *one.found, ""]))
    else:
        one = experiment_named(experiment).run(place, config=config, **arguments)
        if json:
            tell(one.report.model_dump_json(indent=2))
            return
        tell("\n".join([*one.found, ""]))
        page = one.page
    tell(f"The page is {page}")
