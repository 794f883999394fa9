"""How exactly states come back that were not kept."""

import torch
from torch import Tensor

from kappaflow.fingerprints import fingerprint_errors, random_direction
from kappaflow.stack.operations import Operations


class Marks:
    """A fingerprint of each state of a chunk: one random projection a row, kept in its place."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}
        self._back: dict[int, Tensor] = {}

    def keep(self, do: Operations, layer: int, x: Tensor) -> None:
        """Takes the fingerprint of what a layer changes, (changed, columns)."""
        self._kept[layer] = _fingerprint(do, x)

    def compare(self, do: Operations, layer: int, x: Tensor) -> None:
        """Takes the fingerprint of what came back in its place."""
        self._back[layer] = _fingerprint(do, x)

    def errors(self) -> dict[int, float]:
        """Returns by layer the error of the worst row, relative to its or the usual size."""
        if not self._back:
            return {}
        kept = torch.stack([self._kept[layer] for layer in self._back])
        worst = fingerprint_errors(torch.stack(list(self._back.values())), kept)
        return dict(zip(self._back, worst.tolist(), strict=True))


def _fingerprint(do: Operations, x: Tensor) -> Tensor:
    with torch.inference_mode(False):
        found = x.new_empty(x.shape[1])
        do.project(x, random_direction(len(x), x.dtype, x.device), found)
        return found
