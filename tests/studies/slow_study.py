"""Runs an experiment in two processes, which wait until a test allows a case or kills them."""

import os
import sys
import time
from pathlib import Path

from kappaflow.errors import NumericalError
from kappaflow_studies import Study, StudySettings, run_study
from kappaflow_studies.engine.report import StudyFindings


class Slow(StudySettings):
    """The number of cases, and a folder for files of their processes."""

    count: int
    folder: str


def cases(settings, seed):
    """Returns a case for each number."""
    return [{"number": n, "folder": settings.folder, "seed": seed} for n in range(settings.count)]


def measure(case):
    """Leaves a file with the number of its process, and waits until the case is allowed."""
    folder = Path(case["folder"])
    (folder / f"pid-{os.getpid()}").touch()
    while case["number"] >= int((folder / "allowed").read_text()):
        time.sleep(0.02)
    return [{"square": case["number"] ** 2}]


def findings(frame, settings):
    """Returns empty findings."""
    return StudyFindings(found=[], differs=[], charts=[])


if __name__ == "__main__":
    out = Path(sys.argv[1])
    presets = out.parent / "presets.toml"
    presets.write_text(f'[minutes]\ncount = 8\nfolder = "{out.parent}"\n')
    slow = Study("slow", "Slow", "slow", "Slow.", Slow, presets, cases, measure, findings)
    try:
        run_study(slow, out, processes=2, progress=False)
    except NumericalError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
