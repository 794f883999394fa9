"""Places of pages, looked at before any work is done."""

from pathlib import Path

from kappaflow.errors import ArgumentError, FileError


def check_place(name: str, path: str | Path | None, suffix: str) -> None:
    """Refuses a place that cannot be written.

    Args:
        name: Of the argument.
        path: The file; None for none.
        suffix: What it should end in.

    Raises:
        ArgumentError: It ends in something else, or is a folder.
        FileError: It stands in no folder.
    """
    if path is None:
        return
    target = Path(path)
    if target.suffix.lower() != suffix:
        raise ArgumentError(f"'{name}' should end in {suffix}, got '{path}'.")
    if target.is_dir():
        raise ArgumentError(f"'{name}' should be a file, {path} is a folder.")
    if not target.parent.is_dir():
        raise FileError(f"{path} cannot be written: there is no folder {target.parent}.")
