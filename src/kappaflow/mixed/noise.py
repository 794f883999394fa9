"""Random numbers for draws of rows: of a generator, or of each row alone."""

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kappaflow.data.naming import FloatArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class RowNoise:
    """Random numbers that follow from the values of a row, the number of its draw, and a seed.

    So the score of a row does not depend on the rows that are scored with it, and the Monte Carlo
    errors of different rows cancel in a mean, unlike those of draws that all rows share.

    Args:
        values: What is known of each row, (N, columns).
        draws: Draws of each row, M, in M rows after each other.
        seed: Seed of all numbers.

    Source:
        Steele, Lea, Flood 2014 (the finalizer of SplitMix64).
    """

    def __init__(self, values: FloatArray, draws: int, seed: int) -> None:
        keys = np.full(len(values), seed, dtype=np.uint64)
        known = np.where(np.isnan(values), np.nan, values + 0.0)  # one NaN, and no -0.0
        for column in np.ascontiguousarray(known.T).view(np.uint64):
            keys = _scrambled(keys ^ column)
        self._keys = _scrambled(keys[:, None] + GOLDEN * np.arange(1, draws + 1, dtype=np.uint64))

    def uniform(self, name: str, rows: Tensor, width: int) -> Tensor:
        """Returns numbers between 0 and 1 for some rows, (len(rows), width), in float64."""
        first = np.uint64(zlib.crc32(name.encode()) << 32)
        columns = _scrambled(first + np.arange(width, dtype=np.uint64))
        bits = _scrambled(self._keys.reshape(-1)[rows.numpy()][:, None] ^ columns)
        return torch.from_numpy(((bits >> np.uint64(12)) + 0.5) * 2.0**-52)


Noise = torch.Generator | RowNoise


def uniform(noise: Noise, name: str, rows: Tensor, width: int) -> Tensor:
    """Returns uniform numbers (len(rows), width) in float64, of the draw that has a name."""
    if isinstance(noise, RowNoise):
        return noise.uniform(name, rows, width)
    return torch.rand(len(rows), width, dtype=torch.float64, generator=noise)


def normal(noise: Noise, name: str, rows: Tensor, width: int) -> Tensor:
    """Returns normal numbers (len(rows), width) in float64, of the draw that has a name."""
    if isinstance(noise, RowNoise):
        return torch.special.ndtri(noise.uniform(name, rows, width))
    return torch.randn(len(rows), width, dtype=torch.float64, generator=noise)


def _scrambled(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns keys as 64 bits that look independent."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
