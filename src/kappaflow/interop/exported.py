"""Reads exported flows, folders that `kappaflow.export` wrote, for `wrap` and the doctor."""

import io
import json
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from kappaflow.errors import ArgumentError, FileError
from kappaflow.exports import FUNCTIONS, NOTES, SUFFIXES, outputs
from kappaflow.flows import Base, StandardNormal
from kappaflow.interop.foreign import ForeignBase, ForeignLayer, Parts
from kappaflow.reading import parse_json

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

    Attributes:
        columns: Names of the columns of x; empty if they were not given.
        context_columns: Names of the columns of the context.

    Raises:
        ArgumentError: `encode` or `decode` is missing.
    """

    def __init__(self, programs: dict[str, Any], metadata: dict[str, _Metadata]) -> None:
        missing = [name for name in ("encode", "decode") if name not in programs]
        if missing:
            raise ArgumentError(
                f"the folder should have the functions encode and decode, it has no {missing[0]}: "
                "export the flow again with both."
            )
        self._programs, self._metadata = programs, metadata
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

    Args:
        path: The folder, or one of its .pt2 files.
        trust: Whether the files come from a source that you trust: `torch.export.load` can run
            code from a file that was made to do so.

    Raises:
        ArgumentError: `trust` is False, or the folder has no `encode` or `decode` for torch.
        FileError: A file is missing or damaged, or kappaflow did not write it.
    """
    given = Path(path)
    folder = given.parent if given.suffix in SUFFIXES.values() else given
    files = {name: folder / f"{name}{SUFFIXES['torch']}" for name in FUNCTIONS}
    found = {name: file for name, file in files.items() if file.is_file()}
    if not found:
        raise FileError(
            f"{folder} holds no exported .pt2 files. Programs in ONNX have no derivatives: export "
            "the flow with --format torch to examine it."
        )
    if not trust:
        raise ArgumentError(
            f"{folder} holds exported programs, and loading one with torch.export.load can run "
            "code from the file: pass --trust if you trust its source."
        )
    programs, metadata = {}, {}
    for name, file in found.items():
        programs[name], metadata[name] = _loaded(file)
    return ExportedFlow(programs, metadata)


def _loaded(file: Path) -> tuple[Any, _Metadata]:
    """Returns a program and its metadata."""
    notes = {NOTES: ""}
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch logs a traceback for a damaged file
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.export.load(io.BytesIO(file.read_bytes()), extra_files=notes).module()
    except Exception as error:  # torch raises exceptions of many kinds
        text = " ".join(str(error).split())[:200]
        raise FileError(f"{file} cannot be loaded ({type(error).__name__}: {text}).") from None
    finally:
        logging.disable(disabled)
    try:
        return program, _Metadata.model_validate(parse_json(notes[NOTES]))
    except (json.JSONDecodeError, ValidationError, ValueError):
        raise FileError(f"{file} has no metadata of kappaflow: export the flow again.") from None


def _event(shape: Sequence[str | int]) -> tuple[int, ...]:
    """Returns the shape of one row of ["batch", *shape]."""
    return tuple(int(size) for size in shape[1:])


def parts_of(flow: ExportedFlow, x: Tensor | None, context: Tensor | None) -> Parts:  # noqa: ARG001
    """Returns the exported functions as one layer, after one that scales x.

    The metadata has mean and deviation of each feature. Without the first layer, the condition
    number would depend on the units of the columns.

    A base other than the standard normal is known by its samples and by the density of x:
    log p(z) = log p(x) + log|det dx/dz|.
    """
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
    whole = ForeignLayer(
        "exported flow", encode_scaled, decode_scaled, shapes, flow.context_features
    )
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
    )


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
