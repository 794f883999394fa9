"""Rows of a table in batches, as tensors with the dtype and on the device of a flow."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from kappaflow.data.dataset import Model
from kappaflow.data.domains import clip_to_domain
from kappaflow.data.naming import describe_rows
from kappaflow.data.raw import quoted
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError
from kappaflow.options import option

if TYPE_CHECKING:
    from kappaflow.data.on_disk import MappedTable
    from kappaflow.data.table import Table


@dataclass(frozen=True)
class Batch:
    """A batch of rows or images (N, *event) with contexts (N, C) or None, in the flow's dtype.

    `weights` are the weights of the rows, (N,), in float64, with mean 1 over the dataset. They are
    None if all rows count equally.
    """

    x: Tensor
    context: Tensor | None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def index_device(self) -> torch.device:
        """The device of the rows."""
        return self.x.device

    def at(self, index: Tensor | slice) -> "Batch":
        """Returns some of the rows."""
        where = index.to(self.x.device) if isinstance(index, Tensor) else index
        context, weights = (
            None if part is None else part[where] for part in (self.context, self.weights)
        )
        return Batch(self.x[where], context, weights)

    def examples(self) -> "Batch":
        """Returns all rows."""
        return self

    def mean(self, values: Tensor) -> Tensor:
        """Returns the weighted mean of values (N,), one per row."""
        if self.weights is None:
            return values.mean()
        return (values * self.weights.to(values)).mean()


class Batches(Protocol):
    """Interface of a dataset that a flow reads in batches."""

    @property
    def weights(self) -> Tensor | None:
        """Weights of the rows, with mean 1; None if all rows count equally."""
        ...

    @property
    def index_device(self) -> torch.device:
        """The device on which `at` uses an index tensor."""
        ...

    def __len__(self) -> int:
        """Returns the number of rows or images."""
        ...

    def at(self, index: Tensor | slice) -> Batch:
        """Returns some of the rows or images."""
        ...

    def examples(self) -> Batch:
        """Returns the rows used to fit the standardization of a flow: all rows, or a sample."""
        ...


def batch_of(table: "Table", flow: Model) -> Batch:
    """Returns all rows of a table as one batch for a flow.

    Raises:
        ArgumentError: The numbers of columns differ from those of the flow.
    """
    expected = flow.event_shape
    if expected != (len(table.columns),):
        left = f"; left out: {quoted(table.left_out)}" if table.left_out else ""
        raise ArgumentError(
            f"'data' should have {' x '.join(map(str, expected))} columns, as the flow has "
            f"features; {table.source} has {len(table.columns)}: "
            f"{', '.join(table.columns[:12])}{left}."
        )
    if len(table.context_columns) != flow.context_features:
        raise ArgumentError(
            f"'data' should have {flow.context_features} context columns, as the flow has; "
            f"{table.source} has {len(table.context_columns)}."
        )
    context = None if table.context is None else _tensor(table.context, flow)
    weights = None
    if table.weights is not None:
        weights = torch.from_numpy(table.weights / table.weights.mean()).to(flow.device)
    return Batch(_tensor(table.values, flow), context, weights)


class MappedBatches:
    """Reads batches of rows from a memory-mapped file, in the dtype of the flow."""

    weights = None  # all rows count equally
    index_device = torch.device("cpu")

    def __init__(self, table: "MappedTable", flow: Model) -> None:
        self.table, self.flow = table, flow
        self._examples = batch_of(table.sample, flow)

    def __len__(self) -> int:
        return len(self.table)

    def at(self, index: Tensor | slice) -> Batch:
        result = self.table.at(index.numpy() if isinstance(index, Tensor) else index)
        numbers = torch.from_numpy(result).to(self.flow.device, self.flow.dtype)
        width = len(self.table.columns)
        context = numbers[:, width:].contiguous() if self.table.context_columns else None
        return Batch(numbers[:, :width].contiguous(), context)

    def examples(self) -> Batch:
        return self._examples


def domains_in(flow: Model, table: "Table") -> dict[str, Interval]:
    """Returns the domains of a flow, by column names of a table."""
    if flow.domain is None or flow.event_shape != (len(table.columns),):
        return {}
    pairs = zip(table.columns, flow.domain.domains, strict=False)
    return {name: domain for name, domain in pairs if domain is not None}


def check_dtype(table: "Table", flow: Model) -> None:
    """Raises an error if the flow's dtype cannot hold or distinguish the values of a column."""
    dtype = _dtype_name(flow)
    for name, column in table.by_column.items():
        cast = torch.from_numpy(column.copy()).to(flow.dtype).double().numpy()
        if not np.isfinite(cast).all():
            raise DataError(
                f"column {name!r} holds values up to {np.abs(column).max():.3g}, which {dtype} "
                "cannot hold: measure it in another unit."
            )
        with np.errstate(over="ignore"):
            spread = column.std()
        if np.ptp(column) and np.abs(cast - column).max() > 0.05 * spread:
            raise DataError(
                f"column {name!r} varies by {spread:.3g} around {column.mean():.3g}, which "
                f"{dtype} cannot tell apart: store the difference from {column.mean():.6g} in "
                f"the data, leave the column out ({option('exclude', [name])}), or in Python give "
                "a float64 flow."
            )


def check_domains(table: "Table", flow: Model) -> None:
    """Raises an error for values outside of a domain, or values that round to an end."""
    domains, domain = domains_in(flow, table), flow.domain
    if domain is None:
        return
    clip_to_domain(table, domains)
    for index, name in enumerate(table.columns):
        if name not in domains:
            continue
        x = torch.tensor(domain.inside, dtype=flow.dtype).repeat(len(table), 1)
        x[:, index] = torch.from_numpy(table.values[:, index].copy()).to(flow.dtype)
        outside = domain.outside(x.to(flow.device)).cpu().numpy()
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise DataError(
                f"column {name!r} should lie {domains[name].description}, and "
                f"{_dtype_name(flow)} rounds {int(outside.sum()):,} of its "
                f"values to an end, such as {float(table.values[row, index])!r} in "
                f"{describe_rows(table, [row])[0]}: give 1 - x where x is next to 1, or use a "
                "float64 flow."
            )


def _dtype_name(flow: Model) -> str:
    return str(flow.dtype).removeprefix("torch.")


def _tensor(values: np.ndarray, flow: Model) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(flow.device, flow.dtype)
