"""The command line of the fault suite."""

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.lines import append_line, append_machine
from benchmarks.machine import machine
from benchmarks.processes import console
from cyclopts import App

from faults.outcome import Outcome
from faults.page import RESULTS, outcome_table, write_page

# Imported only when they run; each is a module with a function of the same name.
PARTS = ("kills", "numbers", "soak", "stream", "ranks", "cables", "hostile", "guided")

app = App(name="python -m faults", help=__doc__, result_action="return_value")


@app.default
def run(
    *,
    long: bool = False,
    only: list[str] | None = None,
    folder: Path = Path("runs/faults"),
    seed: int = 0,
    soak_minutes: float | None = None,
    inputs: int | None = None,
) -> int:
    """Apply faults to real processes, files and numbers, and count how many are survived.

    Parameters
    ----------
    long
        Run everything, which takes hours; the results are committed for the page. A short run
        takes some minutes, and its results go to the folder.
    only
        Parts to run; all by default.
    folder
        Folder for the faults; an interrupted run resumes from it.
    seed
        Seed of all random choices.
    soak_minutes
        Length of the soak; by default 120 minutes in a long run, and a third in a short one.
    inputs
        Number of hostile files; by default 100,000 in a long run, and 1,500 in a short one.

    Returns:
    -------
        0 if everything survived and nothing was lost, else 1.
    """
    given = {
        "soak": {} if soak_minutes is None else {"minutes": soak_minutes},
        "hostile": {} if inputs is None else {"total": inputs},
    }
    file = RESULTS if long else folder / "outcomes.jsonl"
    done: list[Outcome] = []
    for part in only or PARTS:
        place = folder / part
        place.mkdir(parents=True, exist_ok=True)
        arguments = {"long": long, "seed": seed, "folder": place.resolve(), **given.get(part, {})}
        for outcome in _part(part)(**arguments):
            append_machine(file, machine())
            line = {"part": part, "date": time.strftime("%Y-%m-%d"), **asdict(outcome)}
            append_line(file, line)
            done.append(outcome)
            console.print(f"{part}: {outcome}", markup=False, soft_wrap=True)
    console.print(outcome_table(done), markup=False, soft_wrap=True)
    if long:
        write_page()
    return int(any(one.survived < one.tried or one.lost for one in done))


def _part(name: str) -> Callable[..., Iterator[Outcome]]:
    """Returns the function of a part."""
    if name not in PARTS:
        raise SystemExit(f"'only' should be some of {', '.join(PARTS)}, got {name!r}.")
    return getattr(importlib.import_module(f"faults.{name}"), name)


app.command(write_page)

if __name__ == "__main__":
    raise SystemExit(app())
