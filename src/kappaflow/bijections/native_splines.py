"""Splines by the native backend, for float32 points on the CPU; see `spline` for the formulas."""

import ctypes
from functools import cached_property

import torch
from torch import Tensor

from kappaflow.autograd.checkpoint import is_traced
from kappaflow.bijections.spline_shape import SplineShape
from kappaflow.native import Library, library

MOST_BINS = 64  # as in splines.c
POINTS = 2048  # smallest number of points for a thread


def library_for(points: Tensor, raw: Tensor, shape: SplineShape) -> Library | None:
    """Returns the library that evaluates splines at these points; None where Python code does."""
    if torch.compiler.is_compiling() or is_traced(points) or shape.bins > MOST_BINS:
        return None
    fits = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (points, raw))
    return library() if fits else None


class NativePieces:
    """Computes what `Pieces` does, apart from second derivatives."""

    def __init__(
        self,
        library: Library,
        points: Tensor,
        raw: Tensor,
        shape: SplineShape,
        *,
        is_output: bool = False,
    ) -> None:
        self._library, self._shape, self._is_output = library, shape, is_output
        self._points = points.detach().contiguous()
        expected = (len(points), shape.parameters, *points.shape[1:])  # the library checks nothing
        self._raw = raw.detach().expand(expected).contiguous()

    @property
    def x(self) -> Tensor:
        """The inputs of the splines."""
        return self._values[0] if self._is_output else self._points

    @property
    def y(self) -> Tensor:
        """The outputs of the splines."""
        return self._points if self._is_output else self._values[0]

    @property
    def log_det(self) -> Tensor:
        """The log_det of the splines, (B,)."""
        return self._values[1]

    def pulled_back(self, cotangent: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the cotangents of x and raw, given those of y and of the log_det."""
        by_x, by_raw = torch.empty_like(self._points), torch.empty_like(self._raw)
        by_y, by_rows = cotangent.expand_as(by_x), rows.expand(len(by_x))
        by_y, by_rows = (t.to(by_x.dtype).contiguous() for t in (by_y, by_rows))
        self._run(by_y=by_y, by_rows=by_rows, by_x=by_x, by_raw=by_raw)
        return by_x, by_raw

    @cached_property
    def _values(self) -> tuple[Tensor, Tensor]:
        values = torch.empty_like(self._points)
        log_det = values.new_zeros(len(values))
        self._run(values=values, log_det=log_det)
        return values, log_det

    def _run(self, **tensors: Tensor) -> None:
        """Calls the library with these results, and cotangents if there are any."""
        library, shape, rows = self._library, self._shape, len(self._points)
        if not self._points.numel():
            return
        columns = self._points[0].numel()
        arguments = _Splines(
            columns=columns,
            bins=shape.bins,
            bound=shape.bound,
            min_bin=shape.min_bin,
            slope_bound=shape.slope_bound,
            is_output=self._is_output,
            points=self._points.data_ptr(),
            raw=self._raw.data_ptr(),
            **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        )
        loop, least = library.parallel_for, max(1, POINTS // columns)
        if loop is None or rows <= least or torch.get_num_threads() == 1:
            call, numbers = library.functions.splines, (0, rows)
        else:
            call, numbers = library.functions.splines_in_parallel, (loop, rows, least)
        call(*map(ctypes.c_int64, numbers), ctypes.byref(arguments))


class _Splines(ctypes.Structure):
    """The arguments of splines.c."""

    _fields_ = [
        ("columns", ctypes.c_int64),
        ("bins", ctypes.c_int64),
        ("bound", ctypes.c_double),
        ("min_bin", ctypes.c_double),
        ("slope_bound", ctypes.c_double),
        ("is_output", ctypes.c_int64),
        *(
            (name, ctypes.c_void_p)
            for name in "points raw by_y by_rows values log_det by_x by_raw".split()
        ),
    ]
