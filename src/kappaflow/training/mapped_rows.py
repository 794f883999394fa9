"""Rows in a file as a training reads them: gathered batch by batch."""

import torch
from torch import Tensor

from kappaflow.data import MappedTable
from kappaflow.flows import Flow
from kappaflow.training.rows import Rows, rows_of


class MappedRows:
    """Rows of a mapped file, on the device of a flow; only what has been asked for is in memory.

    Args:
        table: The file, of the type of the flow.
        flow: One of as many features and context features.

    Raises:
        ArgumentError: The flow has others.
    """  # noqa: DOC502 - raised by `rows_of`

    weights = None  # all rows count alike

    def __init__(self, table: MappedTable, flow: Flow) -> None:
        self.table, self.flow = table, flow
        self._examples = rows_of(table.sample, flow)

    def __len__(self) -> int:
        return len(self.table)

    def at(self, index: Tensor | slice) -> Rows:
        """Returns some of the rows, with their contexts."""
        found = self.table.at(index.numpy() if isinstance(index, Tensor) else index)
        numbers = torch.from_numpy(found).to(self.flow.device, self.flow.dtype)
        width = len(self.table.columns)
        context = numbers[:, width:].contiguous() if self.table.context_columns else None
        return Rows(numbers[:, :width].contiguous(), context)

    def examples(self) -> Rows:
        """Returns the rows of the sample."""
        return self._examples
