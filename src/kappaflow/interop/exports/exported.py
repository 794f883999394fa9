"""Reads exported flows, folders that `kappaflow.export` wrote, for `wrap` and the doctor."""

import importlib.util
import io
import json
import logging
import math
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from kappaflow.errors import ArgumentError, FileError
from kappaflow.flows import Base, StandardNormal
from kappaflow.foreign.layers import Call, ForeignBase, ForeignLayer, Parts
from kappaflow.interop.exports import FUNCTIONS, NOTES, SUFFIXES, load_onnx, outputs
from kappaflow.linearization import Linearization
from kappaflow.reading import parse_json

MOST_DIFFERENCES = 1024  # features of a row whose Jacobian is formed by differences
NOT_CHECKED = (
    "errors of a log_det below 0.002 nats (programs in ONNX have no derivatives: Jacobians and "
    "singular values come from differences, with two or three digits)"
)
Shapes = dict[str, list[str | int]]


class _Metadata(BaseModel):
    """The part of the metadata of an exported function that is read back."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: Shapes
    outputs: Shapes
    dtype: Literal["float32", "float64"]
    base: str
    location: list[float]
    scale: list[float]
    columns: list[str] = Field(default_factory=list)
    context_columns: list[str] = Field(default_factory=list)


class ExportedFlow:
    """An exported flow, with the functions that its folder has.

    Args:
        programs: The loaded programs, by the names of their functions.
        metadata: The metadata of each function.
        differentiable: Whether the programs have derivatives, which those in ONNX lack.

    Attributes:
        columns: Names of the columns of x; empty if they were not given.
        context_columns: Names of the columns of the context.

    Raises:
        ArgumentError: `encode` or `decode` is missing.
    """

    def __init__(
        self, programs: dict[str, Any], metadata: dict[str, _Metadata], *, differentiable: bool
    ) -> None:
        missing = [name for name in ("encode", "decode") if name not in programs]
        if missing:
            raise ArgumentError(
                f"the folder should have the functions encode and decode, it has no {missing[0]}: "
                "export the flow again with both."
            )
        self._programs, self._metadata = programs, metadata
        self.differentiable = differentiable
        first = metadata["encode"]
        self.columns, self.context_columns = first.columns, first.context_columns
        self.dtype: torch.dtype = getattr(torch, first.dtype)
        self.base = first.base
        self.location, self.scale = (
            torch.tensor(numbers, dtype=self.dtype) for numbers in (first.location, first.scale)
        )
        self.event_shape = _event(next(iter(first.inputs.values())))
        self.latent_shape = _event(next(iter(first.outputs.values())))
        self.context_features = _event(first.inputs.get("context", ["batch", 0]))[0]

    def has(self, name: str) -> bool:
        """Returns whether a function was exported."""
        return name in self._programs

    def call(self, name: str, rows: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """Returns the outputs of a function."""
        given = (rows,) if context is None else (rows, context)
        return outputs(self._programs[name](*given))

    @property
    def samples_have_its_shape(self) -> bool:
        """Whether samples have the features that encode takes, and no more are joined to them."""
        shape = _event(self._metadata["sample"].outputs["x"]) if self.has("sample") else None
        return shape is None or math.prod(shape) == math.prod(self.event_shape)

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        """Returns n samples, (n, *event), for context rows (n, C) or None."""
        shape = _event(self._metadata["sample"].inputs["noise"])
        return self.call("sample", torch.randn(n, *shape, dtype=self.dtype), context)[0]


def is_exported(path: Path) -> bool:
    """Returns whether a path is an exported file, or a folder with exported files."""
    suffixes = tuple(SUFFIXES.values())
    if path.is_dir():
        return any((path / f"{name}{end}").is_file() for name in FUNCTIONS for end in suffixes)
    return path.suffix in suffixes


def read_exported(path: str | Path, *, trust: bool = False) -> ExportedFlow:
    """Returns the flow of a folder that `kappaflow.export` wrote, for `wrap` and `doctor`.

    ONNX Runtime runs .onnx files. They hold only operations of ONNX, and have no derivatives: the
    doctor measures singular values by differences.

    Args:
        path: The folder, or one of its files.
        trust: Whether .pt2 files come from a source that you trust: `torch.export.load` can run
            code from a file that was made to do so. Files in ONNX do not need it.

    Raises:
        ArgumentError: `trust` is False for .pt2 files, the folder has no `encode` or `decode`, or
            onnxruntime is not installed for .onnx files.
        FileError: A file is missing or damaged, or kappaflow did not write it.
    """
    given = Path(path)
    folder = given.parent if given.suffix in SUFFIXES.values() else given
    order = sorted(
        SUFFIXES.values(), key=lambda suffix: (suffix != given.suffix, suffix != ".pt2")
    )
    for suffix in order:
        files = {name: folder / f"{name}{suffix}" for name in FUNCTIONS}
        found = {name: file for name, file in files.items() if file.is_file()}
        if found:
            break
    else:
        raise FileError(f"{folder} holds no exported .pt2 or .onnx files.")
    onnx = suffix == SUFFIXES["onnx"]
    if onnx and importlib.util.find_spec("onnxruntime") is None:
        raise ArgumentError(
            f"{folder} holds programs in ONNX, which need onnxruntime: pip install "
            "'kappaflow[onnx]' installs it."
        )
    if not (onnx or trust):
        raise ArgumentError(
            f"{folder} holds exported programs, and loading one with torch.export.load can run "
            "code from the file: pass --trust if you trust its source."
        )
    programs, metadata = {}, {}
    for name, file in found.items():
        programs[name], metadata[name] = _loaded(file)
    return ExportedFlow(programs, metadata, differentiable=not onnx)


def _loaded(file: Path) -> tuple[Any, _Metadata]:
    """Returns a program and its metadata."""
    notes = ""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch logs a traceback for a damaged file
    try:
        with warnings.catch_warnings(action="ignore"):
            if file.suffix == SUFFIXES["onnx"]:
                program, notes = load_onnx(file)
            else:
                extra = {NOTES: ""}
                content = io.BytesIO(file.read_bytes())
                program = torch.export.load(content, extra_files=extra).module()
                notes = extra[NOTES]
    except Exception as error:  # torch and onnxruntime raise exceptions of many kinds
        text = " ".join(str(error).split())[:200]
        raise FileError(f"{file} cannot be loaded ({type(error).__name__}: {text}).") from None
    finally:
        logging.disable(disabled)
    try:
        return program, _Metadata.model_validate(parse_json(notes))
    except (json.JSONDecodeError, ValidationError, ValueError):
        raise FileError(f"{file} has no metadata of kappaflow: export the flow again.") from None


def _event(shape: Sequence[str | int]) -> tuple[int, ...]:
    """Returns the shape of one row of ["batch", *shape]."""
    return tuple(int(size) for size in shape[1:])


def parts_of(flow: ExportedFlow, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ARG001
    """Returns the exported functions as one layer, after one that removes the units of x."""
    places = (1,) * (len(flow.event_shape) - 1)
    location, scale = (one.view(-1, *places) for one in (flow.location, flow.scale))
    volume = scale.expand(flow.event_shape).log().sum()

    def encode_scaled(rows: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = flow.call("encode", rows * scale + location, given)
        return z, log_det + volume

    def decode_scaled(z: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        rows, log_det = flow.call("decode", z, given)
        return (rows - location) / scale, log_det - volume

    shapes = flow.event_shape, flow.latent_shape
    units = ForeignLayer(
        "units",
        lambda rows, _: ((rows - location) / scale, -volume),
        lambda rows, _: (rows * scale + location, volume),
        (flow.event_shape, flow.event_shape),
    )
    units.is_standardization = True
    kind = ForeignLayer if flow.differentiable else _OnnxLayer
    whole = kind("exported flow", encode_scaled, decode_scaled, shapes, flow.context_features)
    own = {name for name in ("log_prob", "sample") if flow.has(name)}
    own = own if flow.samples_have_its_shape else set()
    return Parts(
        "kappaflow.export",
        [units, whole],
        _base_of(flow),
        log_prob=(lambda rows, given: flow.call("log_prob", rows, given)[0])
        if "log_prob" in own
        else None,
        sample=(lambda n, given: (flow.draw(n, given), None)) if "sample" in own else None,
        like=torch.zeros(1, dtype=flow.dtype),
        not_checked="" if flow.differentiable else NOT_CHECKED,
    )


class _OnnxLayer(ForeignLayer):
    """A layer without derivatives, whose Jacobians are formed by differences."""

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        if x[0].numel() > MOST_DIFFERENCES:
            raise ArgumentError(
                f"a flow in ONNX should have at most {MOST_DIFFERENCES} features to be examined, "
                f"got {x[0].numel()}: export it with --format torch."
            )
        return _DifferenceLinearization(self, x, context)


class _DifferenceLinearization(Linearization):
    """The four products with Jacobians from central differences of both directions."""

    def __init__(self, layer: ForeignLayer, x: Tensor, context: Tensor | None) -> None:
        self._layer, self._x, self._context = layer, x, context
        self.value, self.log_det = layer(x, context)

    @cached_property
    def _jacobian(self) -> Tensor:
        return _jacobian(self._layer.forward, self._x, self._context)

    @cached_property
    def _inverse_jacobian(self) -> Tensor:
        return _jacobian(self._layer.inverse, self.value, self._context)

    def jv(self, v: Tensor) -> Tensor:
        return _product(self._jacobian, v, self.value)

    def vjp(self, u: Tensor) -> Tensor:
        return _product(self._jacobian.mT, u, self._x)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return _product(self._inverse_jacobian, w, self._x)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return _product(self._inverse_jacobian.mT, y, self.value)


def _jacobian(call: Call, x: Tensor, context: Tensor | None) -> Tensor:
    """Returns the Jacobians of a function by central differences, (B, outputs, inputs)."""
    n = x[0].numel()
    step = torch.finfo(x.dtype).eps ** (1 / 3)
    steps = step * torch.eye(n, dtype=x.dtype).view(n, 1, *x.shape[1:])
    given = None if context is None else context.repeat(n, 1)
    plus, minus = (at.flatten(0, 1) for at in (x + steps, x - steps))
    difference = (call(plus, given)[0] - call(minus, given)[0]).view(n, len(x), -1)
    taken = (plus - minus).view(n, len(x), n).diagonal(dim1=0, dim2=2)  # after rounding, (B, n)
    return difference.permute(1, 2, 0) / taken[:, None]


def _product(matrices: Tensor, v: Tensor, like: Tensor) -> Tensor:
    """Returns matrices (B, M, N) times vectors (B, ...) or (K, B, ...), in the shape of `like`."""
    batch = v.shape[: v.dim() - like.dim() + 1]
    columns = v.reshape(*batch, -1, 1)
    return (matrices @ columns).reshape(*batch, *like.shape[1:])


def _base_of(flow: ExportedFlow) -> Base:
    """Returns the base; one other than the standard normal by the functions of the flow."""
    if flow.base == StandardNormal.__name__:
        return StandardNormal(flow.latent_shape)
    if not (flow.has("log_prob") and flow.has("sample")):
        raise ArgumentError(
            f"the folder should have the functions log_prob and sample for the base {flow.base}: "
            "export the flow again with all functions."
        )

    def log_prob(z: Tensor, given: Tensor | None) -> Tensor:
        rows, log_det = flow.call("decode", z, given)
        return flow.call("log_prob", rows, given)[0] + log_det

    def sample(n: int, given: Tensor | None) -> Tensor:
        return flow.call("encode", flow.draw(n, given), given)[0]

    return ForeignBase(flow.latent_shape, log_prob, sample)
