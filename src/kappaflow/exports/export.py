"""`export`: writes the functions of a flow as programs, and compares them with the flow."""

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from kappaflow._checks import one_of
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.exports.functions import (
    FUNCTIONS,
    FlowFunction,
    RandomRows,
    describe_functions,
)
from kappaflow.exports.programs import Program, check_onnx, outputs, quiet
from kappaflow.flows import Flow
from kappaflow.options import ExportFormat
from kappaflow.stack import CouplingStack
from kappaflow.storage import whole_directory

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
        left_out: Why a function was left out, by the names of these functions.
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
    format: ExportFormat = "torch",  # noqa: A002
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
    file holds metadata as JSON: columns, domains, shapes and the version of kappaflow.

    Args:
        flow: The flow, in float32 or float64. Its copy in evaluation mode is exported.
        path: The new folder.
        format: "torch" for programs of `torch.export`, or "onnx", which needs
            pip install 'kappaflow[onnx]'.
        functions: Names of functions; None for all that can be exported.
        columns: Names of the columns of x, for the metadata.
        context_columns: Names of the columns of the context, for the metadata.

    Returns:
        The names of what was written, and the differences from the flow.

    Raises:
        ArgumentError: The folder exists, an argument is out of its range, no function can be
            exported, or one in `functions` cannot.
        NumericalError: A program differs from the flow by more than rounding.

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
    wanted = FUNCTIONS if functions is None else tuple(dict.fromkeys(functions))
    for name in wanted:
        one_of("functions", name, FUNCTIONS)
    own = _copy(flow)
    _check_columns(own, columns, context_columns)
    if os.path.lexists(folder):
        raise ArgumentError(f"'path' should be a new folder, {folder} exists already.")
    if format == "onnx":
        check_onnx()
    found: dict[str, Program] = {}
    left_out: dict[str, str] = {}
    with quiet(), torch.no_grad():
        rows = RandomRows(own)
        plain = _without_stacks(copy.deepcopy(own))
        for name in wanted:
            try:
                found[name] = Program(plain, name, rows, format)
            except ArgumentError as error:
                if functions is not None:
                    raise
                left_out[name] = str(error)
        if not found:
            raise ArgumentError(next(iter(left_out.values()), "'functions' should not be empty."))
        about = describe_functions(own, rows, tuple(found), format, columns, context_columns)
        with whole_directory(folder) as place:
            for program in found.values():
                program.write(place, about)
            differences, round_trip = _compare(own, rows, found, place)
    return Exported(folder, format, tuple(found), differences, round_trip, left_out)


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
    for name, given, width in (
        ("columns", columns, expected),
        ("context_columns", context_columns, flow.context_features),
    ):
        if given and len(given) != width:
            raise ArgumentError(f"'{name}' should have {width} names, got {len(given)}.")


def _compare(
    flow: Flow, rows: RandomRows, programs: dict[str, Program], place: Path
) -> tuple[dict[str, float], float | None]:
    """Returns the largest difference of each function, and the error of the round trip.

    The rounding error of the flow, which grows with its conditioning, is the difference between
    its values in float32 and in float64. It bounds the differences that are allowed.
    """
    narrow, wide = copy.deepcopy(flow).float(), copy.deepcopy(flow).double()
    eps = torch.finfo(flow.dtype).eps
    scale = eps / torch.finfo(torch.float32).eps
    calls = {name: program.load(place) for name, program in programs.items()}
    differences: dict[str, float] = {}
    for name, call in calls.items():
        given = rows.of(name)
        values = outputs(FlowFunction(flow, name)(*given))
        near = outputs(FlowFunction(narrow, name)(*(one.float() for one in given)))
        exact = outputs(FlowFunction(wide, name)(*(one.double() for one in given)))
        first = call(*(one[:1].contiguous() for one in given))  # a batch of one row
        differences[name] = 0.0
        for found, alone, value, a, b in zip(
            call(*given), first, values, near, exact, strict=True
        ):
            allowed = MARGIN * (scale * _largest(a, b) + eps * max(1.0, _size(b)))
            error = max(_largest(found, value), _largest(alone, value[:1]))
            _check(error, allowed, f"the exported {name!r} differs from the flow")
            differences[name] = max(differences[name], error)
    if not {"encode", "decode"} <= set(calls):
        return differences, None
    joined, *context = rows.of("encode")
    back = calls["decode"](calls["encode"](joined, *context)[0], *context)[0]
    own = narrow.bijection.inverse(
        narrow.bijection(joined.float(), *(one.float() for one in context))[0],
        *(one.float() for one in context),
    )[0]
    error = _largest(back, joined)
    allowed = MARGIN * (scale * _largest(own, joined.float()) + eps * max(1.0, _size(joined)))
    _check(error, allowed, "decode(encode(x)) of the exported programs differs from x")
    return differences, error


def _check(error: float, allowed: float, what: str) -> None:
    if not error <= allowed:  # true for NaN too
        raise NumericalError(
            f"{what} by {error:.1e}, and rounding explains {allowed:.1e}: no file was written. "
            "Please report this flow."
        )


def _largest(one: Tensor, other: Tensor) -> float:
    """Returns the largest absolute difference; equal infinities differ by 0."""
    a, b = one.double(), other.double()
    return torch.where(a == b, 0.0, (a - b).abs()).max().item()


def _size(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0
