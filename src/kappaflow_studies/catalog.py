"""The studies by name, and the page of all studies."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from kappaflow.errors import ArgumentError
from kappaflow.report.numbers import format_time
from kappaflow.storage import make_directory, write_bytes
from kappaflow_studies.depth_conditioning import DEPTH_CONDITIONING
from kappaflow_studies.depth_factor import DEPTH_FACTOR
from kappaflow_studies.engine.folder import PAGE, checked_folder
from kappaflow_studies.engine.report import Reproduced, render_claims
from kappaflow_studies.engine.run import run_study
from kappaflow_studies.engine.study import Study
from kappaflow_studies.factor_tradeoff import FACTOR_TRADEOFF
from kappaflow_studies.linear_depth import LINEAR_DEPTH
from kappaflow_studies.padding import PADDING
from kappaflow_studies.partition import PARTITION
from kappaflow_studies.sphere import SPHERE
from kappaflow_studies.universal import UNIVERSAL

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (  # ordered as in the source paper
        LINEAR_DEPTH, FACTOR_TRADEOFF, DEPTH_FACTOR, PARTITION, UNIVERSAL, DEPTH_CONDITIONING,
        SPHERE, PADDING,
    )
}  # fmt: skip


def study_named(name: str) -> Study:
    """Returns a study by name.

    Raises:
        ArgumentError: No study has this name; the message lists the names.
    """
    if name not in STUDIES:
        raise ArgumentError(
            f"'experiment' should be one of {', '.join(STUDIES)} or all, got {name!r}."
        )
    return STUDIES[name]


def reproduce_all(
    studies: Mapping[str, Study],
    out: str | Path,
    *,
    preset: str = "minutes",
    seed: int = 0,
    processes: int | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Path, dict[str, Reproduced]]:
    """Returns the path of a page over several studies, and the result of each study.

    Each study runs in a folder of `out` with its name, and index.html compares them. An
    interrupted study resumes; a finished one is not measured again. The page has the order of
    `studies`; the other arguments are those of `run_study`.

    Raises:
        ArgumentError: `out` is a file, or a study refuses an argument.
    """
    folder, started = checked_folder(out), time.perf_counter()
    results: dict[str, Reproduced] = {}
    shared = {"preset": preset, "seed": seed, "processes": processes, "progress": progress}
    for number, (name, study) in enumerate(studies.items(), start=1):
        say(f"{name} ({number} of {len(studies)}): {study.about}")
        results[name] = run_study(study, folder / name, say=say, **shared)
    time_s = time.perf_counter() - started
    caption = f"Preset “{preset}”, seed {seed}, {format_time(time_s)}."
    page = render_claims(results, folder, about=caption)
    write_bytes(make_directory(folder) / PAGE, page.encode())
    return folder / PAGE, results
