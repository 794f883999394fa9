"""Columns of arrays, tensors and data frames."""

import decimal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kappaflow.data.raw import INDEX_NAMES, Column, RawTable, collect
from kappaflow.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import narwhals as nw

NUMBERS = (int, float, np.number, decimal.Decimal)


def read_memory(source: object) -> RawTable:
    """Returns the columns of an array, a tensor or a data frame; the error names another type."""
    if isinstance(source, np.ndarray):
        return collect(array_columns(source, "the array"), "the array", "the array")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        return collect(
            array_columns(_tensor_array(source), "the tensor"), "the tensor", "the tensor"
        )
    return _read_frame(source)


def _tensor_array(tensor: Any) -> NDArray[Any]:  # torch is not imported here
    """Returns a tensor as an array; bfloat16, which numpy lacks, by way of float64."""
    try:
        dense = tensor.detach().to_dense().cpu()
        return (dense.double() if dense.is_floating_point() else dense).numpy()
    except (TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(f"'source' is a tensor without readable numbers: {reason}") from None


def _read_frame(source: object) -> RawTable:
    import narwhals as nw

    subject = "the data frame"
    try:
        frame: Any = nw.from_native(source, allow_series=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
        if isinstance(frame, nw.Series):
            frame = frame.to_frame()
        elif isinstance(frame, nw.LazyFrame):
            frame = frame.collect()
        return from_frame(frame, subject, subject)
    except TypeError:
        raise ArgumentError(
            "'source' should be a path, the name of a shipped data set, a data frame, an array "
            f"or a tensor, got {type(source).__name__}."
        ) from None
    except nw.exceptions.DuplicateError:
        raise DataError(
            f"{subject} has several columns of the same name: rename them, so that each name "
            "stands for one column."
        ) from None


def array_columns(array: NDArray[Any], subject: str, name: str | None = None) -> list[Column]:
    """Returns the columns of an array: x0, x1, ..., or name0, name1, ..., or its own fields."""
    if array.dtype.names is not None and array.ndim == 1:
        return [_column(field, array[field], subject) for field in array.dtype.names]
    if array.ndim == 1:
        return [_column(name or "x0", array, subject)]
    if array.ndim != 2:
        raise DataError(
            f"{subject} has shape {array.shape}: reshape it to two axes, (rows, columns)."
        )
    stem = name or "x"
    return [_column(f"{stem}{index}", part, subject) for index, part in enumerate(array.T)]


def _column(name: str, values: NDArray[Any], subject: str) -> Column:
    """Returns one axis of numbers, truth values or text as a column."""
    import narwhals as nw
    import polars as pl

    if values.ndim != 1 or values.dtype.kind in "OcV":
        kind = {"c": "complex numbers", "O": "Python objects"}.get(values.dtype.kind)
        raise DataError(
            f"{subject} holds {kind or f'entries of type {values.dtype}'}, not real numbers: give "
            "an array of floats or integers."
        )
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f" and values.dtype != np.float32:
        values = values.astype(np.float64)
    if values.dtype.kind in "SMm":
        values = values.astype(str)
    series = pl.Series(name, np.ascontiguousarray(values))
    return Column(name, nw.from_native(series, series_only=True), origin="array")


def from_frame(frame: "nw.DataFrame[Any]", source: str, subject: str) -> RawTable:
    """Returns the columns of an eager narwhals frame."""
    import narwhals as nw

    columns = [
        Column(
            str(name),
            series := _plain(frame.get_column(name)),
            origin="frame",
            is_index=str(name) in INDEX_NAMES and series.dtype.is_integer(),
        )
        for name in frame.columns
    ]
    raw = collect(columns, source, subject)
    index = nw.maybe_get_index(frame)
    if index is None:
        return raw
    numeric = getattr(index, "dtype", None) is not None and index.dtype.kind in "iuf"
    return replace(raw, labels=np.asarray(index) if numeric else np.asarray(index, dtype=object))


def _plain(series: "nw.Series[Any]") -> "nw.Series[Any]":
    """Returns a column of Python numbers as one of floats, and any other unchanged."""
    import narwhals as nw
    import polars as pl

    if series.dtype != nw.Object:
        return series
    gaps = series.is_null().to_numpy()
    values = [None if gap else value for value, gap in zip(series.to_list(), gaps, strict=True)]
    kept = [value for value in values if value is not None]
    if not kept or any(isinstance(v, bool) or not isinstance(v, NUMBERS) for v in kept):
        return series
    floats = [None if value is None else float(value) for value in values]
    return nw.from_native(pl.Series(floats, dtype=pl.Float64), series_only=True)
