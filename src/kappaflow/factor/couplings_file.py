"""Couplings as a safetensors file that anything can read."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kappaflow.errors import FileError
from kappaflow.factor.coupling import LinearCoupling
from kappaflow.factor.factorization import Factorization
from kappaflow.factor.factors import Factor, numbers
from kappaflow.factor.matrices import square_floats
from kappaflow.factor.residual import relative_residual
from kappaflow.partition import Partition
from kappaflow.storage import read_tensors, write_tensors

FORMAT, VERSION = "kappaflow couplings", "2"
PARTS = ("weight", "diagonal", "kept", "changed")


def save_couplings(found: Factorization, path: str | Path) -> None:
    """Writes a factorization to one safetensors file, whole or not at all.

    Coupling number i, from 1, is the four tensors `coupling.i.weight` (changed, kept),
    `coupling.i.diagonal` (changed,), both float64, `coupling.i.kept` and `coupling.i.changed`:
    indices of features, from 0; `matrix` is what they multiply to. The strings in the metadata
    say how many there are and in which order they are multiplied; they need no reader of this
    package.

    Args:
        found: What is written.
        path: The file.

    Raises:
        FileError: It cannot be written.
    """
    tensors = {"matrix": found.matrix}
    for number, coupling in enumerate(found.couplings, start=1):
        tensors[f"coupling.{number}.weight"] = coupling.weight
        tensors[f"coupling.{number}.diagonal"] = coupling.diagonal
        for part in ("kept", "changed"):
            indices = torch.tensor(getattr(coupling.partition, part))
            tensors[f"coupling.{number}.{part}"] = indices
    write_tensors(Path(path), tensors, _metadata(found))


def load_couplings(path: str | Path) -> Factorization:
    """Returns the factorization that `save_couplings` or `kappaflow factor --out` wrote.

    Args:
        path: The safetensors file.

    Returns:
        The couplings in float64, with the residual that they have now.

    Raises:
        FileError: The file is missing or damaged, of another version, or holds no couplings.

    Example:
        >>> import pathlib, tempfile, kappaflow as kf
        >>> found = kf.factor_linear(torch.eye(4)[[1, 2, 0, 3]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "couplings.safetensors"
        ...     kf.save_couplings(found, file)
        ...     again = kf.load_couplings(file)
        >>> len(again), again.residual < 1e-14
        (6, True)
    """
    file = Path(path)
    if not file.is_file():
        what = f"{file} is a folder" if file.is_dir() else f"there is no file '{file}'"
        raise FileError(f"{what}: give a file that 'kappaflow factor --out' wrote.")
    tensors, said = read_tensors(file)
    if said.get("format") != FORMAT:
        raise FileError(f"{file} holds no couplings: 'kappaflow factor --out' writes such files.")
    if said.get("format_version") != VERSION:
        raise FileError(
            f"{file} has format version {said.get('format_version')!r}, this kappaflow reads "
            f"version {VERSION}: factor the matrix again."
        )
    try:
        return _factorization(tensors, said)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(f"{file} is damaged, or not of this format ({error}).") from None


def _metadata(found: Factorization) -> dict[str, str]:
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "features": str(len(found.matrix)),
        "couplings": str(len(found)),
        "order": "matrix = coupling.1 coupling.2 ...: the last acts first on a column",
        "coupling": "z[changed] = diagonal * x[changed] + weight @ x[kept]; z[kept] = x[kept]",
        "method": found.method,
        "residual": repr(found.residual),
        "note": found.note,
    }


def _factorization(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Factorization:
    """Returns what the tensors are, or raises whatever they do not fit."""
    matrix = square_floats(tensors["matrix"])
    couplings = tuple(
        _coupling(len(matrix), *(tensors[f"coupling.{number}.{name}"] for name in PARTS))
        for number in range(1, int(said["couplings"]) + 1)
    )
    return Factorization(
        torch.from_numpy(matrix),
        couplings,
        _residual(matrix, couplings),
        said["method"],
        next((i for i, one in enumerate(couplings) if (one.diagonal < 0).any()), None),
        said["note"],
    )


def _coupling(
    features: int, weight: Tensor, diagonal: Tensor, kept: Tensor, changed: Tensor
) -> LinearCoupling:
    partition = Partition(features, tuple(kept.tolist()))
    if list(partition.changed) != changed.tolist():
        raise ValueError("the features kept and changed are not all there are")
    return LinearCoupling.of(partition, weight, diagonal)


def _residual(matrix: np.ndarray, couplings: tuple[LinearCoupling, ...]) -> float:
    """Returns how far the couplings, which take turns, are from the matrix."""
    if not couplings:
        return relative_residual([], matrix)
    first = couplings[0].partition
    if any(one.partition not in (first, first.swapped()) for one in couplings):
        raise ValueError("the couplings have several partitions")
    order = np.array(first.kept + first.changed)
    factors = [Factor(one.partition == first, *numbers(one)) for one in couplings]
    return relative_residual(factors, matrix[np.ix_(order, order)])
