"""`Dataset`: what tables in memory, tables in a file and images have in common."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Dataset(Protocol):
    """Rows or images that a flow is fitted to or scored on.

    `Table`, `MappedTable` (the training rows of a `TableOnDisk`) and `Images` implement it.
    `kappaflow.training.batches_of` reads any of them in batches.

    Example:
        >>> from kappaflow.data import load_images, load_table
        >>> table, images = load_table("magic"), load_images("digits")
        >>> isinstance(table, Dataset), isinstance(images, Dataset)
        (True, True)
        >>> images.describe()["classes"][:3]
        ['0', '1', '2']
    """

    @property
    def source(self) -> str:
        """Where the data came from, for messages."""
        ...

    def __len__(self) -> int:
        """Returns the number of rows or images."""
        ...

    def fingerprint(self) -> str:
        """Returns a SHA-256 in hex that changes whenever the data changes."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns plain values that a run folder stores about the data, such as its columns."""
        ...
