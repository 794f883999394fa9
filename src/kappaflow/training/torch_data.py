"""Reads datasets and loaders of `torch.utils.data` into memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from kappaflow.data.dataset import Dataset, kind_for
from kappaflow.errors import ArgumentError, DataError
from kappaflow.flows import Flow

Item = tuple[Tensor, Tensor | None]


def is_torch_data(data: object) -> bool:
    """Returns whether data are a dataset or a loader of torch."""
    return isinstance(data, TorchDataset | DataLoader)


def read_torch_data(
    data: TorchDataset | DataLoader, flow: Flow | None
) -> Tensor | Dataset | tuple[Tensor, Tensor]:
    """Returns the rows or images of a dataset or a loader, each read once, in a fixed order."""
    # Samplers and transforms draw from torch's global generator with seed 0, so that a resumed
    # training reads the same.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [*(map(_pair, data) if isinstance(data, DataLoader) else _items(data))]
    if not parts:
        raise DataError(f"'data' should hold rows, this {type(data).__name__} has none.")
    x = _joined("x", [x for x, _ in parts])
    contexts = [context for _, context in parts]
    known = [context for context in contexts if context is not None]
    if known and len(known) < len(contexts):
        raise ArgumentError("'data' should have a context for each row, or for none.")
    context = _joined("context", known) if known else None
    kind = None if flow is None else kind_for(flow)
    if flow is not None and kind is not None:
        return kind.from_tensors(x, context, flow, type(data).__name__)
    if context is None:
        return x
    return x, context if context.dim() > 1 else context[:, None]


def _items(dataset: TorchDataset) -> Iterator[Item]:
    """Yields the items of a dataset as batches of one."""
    for x, context in map(_pair, DataLoader(dataset, batch_size=None, collate_fn=lambda x: x)):
        yield x[None], None if context is None else context[None]


def _pair(item: Any) -> Item:
    """Returns an item x, (x,) or (x, context) as two tensors."""
    is_row = isinstance(item, list) and all(isinstance(number, int | float) for number in item)
    parts = item if isinstance(item, tuple | list) and not is_row else (item,)
    if len(parts) not in (1, 2):
        raise ArgumentError(
            f"'data' should have items x or (x, context), got a {type(item).__name__} of "
            f"{len(parts)}."
        )
    return _tensor(parts[0]), _tensor(parts[1]) if len(parts) == 2 else None


def _tensor(value: Any) -> Tensor:
    """Returns numbers, an array or a picture of Pillow as a tensor."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if hasattr(value, "getbands"):  # a picture of Pillow, (height, width, channels)
        pixels = torch.from_numpy(np.array(value))
        return pixels[None] if pixels.dim() == 2 else pixels.movedim(2, 0)
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(
            f"'data' should have items of tensors or numbers, got a {type(value).__name__}: "
            "return x or (x, context)."
        ) from None


def _joined(name: str, parts: list[Tensor]) -> Tensor:
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if len(shapes) > 1:
        raise ArgumentError(
            f"'data' should have items '{name}' of one shape, got {shapes[0]} and {shapes[1]}."
        )
    return torch.cat(parts)
