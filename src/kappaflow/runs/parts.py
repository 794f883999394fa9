"""Columns that are made a part at a time, each kept on disk until all are there."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kappaflow.data.join import join_parts
from kappaflow.data.write import frame_of, table_bytes
from kappaflow.errors import ArgumentError, FileError
from kappaflow.locking import LOCK, locked
from kappaflow.reading import parse_json, read_small
from kappaflow.storage import put_in_place, write_bytes
from kappaflow.training.progress import rows_shown

MANIFEST = "manifest.json"
SCORES = ("log_prob", "joint_log_prob")  # whose infinite and empty values are counted
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Work:
    """What is to be made in parts.

    Attributes:
        title: One word for a terminal.
        made_of: What the numbers depend on, by words that a sentence can be made of.
        rows: Of each part.
        make: Returns a part, counted from 0.
        generator: What the parts are drawn from, one after the other; None if nothing is drawn.
    """

    title: str
    made_of: Mapping[str, Any]
    rows: Sequence[int]
    make: Callable[[int], Columns]
    generator: torch.Generator | None = None


def parts_folder(out: Path) -> Path:
    """Returns where the parts of a file are until it is whole."""
    return out.with_name(f".{out.name}.parts")


@dataclass(frozen=True)
class Written:
    """What has been written.

    Attributes:
        rows: How many.
        columns: Their names.
        infinite: How many numbers of `SCORES` are -inf.
        empty: How many of them are empty.
        first_empty: The first value of the column "row" where one is; None for none.
        first_name: A name for that row, such as "line 4"; empty for none.
        dropped: How many rows were left out.
    """

    rows: int
    columns: tuple[str, ...]
    infinite: int
    empty: int = 0
    first_empty: int | None = None
    first_name: str = ""
    dropped: int = 0


def written(columns: Mapping[str, np.ndarray]) -> Written:
    """Returns what has been written when it is these columns; NaN counts as empty."""
    count = len(next(iter(columns.values())))
    scores = next((np.ma.getdata(columns[name]) for name in SCORES if name in columns), None)
    if scores is None:
        return Written(count, tuple(columns), 0)
    empty = np.flatnonzero(np.isnan(scores))
    first = int(columns["row"][empty[0]]) if len(empty) and "row" in columns else None
    return Written(count, tuple(columns), int(np.isneginf(scores).sum()), len(empty), first)


def write_in_parts(work: Work, out: str) -> Written:
    """Makes all parts and puts them into a file; what a stopped process had made is not repeated.

    Each part is written whole or not at all into a hidden folder beside the file, with the state
    that the generator is in behind it; the folder goes when the file is there. To standard output
    ("-") goes each part when it is made, and none is kept.

    Args:
        work: What to make.
        out: A file of a kind that `write_table` writes, or "-".

    Returns:
        What was written.

    Raises:
        ArgumentError: The parts that are there were made of something else. They may have taken
            hours, so that it is for the user to remove them.
        WriteError: There is no room, or another process makes the same file.
    """
    if out == "-":
        return _to_standard_output(work)
    folder = parts_folder(Path(out))
    with locked(folder):
        return _to_file(work, Path(out), folder)


def _to_file(work: Work, out: Path, folder: Path) -> Written:
    """Returns what was written of the parts, when those that were missing are made."""
    _begin(folder, work.made_of)
    places = range(len(work.rows))
    missing = [place for place in places if not _part(folder, place).exists()]
    done = sum(work.rows) - sum(work.rows[place] for place in missing)
    ready = 0  # the place that the generator is ready for
    with rows_shown(work.title, sum(work.rows), done) as told:
        for place in missing:
            if work.generator is not None and place != ready:
                work.generator.set_state(_stored_state(folder, place - 1))
            columns = work.make(place)
            if work.generator is not None:  # before the part: no part is without its state
                state = work.generator.get_state().numpy().tobytes()
                write_bytes(_state(folder, place), state)
            write_bytes(_part(folder, place), table_bytes(columns, ".parquet"))
            ready = place + 1
            told(work.rows[place])
    return _put_together([_part(folder, place) for place in places], out, folder)


def _put_together(parts: Sequence[Path], out: Path, folder: Path) -> Written:
    import polars as pl

    whole = folder / f"whole{out.suffix}"
    join_parts(parts, whole)
    frames = (pl.read_parquet(part) for part in parts)
    found = [written({one.name: one.to_numpy() for one in frame}) for frame in frames]
    put_in_place(whole, out)
    (folder / MANIFEST).unlink(missing_ok=True)  # first: without it the rest counts for nothing
    shutil.rmtree(folder, ignore_errors=True)
    return _together(found)


def _to_standard_output(work: Work) -> Written:
    found = []
    with rows_shown(work.title, sum(work.rows), 0) as told:
        for place, rows in enumerate(work.rows):
            columns = work.make(place)
            found.append(written(columns))
            sys.stdout.write(frame_of(columns).write_csv(include_header=place == 0))
            told(rows)
    return _together(found)


def _together(parts: Sequence[Written]) -> Written:
    """Returns what parts come to."""
    first = next((one.first_empty for one in parts if one.first_empty is not None), None)
    return Written(
        rows=sum(one.rows for one in parts),
        columns=parts[0].columns,
        infinite=sum(one.infinite for one in parts),
        empty=sum(one.empty for one in parts),
        first_empty=first,
    )


def _begin(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Makes the folder of parts, or makes sure that those in it are of the same."""
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
            f"{folder} holds the parts of another call, which differs in: {', '.join(other)}; "
            "remove that folder to start anew, or give another 'out'."
        )


def _part(folder: Path, place: int) -> Path:
    return folder / f"{place:06}.parquet"


def _state(folder: Path, place: int) -> Path:
    return folder / f"{place:06}.state"


def _stored_state(folder: Path, place: int) -> torch.Tensor:
    content = _state(folder, place).read_bytes()
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())
