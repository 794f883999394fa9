"""Singular values in extended precision, from the layers written as numpy matrices."""

from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import kappaflow as kf
from kappaflow.bijections.linear import LinearMap
from kappaflow.conditioning import layers_of

Numbers = NDArray[np.longdouble]
Derived = tuple[Numbers, Numbers, Numbers]  # the matrix, the matrix of the inverse, the value
REFINED = 3  # refinement steps of an inverse beyond float64


def exact_extremes(core: kf.Chain, x: Tensor) -> tuple[float, float]:
    """Returns the largest and the smallest singular value of a map at one point (n,).

    Its weights and the point are taken unchanged. Everything else is `numpy.longdouble`, which has
    64 bits of mantissa on x86 and may be float64 on other machines.
    """
    there, back, h = [], [], _numbers(x)
    for layer in layers_of(core):
        if isinstance(layer.bijection, LinearMap):
            matrix, inverse, h = _linear(layer.bijection, h)
        elif isinstance(layer.bijection, kf.AffineCoupling):
            matrix, inverse, h = _coupling(layer.bijection, h)
        else:
            raise TypeError(f"no derivative is written down of a {layer.name}")
        there.append(matrix)
        back.append(inverse)
    return _largest(reduce(lambda a, b: b @ a, there)), 1 / _largest(reduce(np.matmul, back))


def _linear(layer: LinearMap, x: Numbers) -> Derived:
    matrix, shift, _ = (_numbers(part) for part in layer.dense(torch.float64))
    inverse = np.linalg.inv(matrix.astype(float)).astype(np.longdouble)
    for _ in range(REFINED):
        inverse = inverse + inverse @ (np.eye(len(x)) - matrix @ inverse)
    return matrix, inverse, matrix @ x + shift


def _coupling(layer: kf.AffineCoupling, x: Numbers) -> Derived:
    kept, changed = list(layer.partition.kept), list(layer.partition.changed)
    answer, derived = _network(layer.conditioner, x[kept])
    raw, shift = np.split(answer, 2)
    raw_derived, shift_derived = np.split(derived, 2)
    bent = np.tanh(raw / layer.scale_bound)
    scale = np.exp(layer.scale_bound * bent)
    slope = (x[changed] * (1 - bent**2))[:, None] * raw_derived
    matrix, inverse = (np.eye(len(x), dtype=np.longdouble) for _ in range(2))
    value = x.copy()
    value[changed] = x[changed] * scale + shift
    matrix[np.ix_(changed, changed)] = np.diag(scale)
    matrix[np.ix_(changed, kept)] = scale[:, None] * slope + shift_derived
    inverse[np.ix_(changed, changed)] = np.diag(1 / scale)
    inverse[np.ix_(changed, kept)] = -slope - shift_derived / scale[:, None]
    return matrix, inverse, value


def _network(net: nn.Module, h: Numbers) -> tuple[Numbers, Numbers]:
    """Returns the output of a network with ReLUs, and its Jacobian."""
    *hidden, last = (part for part in net.modules() if isinstance(part, nn.Linear))
    derived = np.eye(len(h), dtype=np.longdouble)
    for layer in hidden:
        h = _numbers(layer.weight) @ h + _numbers(layer.bias)
        derived = np.where((h > 0)[:, None], _numbers(layer.weight) @ derived, 0)
        h = np.maximum(h, 0)
    weight = _numbers(last.weight)
    return weight @ h + _numbers(last.bias), weight @ derived


def _largest(matrix: Numbers) -> float:
    """Returns the largest singular value, which float64 computes accurately from the matrix."""
    size = np.abs(matrix).max()
    return float(size * np.linalg.svd((matrix / size).astype(float), compute_uv=False)[0])


def _numbers(values: Tensor) -> Numbers:
    return values.detach().cpu().double().numpy().astype(np.longdouble)
