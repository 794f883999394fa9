"""`open_chunks`: a table on disk in chunks, where it has more than one."""

from collections.abc import Sequence
from pathlib import Path

from kappaflow.data.chunks import ArrayChunks, Chunks, FrameChunks
from kappaflow.data.load import table_names
from kappaflow.data.raw import AS_USUAL, ReadOptions
from kappaflow.data.text_chunks import TextChunks

Kind = type[FrameChunks] | type[ArrayChunks] | type[TextChunks]
OPENED: dict[str, Kind] = {
    ".parquet": FrameChunks,
    ".arrow": FrameChunks,
    ".feather": FrameChunks,
    ".ipc": FrameChunks,
    ".npy": ArrayChunks,
    ".csv": TextChunks,
    ".tsv": TextChunks,
}


def kind_of(path: Path) -> Kind | None:
    """Returns how a file of this name is read a chunk at a time; None where it is not."""
    return OPENED.get(path.suffix.lower())


def open_chunks(
    source: str,
    columns: Sequence[str] | None,
    context: Sequence[str] = (),
    *,
    exclude: Sequence[str] = (),
    multiple: int = 1,
    options: ReadOptions = AS_USUAL,
) -> Chunks | None:
    """Returns a table on disk that is to be read a chunk at a time.

    Args:
        source: As for `load_table`.
        columns: The columns to model, in that order; all columns of numbers if None.
        context: The columns that the density is conditioned on.
        exclude: Columns to leave out.
        multiple: All chunks but the last have a multiple of so many rows.
        options: How the values are read.

    Returns:
        The chunks; None where `load_table` is to read all at once: one chunk holds all rows, the
        kind of file allows nothing else (npz, gz, standard input, an Arrow stream), it is a table
        that comes along, or something is wrong with the file, which `load_table` says.
    """
    from polars.exceptions import PanicException, PolarsError

    path = Path(source).expanduser()
    kind = kind_of(path)
    comes_along = source in table_names() and not path.is_file()
    # polars takes such signs for patterns, of which several files may be one
    is_pattern = kind is FrameChunks and any(sign in str(path) for sign in "*?[")
    if kind is None or comes_along or is_pattern or not path.is_file():
        return None
    try:
        chunks = kind(
            path,
            source,
            columns,
            context,
            exclude=exclude,
            multiple=multiple,
            options=options,
        )
    except (OSError, ValueError, PolarsError, PanicException):
        return None
    return chunks if chunks.rows > chunks.size else None
