"""Atomic writes of files and folders, and files of tensors with a digest."""

import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kappaflow.errors import ArgumentError, FileError, WriteError
from kappaflow.reading import parse_json

if TYPE_CHECKING:  # loaded with the first tensors
    from torch import Tensor

NOTES = "kappaflow"
DIGEST = "digest"


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: after a crash it has the old content or the new one."""
    temporary = temporary_path(path)
    try:
        with _write_errors(path):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        replace_file(temporary, path)
    finally:
        with suppress(OSError):  # a file system that became read-only refuses this too
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Returns a new hidden name next to a path, which `remove_unfinished` recognizes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError in the context into a WriteError that names the path."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror}.") from None


def check_place(name: str, path: Path) -> None:
    """Raises an error if a path is that of a folder, or its folder does not exist."""
    if path.is_dir():
        raise ArgumentError(f"'{name}' should be a file, {path} is a folder.")
    if not path.parent.is_dir():
        raise FileError(f"{path} cannot be written: there is no folder {path.parent}.")


def append_bytes(path: Path, content: bytes) -> None:
    """Appends to a file, or creates it; call `sync_file` to make this durable."""
    with _write_errors(path), path.open("ab") as file:
        file.write(content)


def sync_file(path: Path) -> None:
    """Waits until the content of a file is on the disk."""
    with _write_errors(path):
        _sync(path)


def replace_file(temporary: Path, path: Path) -> None:
    """Renames a finished temporary file to a path: fsync, rename, fsync of the directory."""
    with _write_errors(path):
        _sync(temporary)
        temporary.replace(path)
        _sync_directory(path.parent)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary directory, renamed to `path` at the end or removed on an error."""
    folder = make_directory(temporary_path(path))
    try:
        yield folder
        with _write_errors(path):
            folder.replace(path)
            _sync_directory(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_stamp(path: Path) -> dict[str, Any]:
    """Returns path, size and modification time of a file, which differ after a change."""
    stat = path.stat()
    return {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def plain(value: Any) -> Any:
    """Returns a value for JSON: numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_unfinished(path: Path) -> bool:
    """Returns whether a file is a temporary file of an interrupted write."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_unfinished(folder: Path) -> None:
    """Removes temporary files of interrupted writes; no other process may be writing there."""
    for path in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        if path.is_file():
            with suppress(OSError):
                path.unlink()


def make_directory(path: str | Path) -> Path:
    """Returns a directory, which is created if it is missing."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} cannot be made a directory: {error.strerror}.") from None
    return folder


def write_tensors(path: Path, tensors: dict[str, "Tensor"], metadata: dict[str, str]) -> None:
    """Writes named tensors and strings to one safetensors file, with a digest over all of them.

    The strings go under one key of the header, as JSON: safetensors writes several keys in an
    order that changes from call to call, and the same content should be the same bytes.
    """
    from safetensors.torch import save as safetensors_bytes

    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    notes = json.dumps({**metadata, DIGEST: _digest(copies, metadata)}, sort_keys=True)
    write_bytes(path, safetensors_bytes(copies, metadata={NOTES: notes}))


def read_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Returns the tensors of a file by name, and its strings; refuses a file that has changed."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileError(f"{path} is missing: {path.parent} has no complete model.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            notes = (file.metadata() or {}).get(NOTES)
            metadata = dict(parse_json(notes or "{}"))
    except (SafetensorError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(f"{path} is damaged or cut short ({error}).") from None
    if notes is None:
        raise FileError(f"{path} was written by something else: it has no notes of kappaflow.")
    if metadata.pop(DIGEST, None) != _digest(tensors, metadata):
        raise FileError(f"{path} does not match its digest: it was damaged or changed.")
    return tensors, metadata


def _digest(tensors: dict[str, "Tensor"], metadata: dict[str, str]) -> str:
    """Returns a SHA-256 over strings, and names, types, shapes and bytes of tensors."""
    import torch

    sha = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_directory(folder: Path) -> None:
    """Makes a rename durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
