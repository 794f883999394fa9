"""Standardised columns, their means and standard deviations, without overflow."""

import numpy as np

from kappaflow.data.table import FloatArray


def standardised(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns z = (values - mean) / std of each column, with mean and std; zeros where constant.

    The columns are scaled to 1 before squares are taken, which could overflow.
    """
    size = np.abs(values).max(axis=0)
    size[size == 0] = 1.0
    scaled = values / size
    mean = scaled.mean(axis=0)
    scaled -= mean
    std = np.sqrt(np.einsum("nd,nd->d", scaled, scaled) / len(scaled))
    scaled /= np.where(std > 0, std, 1.0)
    return scaled, mean * size, std * size
