"""Rows and contexts in every form that `fit` accepts, as tensors for a flow; samples as frames."""

import re
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from kappaflow._checks import one_of
from kappaflow.errors import ArgumentError
from kappaflow.flows.parts import FlowParts

if TYPE_CHECKING:
    from kappaflow.data import Table

#: A tensor or an array of real numbers, a data frame, a `Table`, or the path of a table.
Data = Any
AsFrame = bool | Literal["pandas", "polars"]
Pair = tuple[Tensor, Tensor | None]
PLAIN = (Tensor, np.ndarray)
UNNAMED = re.compile(r"(?:context_)?x(\d+)")  # as `load_table` names the columns of an array


def plain_tensors(flow: FlowParts | None, x: Data, context: Data = None) -> Pair:
    """Returns rows and contexts of any kind as tensors, in the dtype that they have.

    If the flow has names, columns are selected by name, and a frame that has the columns of the
    context also serves as the context. What is not a tensor is moved to the device of the flow.
    """
    names = () if flow is None else flow.columns
    context_names = () if flow is None else flow.context_columns
    if not isinstance(x, PLAIN):
        table = read_rows("x", x, context_names)
        if context is None and table.context is not None:
            context = table.context
        elif context is None and context_names and {*context_names} <= {*table.columns}:
            context = _selected("context", table, context_names)
        x = _selected("x", table, names)
    if context is not None and not isinstance(context, PLAIN):
        rows = read_rows("context", context, context_names)
        context = _selected("context", rows, context_names)
    return _tensor("x", x, flow), None if context is None else _tensor("context", context, flow)


def tensors_for(flow: FlowParts, x: Data, context: Data = None) -> Pair:
    """Returns rows and contexts of any kind as tensors in the dtype of the flow."""
    x, context = plain_tensors(flow, x, context)
    return _cast("x", x, flow), None if context is None else _cast("context", context, flow)


def flatten_batch(
    flow: FlowParts, x: Data, context: Data
) -> tuple[torch.Size, Tensor, Tensor | None]:
    """Returns the batch shape, and x and context as tensors with one batch dimension."""
    event = flow.event_shape
    x, context = tensors_for(flow, x, context)
    batch_shape = x.shape[: x.dim() - len(event)]
    if x.shape[len(batch_shape) :] != torch.Size(event):
        raise ArgumentError(
            f"'x' should have shape (..., {', '.join(map(str, event))}), got {tuple(x.shape)}."
        )
    check_device("x", x, flow)
    context = checked_context(flow, context)
    if context is not None:
        try:
            # torch.broadcast_shapes would import sympy, which takes half a second.
            batch_shape = (x.new_empty(batch_shape) + context[..., 0]).shape
        except RuntimeError:
            raise ArgumentError(
                f"'context' should have leading shape {tuple(batch_shape)} as 'x' does, or one "
                f"that broadcasts with it, got {tuple(context.shape[:-1])}."
            ) from None
        context = context.expand(*batch_shape, -1).reshape(-1, context.shape[-1])
    return batch_shape, x.expand(*batch_shape, *event).reshape(-1, *event), context


def checked_context(flow: FlowParts, context: Data) -> Tensor | None:
    """Returns a context of any kind as a tensor; raises as `flatten_batch` does."""
    width = flow.context_features
    if context is None and width:
        names = f": {', '.join(flow.context_columns)}" if flow.context_columns else ""
        raise ArgumentError(
            f"'context' should be given, with {width} column{'s' if width > 1 else ''}{names}: "
            "this flow is conditional."
        )
    if context is None:
        return None
    if not width:
        raise ArgumentError("'context' should be left out: this flow is not conditional.")
    if not isinstance(context, PLAIN):
        names = flow.context_columns
        context = _selected("context", read_rows("context", context, names), names)
    context = _cast("context", _tensor("context", context, flow), flow)
    if context.dim() < 1 or context.shape[-1] != width:
        raise ArgumentError(
            f"'context' should have shape (..., {width}), got {tuple(context.shape)}."
        )
    check_device("context", context, flow)
    return context


def describe_gaps(x: Tensor, context: Tensor | None) -> str | None:
    """Returns a note on the rows (B, *event) that are not finite; None if all are."""
    parts = [x.flatten(1)] if context is None else [x.flatten(1), context]
    if all(bool(part.isfinite().all()) for part in parts):
        return None
    missing = torch.stack([part.isnan().any(1) for part in parts]).any(0)
    infinite = torch.stack([part.isinf().any(1) for part in parts]).any(0) & ~missing
    dtype = str(x.dtype).removeprefix("torch.")
    clauses = [
        f"{int(rows.sum()):,} of {len(x):,} rows hold {what}"
        for rows, what in (
            (missing, "NaN, and their log_prob is NaN"),
            (infinite, f"a number that is infinite in {dtype}, and their log_prob is NaN or -inf"),
        )
        if rows.any()
    ]
    return "; ".join(clauses)


def check_device(name: str, value: Tensor, flow: FlowParts) -> None:
    """Raises ArgumentError for a tensor on another device than the flow."""
    if value.device != flow.device:
        raise ArgumentError(
            f"'{name}' should be on the flow's device {flow.device}, got {value.device}: "
            f"move it with {name}.to(flow.device)."
        )


def name_columns(
    flow: FlowParts, columns: Sequence[str] | None, context_columns: Sequence[str] | None
) -> None:
    """Gives a flow the names of its columns; those of a whole array (x0, x1, ...) are none."""
    flow.columns, flow.context_columns = (
        () if _are_counted(names or ()) else tuple(names or ())
        for names in (columns, context_columns)
    )


def _are_counted(names: Sequence[str]) -> bool:
    """Returns whether names only number all columns of an array."""
    matches = [UNNAMED.fullmatch(name) for name in names]
    return all(match and int(match[1]) == i for i, match in enumerate(matches))


def describe_column(names: Sequence[str], index: int) -> str:
    """Returns "column 'mass'", or "column 2", counted from 0, without names."""
    return f"column {names[index]!r}" if names else f"column {index}"


def frame_of(flow: FlowParts, samples: Tensor, context: Tensor | None, kind: AsFrame) -> Any:
    """Returns samples, (*batch, D), with contexts as a frame: of pandas if True and installed."""
    if len(flow.event_shape) != 1:
        raise ArgumentError("'as_frame' should be False for a flow of images.")
    one_of("as_frame", kind, (True, "pandas", "polars"))
    library = kind if isinstance(kind, str) else "pandas" if find_spec("pandas") else "polars"
    if not find_spec(library):
        raise ArgumentError(f"'as_frame' is {library!r}, which is not installed.")
    names = flow.columns or tuple(f"x{i}" for i in range(flow.event_shape[0]))
    if context is not None:
        width = context.shape[-1]
        names += flow.context_columns or tuple(f"context_{i}" for i in range(width))
        samples = torch.cat([samples, context.expand(*samples.shape[:-1], width)], dim=-1)
    values = samples.reshape(-1, len(names)).detach().cpu().T.numpy()
    columns = dict(zip(names, values, strict=True))
    if context is not None:
        from kappaflow.data.labels import labels_of  # it loads polars

        columns = labels_of(columns)
    return import_module(library).DataFrame(columns)


def read_rows(argument: str, source: Data, names: Sequence[str] = ()) -> "Table":
    """Returns all columns of numbers of a frame, a table or a file.

    `names` are columns that are needed: those of labels, such as region=north, are made of texts.
    """
    from kappaflow.data.labels import split_name  # these load polars
    from kappaflow.data.load import Reading, read_source, table_of
    from kappaflow.data.table import Table

    if isinstance(source, Table):
        return source
    kind = type(source)
    if not (
        isinstance(source, str | PathLike) or hasattr(kind, "columns") or hasattr(kind, "to_frame")
    ):
        raise ArgumentError(
            f"'{argument}' should be a tensor, an array, a data frame or a path, got "
            f"{kind.__name__}."
        )
    raw = read_source(source, Reading(every=True, purpose="score"))
    labels = [name for name in names if split_name(name, raw) is not None]
    numbers = [name for name, column in raw.columns.items() if column.is_number]
    columns = (*numbers, *labels) if labels else None
    return table_of(raw, Reading(columns, every=True, purpose="score"))


def _selected(argument: str, table: "Table", names: Sequence[str]) -> np.ndarray:
    """Returns the named columns of a table; all modeled ones without names."""
    if not names:
        return table.values
    lacking = [name for name in names if name not in table.all_columns]
    if lacking:
        raise ArgumentError(
            f"'{argument}' should have the columns of the flow, {', '.join(names)}; "
            f"{table.source} has no numbers named {', '.join(lacking)}."
        )
    return table.all_values[:, [table.all_columns.index(name) for name in names]]


def _tensor(argument: str, values: Tensor | np.ndarray, flow: FlowParts | None) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor if flow is None else tensor.to(flow.device)
    except TypeError:
        raise ArgumentError(
            f"'{argument}' should hold numbers, got an array of {values.dtype}."
        ) from None


def _cast(argument: str, value: Tensor, flow: FlowParts) -> Tensor:
    if value.dtype == flow.dtype:
        return value
    if value.is_complex():
        raise ArgumentError(f"'{argument}' should hold real numbers, got {value.dtype}.")
    if value.dtype == torch.bool:
        raise ArgumentError(
            f"'{argument}' should hold numbers, got {value.dtype}: call {argument}.float() first."
        )
    return value.to(flow.dtype)
