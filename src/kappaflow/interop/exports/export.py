"""`export`: writes the functions of a flow as programs, and compares them with the flow."""

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from kappaflow._checks import one_of
from kappaflow.errors import ArgumentError, KappaflowError, NumericalError
from kappaflow.flows import Flow
from kappaflow.interop.exports.functions import (
    FUNCTIONS,
    FlowFunction,
    RandomRows,
    describe_functions,
)
from kappaflow.interop.exports.programs import Call, Program, check_onnx, outputs, quiet
from kappaflow.options import ExportFormat
from kappaflow.stack import CouplingStack
from kappaflow.storage import atomic_directory

MARGIN = 20  # differences that rounding allows, in multiples of the rounding error of the flow


@dataclass(frozen=True, repr=False)
class Exported:
    """The result of `export`.

    Attributes:
        path: The folder, with one file for each function.
        format: "torch" or "onnx".
        functions: The functions that were written.
        differences: The largest absolute difference from the flow on random rows, by function.
        round_trip: Largest absolute error of decode(encode(x)); None without both functions.
        left_out: Why a function was not written, by the names of these functions.
    """

    path: Path
    format: ExportFormat
    functions: tuple[str, ...]
    differences: dict[str, float]
    round_trip: float | None
    left_out: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [f"{name} {error:.1e}" for name, error in self.differences.items()]
        if self.round_trip is not None:
            parts.append(f"round trip {self.round_trip:.1e}")
        missing = f"; without {', '.join(self.left_out)}" if self.left_out else ""
        return f"Exported({str(self.path)!r}, {self.format}: {', '.join(parts)}{missing})"


def export(
    flow: Flow,
    path: str | Path,
    *,
    format: ExportFormat = "torch",
    functions: Sequence[str] | None = None,
    columns: Sequence[str] = (),
    context_columns: Sequence[str] = (),
) -> Exported:
    """Writes the functions of a flow as programs that run without kappaflow.

    The folder has one file for each function, such as `log_prob.pt2`, each with the weights of the
    flow. `torch.export.load` reads a .pt2 file, and ONNX Runtime reads an .onnx file. The programs
    take batches of any size. A conditional flow takes the context as the second input:

    - `log_prob(x)` returns log p(x) in nats, (B,).
    - `sample(noise)` returns samples (B, *event) for standard normal noise (B, *noise).
    - `encode(x)` returns z and log|det dz/dx|, (B,).
    - `decode(z)` returns x and log|det dx/dz|, (B,).

    If the flow adds padding or pixel noise, `encode` takes and `decode` returns points joined with
    it. Then there is no `log_prob` if it is a bound that is estimated with random numbers.

    Before the folder appears, every file is run on random rows and compared with the flow. Each
    file holds metadata as JSON: columns, domains, shapes and the version of kappaflow. A function
    that cannot be exported is not written; `left_out` of the result has the reason.

    Args:
        flow: The flow, in float32 or float64. Its copy in evaluation mode is exported.
        path: The new folder.
        format: "torch" for programs of `torch.export`, or "onnx", which needs
            pip install 'kappaflow[onnx]'.
        functions: Names of functions; None for all.
        columns: Names of the columns of x, for the metadata.
        context_columns: Names of the columns of the context, for the metadata.

    Returns:
        The names of what was written, and the differences from the flow.

    Raises:
        ArgumentError: The folder exists, an argument is out of its range, or no function can be
            exported.
        NumericalError: The program of each function differs from the flow by more than rounding,
            or decode(encode(x)) differs from x by more.

    Example:
        >>> import tempfile, kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = kf.export(flow, folder + "/flow", functions=["encode"])
        ...     program = torch.export.load(folder + "/flow/encode.pt2").module()
        >>> program(torch.zeros(5, 2))[0].shape
        torch.Size([5, 2])
    """
    folder = Path(path)
    one_of("format", format, get_args(ExportFormat))
    names = FUNCTIONS if functions is None else tuple(dict.fromkeys(functions))
    for name in names:
        one_of("functions", name, FUNCTIONS)
    eval_flow = _copy(flow)
    _check_columns(eval_flow, columns, context_columns)
    if os.path.lexists(folder):
        raise ArgumentError(f"'path' should be a new folder, {folder} exists already.")
    if format == "onnx":
        check_onnx()
    programs: dict[str, Program] = {}
    errors: dict[str, KappaflowError] = {}
    with quiet(), torch.no_grad():
        rows = RandomRows(eval_flow)
        plain = _without_stacks(copy.deepcopy(eval_flow))
        for name in names:
            try:
                programs[name] = Program(plain, name, rows, format)
            except ArgumentError as error:
                errors[name] = error
        comparison = ProgramComparison(eval_flow, rows)
        with atomic_directory(folder) as target:
            while True:  # each file names the functions of all
                metadata = describe_functions(
                    eval_flow, tuple(programs), format, columns, context_columns
                )
                failed = comparison.write(programs, target, metadata)
                if not failed:
                    break
                errors |= failed
                for name in failed:
                    (target / programs.pop(name).file).unlink(missing_ok=True)
            if not programs:
                raise _nothing_written(errors)
            round_trip = comparison.round_trip()
    reasons = {name: str(error) for name, error in errors.items()}
    differences = {name: comparison.differences[name] for name in programs}
    return Exported(folder, format, tuple(programs), differences, round_trip, reasons)


def _nothing_written(errors: dict[str, KappaflowError]) -> KappaflowError:
    """Returns the error of an export without a function that can be written."""
    if not errors:
        return ArgumentError("'functions' should not be empty.")
    first, *others = errors.values()
    return type(first)(" ".join(map(str, (first, *others))))


def _copy(flow: object) -> Flow:
    """Returns a copy of a flow on the CPU, in evaluation mode and without gradients."""
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    if flow.dtype not in {torch.float32, torch.float64}:
        raise ArgumentError(
            f"'flow' should be in float32 or float64, got {flow.dtype}: call flow.float() first."
        )
    return copy.deepcopy(flow).cpu().eval().requires_grad_(False)


def _without_stacks(flow: Flow) -> Flow:
    """Returns a flow with plain couplings for its stacks: their programs are shorter."""
    for module in list(flow.modules()):
        for name, child in module.named_children():
            if isinstance(child, CouplingStack):
                setattr(module, name, child.to_chain())
    return flow


def _check_columns(flow: Flow, columns: Sequence[str], context_columns: Sequence[str]) -> None:
    expected = math.prod(flow.event_shape)
    for name, titles, width in (
        ("columns", columns, expected),
        ("context_columns", context_columns, flow.context_features),
    ):
        if titles and len(titles) != width:
            raise ArgumentError(f"'{name}' should have {width} names, got {len(titles)}.")


class ProgramComparison:
    """Writes programs and compares them with the flow.

    The rounding error of the flow, which grows with its conditioning, is the difference between
    its values in float32 and in float64. It bounds the differences that are allowed.
    """

    def __init__(self, flow: Flow, rows: RandomRows) -> None:
        self._flow, self._rows, self._calls = flow, rows, {}
        self._narrow, self._wide = copy.deepcopy(flow).float(), copy.deepcopy(flow).double()
        self._eps = torch.finfo(flow.dtype).eps
        self.differences: dict[str, float] = {}

    def write(
        self, programs: dict[str, Program], folder: Path, metadata: dict[str, Any]
    ) -> dict[str, KappaflowError]:
        """Returns the errors of programs that cannot be written, after writing the others."""
        failed: dict[str, KappaflowError] = {}
        self._calls = {}
        for name, program in programs.items():
            try:
                program.write(folder, metadata)
                call = program.load(folder)
                self.differences[name] = self._difference(name, call)
                self._calls[name] = call
            except (ArgumentError, NumericalError) as error:
                failed[name] = error
        return failed

    def _difference(self, name: str, call: Call) -> float:
        """Returns the largest difference of a program from the flow, also for a single row."""
        rows = self._rows.of(name)
        values = outputs(FlowFunction(self._flow, name)(*rows))
        near = outputs(FlowFunction(self._narrow, name)(*(each.float() for each in rows)))
        exact = outputs(FlowFunction(self._wide, name)(*(each.double() for each in rows)))
        first = call(*(each[:1].contiguous() for each in rows))
        largest = 0.0
        for result, alone, value, a, b in zip(
            call(*rows), first, values, near, exact, strict=True
        ):
            error = max(_largest(result, value), _largest(alone, value[:1]))
            what = f"{name!r} cannot be exported: the program differs from the flow"
            _check(error, self._allowed(_largest(a, b), _size(b)), what)
            largest = max(largest, error)
        return largest

    def round_trip(self) -> float | None:
        """Returns the largest error of decode(encode(x)); None without both functions."""
        if not {"encode", "decode"} <= set(self._calls):
            return None
        joined, *context = self._rows.of("encode")
        back = self._calls["decode"](self._calls["encode"](joined, *context)[0], *context)[0]
        narrow = [each.float() for each in (joined, *context)]
        latent = self._narrow.bijection(*narrow)[0]
        narrow_inverse = self._narrow.bijection.inverse(latent, *narrow[1:])[0]
        error = _largest(back, joined)
        allowed = self._allowed(_largest(narrow_inverse, narrow[0]), _size(joined))
        _check(error, allowed, "decode(encode(x)) of the exported programs differs from x")
        return error

    def _allowed(self, rounding: float, size: float) -> float:
        scale = self._eps / torch.finfo(torch.float32).eps
        return MARGIN * (scale * rounding + self._eps * max(1.0, size))


def _check(error: float, allowed: float, what: str) -> None:
    if not error <= allowed:  # true for NaN too
        raise NumericalError(
            f"{what} by {error:.1e}, and rounding explains {allowed:.1e}. Please report this flow."
        )


def _largest(first: Tensor, second: Tensor) -> float:
    """Returns the largest absolute difference; equal infinities differ by 0."""
    a, b = first.double(), second.double()
    return torch.where(a == b, 0.0, (a - b).abs()).max().item()


def _size(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0
