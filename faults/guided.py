"""Guided fuzzing of files: inputs that reach new code are mutated further.

Our file readers are instrumented by atheris (pip install --group fuzz). Its libFuzzer stops
at the first input that raises an exception other than ours, or that needs too much time or memory.
This input is kept in the folder `kept`.
"""

import importlib
import importlib.util
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from faults.outcome import Outcome

# Kinds of files for which our code does more than call another library.
GUIDED = (
    "config.json",
    "config.json with a right digest",
    "metrics.jsonl",
    "result.json",
    "report.json",
    "csv",
    "csv.gz",
    "npy",
    "npz",
    "idx",
)
LONG_S, SHORT_S = 30, 2
LIMIT_S, MEMORY_MB = 30, 4096
COUNT = re.compile(r"^(?:Done |stat::number_of_executed_units: +)(\d+)", re.MULTILINE)


def guided(
    *, long: bool, seed: int, folder: Path, seconds: int | None = None
) -> Iterator[Outcome]:
    """Yields a row for all kinds of files; none if atheris is not installed."""
    from faults.loaders import write_originals

    if importlib.util.find_spec("atheris") is None:
        return
    (folder / "kept").mkdir(parents=True, exist_ok=True)
    write_originals(folder / "originals")
    tried, lost = 0, 0
    for kind in GUIDED:
        lasts = seconds or (LONG_S if long else SHORT_S)
        words = [kind, str(lasts), str(seed), str(folder)]
        done = subprocess.run(
            [sys.executable, "-m", "faults.guided", *words],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
        )
        tried += max(map(int, COUNT.findall(done.stderr)), default=1)
        if done.returncode:
            lost += 1
            (folder / "kept" / f"{_named(kind)}.txt").write_text(done.stderr[-20_000:])
        shutil.rmtree(folder / "work", ignore_errors=True)
    fault = f"files of {len(GUIDED)} kinds, changed on by what code they reach"
    yield Outcome(fault, "files", tried, tried - lost, lost)


def load_guided(kind: str, seconds: int, seed: int, folder: Path) -> None:
    """Loads inputs that libFuzzer makes from an original, and ends the process."""
    import warnings

    atheris = importlib.import_module("atheris")  # an optional dependency
    with atheris.instrument_imports(include=["kappaflow"]):
        from faults.hostile import own_copy
        from faults.loaders import KINDS
        from faults.mutations import mutated_json
        from kappaflow.errors import KappaflowError

    warnings.simplefilter("ignore")
    one, place = KINDS[kind], own_copy(folder, KINDS[kind].file)
    original = place.read_bytes()
    one.load(place)  # imports what it needs

    def load(content: bytes) -> None:
        place.write_bytes(content)
        try:
            one.load(place)
        except KappaflowError:
            pass

    def changed(content: bytes, most: int, number: int) -> bytes:
        chance = random.Random(number)
        if one.is_json and chance.random() < 0.7:
            try:
                return mutated_json(content, chance)[:most]
            except (ValueError, RecursionError, IndexError):
                return mutated_json(original, chance)[:most]
        return atheris.Mutate(content, most)

    corpus, kept = folder / "corpus" / _named(kind), folder / "kept"
    for path in (corpus, kept):
        path.mkdir(parents=True, exist_ok=True)
    (corpus / "original").write_bytes(original)
    flags = {
        "max_total_time": seconds,
        "seed": seed + 1,  # libFuzzer takes 0 as "random"
        "timeout": LIMIT_S,
        "rss_limit_mb": MEMORY_MB,
        "max_len": 2 * len(original) + 4096,
        "artifact_prefix": f"{kept / _named(kind)}-",
        "print_final_stats": 1,
    }
    words = [sys.argv[0], *(f"-{name}={value}" for name, value in flags.items()), str(corpus)]
    atheris.Setup(words, load, custom_mutator=changed)
    atheris.Fuzz()


def _named(kind: str) -> str:
    return kind.replace(" ", "-")


if __name__ == "__main__":
    kind, seconds, seed, place = sys.argv[1:]
    load_guided(kind, int(seconds), int(seed), Path(place))
