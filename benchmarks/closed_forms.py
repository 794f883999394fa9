"""Condition numbers of factors in closed form: for rotations, and for any map."""

import numpy as np

from kappaflow import factor_linear
from kappaflow.factor.coupling import two_by_two_condition
from kappaflow.factor.rotation import factor_rotation
from kappaflow_studies.ensembles import draw

SIZES = (4, 16, 64, 256)
COUNTS = (11, 13, 15, 17, 19)
MAPS = ("Gaussian", "geometric 1e2", "geometric 1e4", "geometric 1e6")


def closed_forms(*, draws: int = 20, features: int = 64) -> None:
    """Print the largest condition number of a factor: the median and the worst over random maps.

    Rotations have unit diagonals, or the scales that minimize the largest condition number.
    Other maps have eleven factors and more; positive definite ones also six.

    Parameters
    ----------
    draws
        Number of maps of each ensemble.
    features
        Number of features of the maps that are not rotations.
    """
    print("rotations     unit diagonals       free scales")
    for n in SIZES:
        maps = [draw("orthogonal", n, number) for number in range(draws)]
        plain = [max(map(_unit, factor_rotation(matrix))) for matrix in maps]
        free = [factor_linear(matrix, method="rotation").condition_number for matrix in maps]
        print(f"{n:>9}     {_said(plain)}      {_said(free)}")
    print(f"couplings     {'  '.join(f'{name:>16}' for name in MAPS)}")
    for count in COUNTS:
        found = [
            [
                factor_linear(
                    draw(name, features, number), method="svd", couplings=count
                ).condition_number
                for number in range(draws)
            ]
            for name in MAPS
        ]
        print(f"{count:>9}     {'  '.join(f'{_said(values):>16}' for values in found)}")

    print("positive definite, six factors")
    for condition in (1e2, 1e4):
        for spectrum in ("geometric", "one large", "one small"):
            maps = [_positive(spectrum, features, condition, number) for number in range(draws)]
            six = [factor_linear(matrix, method="positive").condition_number for matrix in maps]
            print(f"{spectrum:>9}, {condition:.0e}     {_said(six)}")


def _positive(spectrum: str, n: int, condition: float, number: int) -> np.ndarray:
    """Returns a positive definite map with random eigenvectors and determinant 1."""
    logs = np.linspace(0, 1, n) if spectrum == "geometric" else np.eye(n)[0]
    logs = (logs - logs.mean()) * np.log(condition) * (-1 if spectrum == "one small" else 1)
    turn = draw("orthogonal", n, number)
    matrix = (turn * np.exp(logs)) @ turn.T
    return (matrix + matrix.T) / 2


def _unit(block: np.ndarray) -> float:
    return two_by_two_condition(float(np.linalg.norm(block, 2)), 1.0)


def _said(values: list[float]) -> str:
    return f"{np.median(values):.3g} ({max(values):.3g})"
