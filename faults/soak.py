"""The part "soak": a long training uses the same resources at its end as after its start."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from faults.outcome import Outcome
from faults.processes import Held, held_by
from faults.trainings import ended, started, write_rows

EVERY_S = 0.5  # seconds between two measurements
WARM = 0.3  # share of the time before measurements count
GROWTH_BYTES = 32 * 2**20  # growth that is allowed: the epoch history, and heap fragments


def soak(
    *, long: bool, seed: int, folder: Path, minutes: float | None = None
) -> Iterator[Outcome]:
    """Yields whether memory, open files and threads of a training grow."""
    lasts_s = 60 * (minutes if minutes is not None else 120 if long else 1 / 3)
    data = write_rows(folder / "rows.csv")
    run = folder / f"run-{lasts_s:g}"
    words = ["fit", str(data), "--out", str(run), "--seed", str(seed)]
    lasts = f"--max-time-s {lasts_s:g} --max-epochs 1000000 --patience 1000000 --batch-size 4"
    process = started([*words, *lasts.split(), "--depth", "4", "--hidden", "32", "--quiet"])
    looks: list[Held] = []
    while process.poll() is None:
        found = held_by(process.pid)
        looks += [found] if found is not None and _is_training(run) else []
        time.sleep(EVERY_S)
    status, _ = ended(process)
    grew = grown(looks)
    kept = {"grew": grew, "looks": [asdict(one) for one in looks[:: max(1, len(looks) // 200)]]}
    (folder / f"held-{lasts_s:g}.json").write_text(json.dumps(kept))
    yield Outcome(
        f"a training for {lasts_s / 60:g} minutes: memory, open files, threads",
        "quantities",
        tried=3,
        survived=3 - len(grew) if status == 0 else 0,
        lost=len(grew),
    )


def grown(looks: Sequence[Held]) -> list[str]:
    """Returns the resources that grew after the start; all of them without a measurement."""
    warm = looks[int(WARM * len(looks)) :]
    tenth = max(1, len(warm) // 10)
    first, last = warm[:tenth], warm[-tenth:]
    if not warm:
        return ["memory", "files", "threads"]
    memory = max(one.memory_bytes for one in last) - max(one.memory_bytes for one in first)
    grew = ["memory"] if memory > GROWTH_BYTES else []
    for name in ("files", "threads"):  # use the least: a file is open while it is written
        before, after = (min(getattr(one, name) for one in part) for part in (first, last))
        grew += [name] if after > before else []
    return grew


def _is_training(run: Path) -> bool:
    return (run / "metrics.jsonl").exists() and not (run / "result.json").exists()
