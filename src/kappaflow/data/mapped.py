"""`MappedTable`: rows in a file that is mapped, of which the system keeps in memory what fits."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.chunks import chunk_size
from kappaflow.data.split import places_of
from kappaflow.data.table import IntArray, Table
from kappaflow.errors import FileError


@dataclass(frozen=True, eq=False)
class MappedTable:
    """Rows to train on, in an npy file: the modelled columns, then those of the context.

    Attributes:
        path: The file; it need not exist before the first row is read.
        length: How many rows it has.
        sample: Some of them in random order, as a table.
        digest: A SHA-256 over columns and rows, in hex.
        held_out: Which rows of the source are not in the file, counted from 0, ascending.
    """

    path: Path
    length: int
    sample: Table
    digest: str
    held_out: IntArray

    def __len__(self) -> int:
        """Returns how many rows there are."""
        return self.length

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the modelled columns."""
        return self.sample.columns

    @property
    def context_columns(self) -> tuple[str, ...]:
        """The names of the columns that the density is conditioned on."""
        return self.sample.context_columns

    @property
    def source(self) -> str:
        """Where the rows came from, for messages."""
        return self.sample.source

    def fingerprint(self) -> str:
        """Returns what tells these rows from others, in hex."""
        return self.digest

    def describe(self) -> dict[str, Any]:
        """Returns the names of the columns."""
        return self.sample.describe()

    def at(self, index: IntArray | slice) -> NDArray[Any]:
        """Returns some of the rows, (n, columns and context), which share no memory with the file.

        Args:
            index: Places from 0, in any order, or a slice.

        Returns:
            The rows, of the type of the file.
        """
        return np.array(self.mapped[index])

    def blocks(self) -> Iterator[Table]:
        """Yields all rows as tables, some at a time, with their numbers in the source."""
        width = len(self.columns)
        size = chunk_size(width + len(self.context_columns))
        for start in range(0, self.length, size):
            found = self.at(slice(start, start + size)).astype(np.float64)
            numbers = np.arange(start, start + len(found))
            yield replace(
                self.sample,
                values=found[:, :width],
                context=found[:, width:] if self.context_columns else None,
                rows=places_of(numbers, self.held_out) + 1,
            )

    @functools.cached_property
    def mapped(self) -> NDArray[Any]:
        """The file as an array, (rows, columns and context), or what is wrong with it."""
        width = len(self.columns) + len(self.context_columns)
        try:
            found = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FileError(f"{self.path} cannot be read ({error}).") from None
        if found.shape != (self.length, width):
            raise FileError(f"{self.path} does not hold the rows that it should: remove it.")
        return found.view(np.ndarray)
