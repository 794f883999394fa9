"""`kappaflow reproduce`: runs the studies of `kappaflow_studies`, one or all."""

from pathlib import Path
from typing import Any, Literal

from kappaflow.cli.parameters import Flag, Integer, Json, Quiet
from kappaflow.cli.show import print_columns, print_json, print_note, print_text
from kappaflow.errors import ArgumentError


def reproduce(
    experiment: str | None = None,
    /,
    *,
    preset: Literal["minutes", "full"] = "minutes",
    out: Path | None = None,
    seed: Integer = 0,
    config: Path | None = None,
    processes: Integer | None = None,
    list: Flag = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Reproduce a claim of the source paper: measure it, and write raw results, charts and a page.

    For example:

    kappaflow reproduce linear-depth

    kappaflow reproduce all

    "all" runs every experiment and writes one page: the paper, claim by claim. To resume an
    interrupted experiment, run the same command again.

    Parameters
    ----------
    experiment
        Name of the experiment, or all; --list lists the names.
    preset
        minutes for a quick look, full for the figures of the documentation.
    out
        Folder for the results and the page; default runs/NAME.
    seed
        Random seed.
    config
        File of settings to use instead of a preset: TOML, or an edited config.json.
    processes
        Number of cases measured at the same time, each on one thread; default one per core.
    list
        List the experiments.
    """
    from kappaflow.extensions import load_by_name

    package = load_by_name("studies")
    studies = package.STUDIES
    if list and json:
        print_json([{"name": study.name, "about": study.about} for study in studies.values()])
        return
    if list:
        print_columns((study.name, study.about) for study in studies.values())
        return
    if experiment is None:
        raise ArgumentError(f"'experiment' should be one of {', '.join(studies)} or all.")
    arguments: dict[str, Any] = {
        "preset": preset,
        "seed": seed,
        "processes": processes,
        "progress": False if quiet else None,
        "say": (lambda text: None) if quiet else print_note,
    }
    folder = Path("runs") / experiment if out is None else out
    if experiment == "all":
        if config is not None:
            raise ArgumentError("'config' should be left out for all: it is of one experiment.")
        page, results = package.reproduce_all(studies, folder, **arguments)
        if json:
            reports = {name: result.report for name, result in results.items()}
            print_json({name: report.model_dump(mode="json") for name, report in reports.items()})
            return
        for name, result in results.items():
            print_text("\n".join([f"{name}:", *result.report.findings.found, ""]))
    else:
        result = package.run_study(
            package.study_named(experiment), folder, config=config, **arguments
        )
        if json:
            print_text(result.report.model_dump_json(indent=2))
            return
        print_text("\n".join([*result.report.findings.found, ""]))
        page = result.page
    print_text(f"The page is {page}")
