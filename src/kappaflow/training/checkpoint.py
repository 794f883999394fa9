"""Checkpoints: a safetensors file with the tensors of a training, and the rest as JSON in it.

The file is written under a temporary name, flushed to the disk and renamed. So there is always a
complete checkpoint, the old one or the new one.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kappaflow.errors import FileError
from kappaflow.reading import parse_json
from kappaflow.storage import make_directory, read_tensors, write_tensors

FILE = Path("checkpoint") / "state.safetensors"

Groups = dict[str, dict[str, Tensor]]


def write_checkpoint(folder: Path, groups: Groups, progress: dict[str, Any]) -> None:
    """Writes groups of named tensors and the progress, replacing the last checkpoint."""
    make_directory((folder / FILE).parent)
    tensors = {
        f"{group}/{name}": t for group, named in groups.items() for name, t in named.items()
    }
    write_tensors(folder / FILE, tensors, {"progress": json.dumps(progress)})


def read_checkpoint(folder: Path) -> tuple[Groups, dict[str, Any]] | None:
    """Returns what `write_checkpoint` wrote, or None if there is no checkpoint yet."""
    if not (folder / FILE).exists():
        return None
    tensors, metadata = read_tensors(folder / FILE)
    groups: Groups = {}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = tensor
    try:
        progress = parse_json(metadata["progress"])
    except (KeyError, TypeError, ValueError, AttributeError):
        progress = None
    if not isinstance(progress, dict):
        raise FileError(f"{folder / FILE} is damaged: its header holds no progress.")
    return groups, progress


@torch.no_grad()
def copied_as(state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies of stored tensors like others; ValueError if names or shapes differ."""
    # The kernels of optimizers do not check shapes: a short tensor would let them write past it.
    different = sorted(state.keys() ^ like.keys())
    if different:
        raise ValueError(f"{different[0]!r} is missing or unknown")
    for name, tensor in state.items():
        if tensor.shape != like[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(like[name].shape)}"
            raise ValueError(f"{name!r} has the shape {shapes}")
    return {name: torch.empty_like(tensor).copy_(state[name]) for name, tensor in like.items()}
