"""Writes columns a chunk at a time, and resumes if it is interrupted."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kappaflow import __version__
from kappaflow.data.write import frame_of, join_parts, table_bytes
from kappaflow.errors import ArgumentError, FileError
from kappaflow.locking import LOCK, locked
from kappaflow.native import describe
from kappaflow.reading import parse_json, read_small
from kappaflow.runs.ranges import Outside
from kappaflow.storage import put_in_place, write_bytes
from kappaflow.training.progress import rows_shown

MANIFEST = "manifest.json"
SCORES = ("log_prob", "joint_log_prob")  # whose infinite and empty values are counted
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Work:
    """Columns that are made in chunks.

    `made_of` has everything that the numbers depend on, by names for error messages. `rows` are
    the rows of each chunk, and `make` returns a chunk by its number, from 0. `generator` is the
    source of randomness of the chunks, in order; None for none.
    """

    title: str
    made_of: Mapping[str, Any]
    rows: Sequence[int]
    make: Callable[[int], Columns]
    generator: torch.Generator | None = None


def parts_folder(out: Path) -> Path:
    """Returns the folder of the chunks of a file."""
    return out.with_name(f".{out.name}.parts")


@dataclass(frozen=True)
class Written:
    """A summary of written columns.

    `infinite` and `empty` count scores that are -inf or empty; the first row with an empty score
    has a number and a name such as "line 4". `dropped` rows were left out. `outside` counts rows,
    or context rows of samples, outside of the range of the training rows.
    """

    rows: int
    columns: tuple[str, ...]
    infinite: int
    empty: int = 0
    first_empty: int | None = None
    first_name: str = ""
    dropped: int = 0
    outside: Outside = field(default_factory=Outside)


def written(columns: Mapping[str, np.ndarray]) -> Written:
    """Returns a summary of columns; NaN counts as empty."""
    count = len(next(iter(columns.values())))
    scores = next((np.ma.getdata(columns[name]) for name in SCORES if name in columns), None)
    if scores is None:
        return Written(count, tuple(columns), 0)
    empty = np.flatnonzero(np.isnan(scores))
    first = int(columns["row"][empty[0]]) if len(empty) and "row" in columns else None
    return Written(count, tuple(columns), int(np.isneginf(scores).sum()), len(empty), first)


def write_in_chunks(work: Work, out: str) -> Written:
    """Makes all chunks and joins them in a file; chunks of an interrupted call are reused.

    Each chunk is written atomically to a hidden folder next to the file, with the state of the
    generator after it. The folder is removed once the file is complete. Chunks for standard output
    ("-") are printed as they are made, and not kept.

    Returns:
        A summary.

    Raises:
        ArgumentError: The folder holds chunks of another call. They may have taken hours, so the
            user has to remove them.
        WriteError: The disk is full, or another process makes the same file.
    """
    if out == "-":
        return _to_standard_output(work)
    folder = parts_folder(Path(out))
    with locked(folder):
        return _to_file(work, Path(out), folder)


def _to_file(work: Work, out: Path, folder: Path) -> Written:
    """Returns a summary of the file, after making the missing chunks and joining all."""
    _begin(folder, work.made_of)
    places = range(len(work.rows))
    missing = [place for place in places if not _part(folder, place).exists()]
    done = sum(work.rows) - sum(work.rows[place] for place in missing)
    ready = 0  # the chunk that the state of the generator belongs to
    with rows_shown(work.title, sum(work.rows), done) as show:
        for place in missing:
            if work.generator is not None and place != ready:
                work.generator.set_state(_stored_state(folder, place - 1))
            columns = work.make(place)
            if work.generator is not None:  # first, so that each chunk has a state
                state = work.generator.get_state().numpy().tobytes()
                write_bytes(_state(folder, place), state)
            write_bytes(_part(folder, place), table_bytes(columns, ".parquet"))
            ready = place + 1
            show(work.rows[place])
    return _put_together([_part(folder, place) for place in places], out, folder)


def _put_together(parts: Sequence[Path], out: Path, folder: Path) -> Written:
    import polars as pl

    whole = folder / f"whole{out.suffix}"
    join_parts(parts, whole)
    frames = (pl.read_parquet(part) for part in parts)
    results = [written({one.name: one.to_numpy() for one in frame}) for frame in frames]
    put_in_place(whole, out)
    (folder / MANIFEST).unlink(missing_ok=True)  # first: without it the rest is ignored
    shutil.rmtree(folder, ignore_errors=True)
    return _together(results)


def _to_standard_output(work: Work) -> Written:
    results = []
    with rows_shown(work.title, sum(work.rows), 0) as show:
        for place, rows in enumerate(work.rows):
            columns = work.make(place)
            results.append(written(columns))
            sys.stdout.write(frame_of(columns).write_csv(include_header=place == 0))
            show(rows)
    return _together(results)


def _together(parts: Sequence[Written]) -> Written:
    """Returns the summary of several chunks."""
    first = next((one.first_empty for one in parts if one.first_empty is not None), None)
    return Written(
        rows=sum(one.rows for one in parts),
        columns=parts[0].columns,
        infinite=sum(one.infinite for one in parts),
        empty=sum(one.empty for one in parts),
        first_empty=first,
    )


def _begin(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Prepares the folder of chunks, or checks that its chunks belong to this call."""
    if not (folder / MANIFEST).exists():
        for left in folder.iterdir():
            if left.name != LOCK:
                left.unlink()
        write_bytes(folder / MANIFEST, json.dumps(dict(made_of), indent=1).encode())
        return
    try:
        stored = dict(parse_json(read_small(folder / MANIFEST)))
    except (TypeError, ValueError):
        raise FileError(f"{folder / MANIFEST} is damaged: remove that folder.") from None
    other = [word for word, value in made_of.items() if stored.get(word) != value]
    if other:
        raise ArgumentError(
            f"{folder} holds the chunks of another call, which differs in: {', '.join(other)}. "
            "Remove that folder to start again, or give another 'out'."
        )


def _part(folder: Path, place: int) -> Path:
    return folder / f"{place:06}.parquet"


def _state(folder: Path, place: int) -> Path:
    return folder / f"{place:06}.state"


def _stored_state(folder: Path, place: int) -> torch.Tensor:
    content = _state(folder, place).read_bytes()
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def digest_of(folder: Path, names: Sequence[str]) -> str:
    """Returns a SHA-256 over files of a run folder."""
    sha = hashlib.sha256()
    for name in names:
        sha.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return sha.hexdigest()


def versions() -> str:
    """Returns the versions and the backend that numbers depend on, to rounding."""
    return f"kappaflow {__version__}, torch {torch.__version__}, {describe()}"
