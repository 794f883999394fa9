"""Mutations of real files, each loaded within limits of memory and time.

An input survives if loading returns a result or raises an exception of ours. An input that fails
is kept in the folder `kept`. Processes with limited memory load the inputs. If a process dies or
takes too long, its input has failed, and another process replaces it.
"""

import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from faults.outcome import Outcome

LONG, SHORT = 100_000, 1_500
AT_ONCE = 250  # inputs in a chunk, which is completed as a whole
WORKERS = 2
LIMIT_S = 30.0
MEMORY = 3 * 2**30  # limit in bytes, beyond the memory of a process after all imports
DONE = "hostile.jsonl"
TOO_LONG = "took too long"


def hostile(*, long: bool, seed: int, folder: Path, total: int | None = None) -> Iterator[Outcome]:
    """Yields a row for each kind of file."""
    from faults.loaders import KINDS, write_originals

    folder.mkdir(parents=True, exist_ok=True)
    write_originals(folder / "originals")
    count = -(-(total or (LONG if long else SHORT)) // len(KINDS))
    chunks = [
        (kind, start, min(AT_ONCE, count - start), seed)
        for start in range(0, count, AT_ONCE)
        for kind in KINDS
    ]
    done = _done(folder)
    left = [chunk for chunk in chunks if chunk not in done]
    with (folder / DONE).open("a") as file:
        for chunk, found in _loaded(left, folder):
            done[chunk] = found
            file.write(json.dumps([chunk, found]) + "\n")
            file.flush()
    for kind in KINDS:
        of_kind = [done[chunk] for chunk in chunks if chunk[0] == kind]
        tried, survived = (sum(one[name] for one in of_kind) for name in ("tried", "survived"))
        longest = max(one["longest_s"] for one in of_kind)
        yield Outcome(f"mutated {kind}", "files", tried, survived, tried - survived, longest)


Chunk = tuple[str, int, int, int]
Found = dict[str, Any]


def _done(folder: Path) -> dict[Chunk, Found]:
    """Returns the chunks that an earlier call has completed."""
    if not (folder / DONE).exists():
        return {}
    whole = (folder / DONE).read_text().rpartition("\n")[0]
    return {tuple(chunk): found for chunk, found in map(json.loads, whole.splitlines())}


def _loaded(chunks: list[Chunk], folder: Path) -> Iterator[tuple[Chunk, Found]]:
    """Yields chunks in the order in which processes finish them."""
    with ThreadPoolExecutor(WORKERS) as pool:
        started = [pool.submit(_Worker(chunk, folder).run) for chunk in chunks]
        for future in as_completed(started):
            yield future.result()


class _Worker:
    """A chunk with the process that loads its inputs, which is replaced if it fails."""

    def __init__(self, chunk: Chunk, folder: Path) -> None:
        self.chunk, self.folder = chunk, folder
        self.found: Found = {"tried": 0, "survived": 0, "longest_s": 0.0}

    def run(self) -> tuple[Chunk, Found]:
        """Returns the chunk and its result."""
        while self.found["tried"] < self.chunk[2]:
            with self._process() as process:
                why = self._heard(process)
            if why:
                self._failed(why)
        return self.chunk, self.found

    def _process(self) -> subprocess.Popen[bytes]:
        """Returns a process that loads the remaining inputs."""
        kind, start, count, seed = self.chunk
        done = self.found["tried"]
        given = [kind, str(start + done), str(count - done), str(seed), str(self.folder)]
        alone = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "PYTHONHASHSEED": "0"}
        return subprocess.Popen(
            [sys.executable, "-m", "faults.hostile", *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | alone,
            bufsize=0,
        )

    def _heard(self, process: subprocess.Popen[bytes]) -> str:
        """Returns why a process ended early, or an empty text; counts its results."""
        out, heard = process.stdout, b""
        while out is not None and select.select([out], [], [], 4 * LIMIT_S)[0]:
            message = out.read(2**16)
            if not message:
                status = process.wait()
                return "" if self.found["tried"] == self.chunk[2] else f"ended with {status}"
            *lines, heard = (heard + message).split(b"\n")
            for line in lines:
                self._count(*json.loads(line))
        process.kill()
        return TOO_LONG

    def _failed(self, why: str) -> None:
        kind, start, _, seed = self.chunk
        keep(self.folder, kind, start + self.found["tried"], seed, why)
        self._count(False, LIMIT_S if why == TOO_LONG else 0.0)

    def _count(self, survived: bool, time_s: float) -> None:
        self.found["tried"] += 1
        self.found["survived"] += survived
        self.found["longest_s"] = round(max(self.found["longest_s"], time_s), 3)


def made(folder: Path, kind: str, place: int, seed: int) -> bytes:
    """Returns an input, which depends only on kind, number and seed."""
    from faults.loaders import KINDS
    from faults.mutations import mutated, mutated_json

    chance, originals = random.Random(f"{seed} {kind} {place}"), folder / "originals"
    content = (originals / KINDS[kind].file).read_bytes()
    if KINDS[kind].is_json and chance.random() < 0.7:
        return mutated_json(content, chance)
    others = [one.file for one in KINDS.values()]
    other = chance.choice([KINDS[kind].file, chance.choice(others)])
    return mutated(content, (originals / other).read_bytes(), chance)


def keep(folder: Path, kind: str, place: int, seed: int, why: str) -> None:
    """Keeps an input that failed, with the reason."""
    from faults.loaders import KINDS

    name = f"{kind.replace(' ', '-')}-{seed}-{place}"
    (folder / "kept" / name).mkdir(parents=True, exist_ok=True)
    file = folder / "kept" / name / Path(KINDS[kind].file).name
    file.write_bytes(made(folder, kind, place, seed))
    (folder / "kept" / name / "why.txt").write_text(why)


def load_inputs(kind: str, start: int, count: int, seed: int, folder: Path) -> None:
    """Loads inputs one by one, and prints for each whether it survived, and its time."""
    import signal
    import warnings

    from faults.loaders import KINDS
    from kappaflow.errors import KappaflowError

    warnings.simplefilter("ignore")
    place = own_copy(folder, KINDS[kind].file)
    pristine = {path: path.read_bytes() for path in place.parent.rglob("*") if path.is_file()}
    KINDS[kind].load(place)  # imports what it needs
    _limit_memory()
    signal.signal(signal.SIGALRM, _too_late)
    for number in range(start, start + count):
        for path, content in pristine.items():
            path.write_bytes(content)
        place.write_bytes(made(folder, kind, number, seed))
        began, why = time.monotonic(), ""
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        try:
            KINDS[kind].load(place)
        except KappaflowError:
            pass
        except BaseException as error:
            why = f"{type(error).__name__}: {error}"[:500]
        signal.setitimer(signal.ITIMER_REAL, 0)
        if why:
            keep(folder, kind, number, seed, why)
        print(json.dumps([not why, time.monotonic() - began]), flush=True)


class Late(BaseException):
    """Loading took too long. No code catches this."""


def _too_late(*_: object) -> None:
    raise Late


def own_copy(folder: Path, file: str) -> Path:
    """Returns a file of a kind, in a copy of its folder that this process may change."""
    top = Path(file).parts[0]
    own = folder / "work" / str(os.getpid())
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    original = folder / "originals" / top
    (shutil.copytree if original.is_dir() else shutil.copy)(original, own / top)
    return own / file


def _limit_memory() -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    kind, start, count, seed, place = sys.argv[1:]
    load_inputs(kind, int(start), int(count), int(seed), Path(place))
    shutil.rmtree(Path(place) / "work" / str(os.getpid()), ignore_errors=True)
