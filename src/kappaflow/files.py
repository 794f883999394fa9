"""Model files: a directory with config.json (what the model is) and model.safetensors (numbers).

Nothing is ever unpickled and no code runs from a file. The weights carry a digest of themselves
and of the configuration that they belong to, so that a damaged byte in either is an error, not a
wrong number.
"""

import copy
import hashlib
import json
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from kappaflow.errors import ArgumentError, FileError
from kappaflow.flows import Flow
from kappaflow.flows.rows import name_columns
from kappaflow.reading import parse_json, read_small
from kappaflow.registry import allowed, build, describe
from kappaflow.storage import make_directory, read_tensors, write_bytes, write_tensors

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
DESCRIBES = "config"  # under this name the weights hold the digest of the configuration


class ModelFile(BaseModel):
    """What config.json holds; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    format: Literal["kappaflow"] = "kappaflow"
    format_version: int = FORMAT_VERSION
    dtype: str
    model: dict[str, Any]
    columns: tuple[str, ...] | None = None
    context_columns: tuple[str, ...] | None = None
    run: dict[str, Any] | None = None


def save(flow: Flow, path: str | Path, *, overwrite: bool = False) -> None:
    """Writes a flow to a directory, each file whole or not at all.

    Args:
        flow: A flow made of registered bijections and networks.
        path: The directory; made if it is missing.
        overwrite: Replace a saved flow. Runs, and models of other libraries, are never replaced.

    Raises:
        ArgumentError: A part is not registered, or the flow was changed after it was built, so
            that a file could not describe it. Or the directory already holds a model.
        FileError: The directory cannot be written.

    Example:
        >>> import tempfile, kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kf.save(flow, folder)
        ...     x = torch.zeros(1, 2)
        ...     bool((kf.load(folder).log_prob(x) == flow.log_prob(x)).all())
        True
    """
    config = describe_model(flow)
    _check_replaceable(Path(path), overwrite=overwrite)
    folder = make_directory(path)
    write_weights(folder / WEIGHTS, flow.state_dict(), config)
    write_config(folder / CONFIG, config)


def _check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Raises an error if saving would replace a file that it may not replace.

    Weights of kappaflow without a configuration are left by a save that was killed.
    """
    try:
        if (folder / CONFIG).exists():
            if read_config(folder / CONFIG).run is not None:
                raise ArgumentError(f"'path' should be another folder: {folder} holds a run.")
            if not overwrite:
                raise ArgumentError(
                    f"'path' should be a new folder, {folder} holds a saved flow: pass "
                    "overwrite=True to replace it."
                )
        elif (folder / WEIGHTS).exists():
            read_tensors(folder / WEIGHTS)
    except FileError as error:
        raise ArgumentError(
            f"'path' should be another folder, {folder} holds a model that is not of this "
            f"kappaflow: {error}"
        ) from None


def load(path: str | Path) -> Flow:
    """Returns the flow that `save` or `fit` wrote to a directory, in evaluation mode.

    Args:
        path: The directory, with config.json and model.safetensors.

    Returns:
        The flow, of the type that it was saved in, on the CPU.

    Raises:
        FileError: A file is missing, damaged, of another version, or the two do not fit each
            other.
    """
    folder = Path(path)
    config = read_config(folder / CONFIG)
    tensors = read_weights(folder / WEIGHTS, config)
    flow = build_model(config, folder / CONFIG, tensors)
    load_tensors(flow, tensors, folder / WEIGHTS)
    return flow.eval()


def describe_run(flow: Flow, run: dict[str, Any] | None) -> ModelFile:
    """Returns the configuration of a flow in a run, which holds the names of the columns."""
    describe_source = getattr(type(flow), "describe_source", None)
    if describe_source is not None:  # a flow of another library
        dtype = str(flow.dtype).removeprefix("torch.")
        config = ModelFile(dtype=dtype, model=describe_source(flow))
    else:
        config = describe_model(flow)
    if run is None:
        return config
    names = {"columns": None, "context_columns": None}
    return config.model_copy(update={**names, "run": run})


def describe_model(flow: Flow) -> ModelFile:
    """Returns the configuration of a flow, after checking that the flow can be rebuilt from it."""
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    state = flow.state_dict()
    types = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if len(types) > 1:
        listed = ", ".join(sorted(map(str, types)))
        raise ArgumentError(
            f"'flow' should hold numbers of one type, got {listed}: "
            "convert it with flow.to(dtype)."
        )
    config = ModelFile(
        dtype=str(flow.dtype).removeprefix("torch."),
        model=describe(flow),
        columns=flow.columns or None,
        context_columns=flow.context_columns or None,
    )
    with torch.random.fork_rng(devices=[]):
        twin = build(config.model)
    if {k: v.shape for k, v in twin.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }:
        twin.to(flow.dtype).load_state_dict(state)
        # A copy: what an object has found out while it was used is no part of the model.
        copied = copy.deepcopy(flow).cpu()
        if repr(twin) == repr(copied) and _answers(twin) == _answers(copied):
            return config
    raise ArgumentError(
        "'flow' was changed after it was built, so its description is no longer true: build it "
        "from its parts, kappaflow.Flow(base, kappaflow.Chain([...]))."
    )


@torch.no_grad()
def _answers(flow: Flow) -> list[bytes]:
    """Returns the bits of a flow's answer at a few points, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, *flow.joint_shape, generator=generator).to(flow.dtype)
    context = torch.randn(4, flow.context_features, generator=generator).to(flow.dtype)
    answer = flow.eval().bijection(x, context if flow.context_features else None)
    return [part.double().numpy().tobytes() for part in answer]


def build_model(config: ModelFile, source: Path, weights: dict[str, Tensor]) -> Flow:
    """Returns the flow that a configuration describes, if it is in proportion to its weights."""
    dtype = getattr(torch, config.dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise FileError(
            f"{source} asks for the type {config.dtype!r}, which is no floating-point type."
        )
    if "library" in config.model:
        raise FileError(
            f"{source} is of a run of {config.model.get('class')} of {config.model['library']}, "
            "whose code no file holds: build that flow and call kappaflow.wrap(flow, x)."
            f"load_state_dict(safetensors.torch.load_file({str(source.parent / WEIGHTS)!r}))."
        )
    try:
        with allowed(weights):
            flow = build(config.model)
    except FileError as error:
        raise FileError(f"{source}: {error}") from None
    if not isinstance(flow, Flow):
        raise FileError(f"{source} describes a {type(flow).__name__}, not a flow.")
    names = {"columns": config.columns, "context_columns": config.context_columns}
    names = {key: (config.run or {}).get(key, names[key]) or () for key in names}
    for key, value in names.items():
        if not isinstance(value, (list, tuple)) or not all(isinstance(n, str) for n in value):
            raise FileError(f"{source} should have a list of names as {key!r}, got {value!r}.")
    name_columns(flow, **names)
    return flow.to(dtype)


def load_tensors(flow: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Loads tensors into a module of the same names, shapes and types."""
    expected = flow.state_dict()
    for name in set(tensors) & set(expected):
        if tensors[name].dtype != expected[name].dtype:
            raise FileError(
                f"{source} holds {name!r} in {tensors[name].dtype}, the model has "
                f"{expected[name].dtype}."
            )
    try:
        flow.load_state_dict(tensors)
    except (ArgumentError, RuntimeError) as error:
        raise FileError(f"{source} does not fit the model: {shorten(str(error), 400)}") from None


def write_weights(path: Path, state: dict[str, Tensor], config: ModelFile) -> None:
    """Writes the state of a flow, tied to its configuration, whole or not at all."""
    write_tensors(path, state, {DESCRIBES: config_digest(config)})


def read_weights(path: Path, config: ModelFile) -> dict[str, Tensor]:
    """Returns the state that `write_weights` wrote for this configuration."""
    tensors, metadata = read_tensors(path)
    if metadata.get(DESCRIBES) != config_digest(config):
        raise FileError(
            f"{path} does not match {CONFIG} next to it: the digest says that one of them was "
            "damaged or changed after it was written."
        )
    return tensors


def config_digest(config: ModelFile) -> str:
    """Returns a SHA-256 of a configuration."""
    content = json.loads(config.model_dump_json(exclude_none=True))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_config(path: Path, config: ModelFile) -> None:
    """Writes a configuration as JSON, whole or not at all."""
    write_bytes(path, (config.model_dump_json(indent=2, exclude_none=True) + "\n").encode())


def read_config(path: Path) -> ModelFile:
    """Returns the configuration of a file, or raises FileError."""
    if not path.parent.is_dir():
        raise FileError(
            f"{path.parent} is not a directory: a model is one with {CONFIG} and {WEIGHTS}."
        )
    if not path.is_file():
        raise FileError(f"{path} is missing: {path.parent} holds no model.")
    try:
        content = parse_json(read_small(path))
    except ValueError as error:
        raise FileError(f"{path} is not JSON ({error}).") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise FileError(
            f"{path} has format version {version!r}, "
            f"this kappaflow reads version {FORMAT_VERSION}."
        )
    try:
        return ModelFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise FileError(f"{path} has an unknown key {key!r}.") from None
        raise FileError(f"{path}: {key!r} is wrong: {first['msg']}.") from None
