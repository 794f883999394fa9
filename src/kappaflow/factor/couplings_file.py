"""Couplings as a safetensors file that anything can read."""

from pathlib import Path

import torch

from kappaflow.factor.factorization import Factorization
from kappaflow.storage import write_tensors


def write_couplings(found: Factorization, path: str | Path) -> None:
    """Writes the couplings of a factorization to one safetensors file, whole or not at all.

    Coupling number i, from 1, is the four tensors `coupling.i.weight` (changed, kept),
    `coupling.i.diagonal` (changed,), both float64, `coupling.i.kept` and `coupling.i.changed`:
    indices of features, from 0. The strings in the metadata say how many there are and in which
    order they are multiplied; they need no reader of this package.

    Args:
        found: What is written.
        path: The file.

    Raises:
        FileError: It cannot be written.
    """
    tensors = {}
    for number, coupling in enumerate(found.couplings, start=1):
        tensors[f"coupling.{number}.weight"] = coupling.weight
        tensors[f"coupling.{number}.diagonal"] = coupling.diagonal
        for part in ("kept", "changed"):
            indices = torch.tensor(getattr(coupling.partition, part))
            tensors[f"coupling.{number}.{part}"] = indices
    write_tensors(Path(path), tensors, _metadata(found))


def _metadata(found: Factorization) -> dict[str, str]:
    return {
        "format": "kappaflow couplings",
        "format_version": "1",
        "features": str(len(found.matrix)),
        "couplings": str(len(found)),
        "order": "matrix = coupling.1 coupling.2 ...: the last acts first on a column",
        "coupling": "z[changed] = diagonal * x[changed] + weight @ x[kept]; z[kept] = x[kept]",
        "method": found.method,
        "residual": repr(found.residual),
    }
