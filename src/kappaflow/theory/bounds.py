"""What the theorems say about condition numbers, as plain formulas."""

from math import sqrt

from kappaflow._checks import positive_float, positive_int
from kappaflow.errors import ArgumentError


def unit_condition_number(norm: float) -> float:
    r"""Returns the condition number of a coupling with unit diagonal whose block has this norm.

    The singular values of :math:`\begin{pmatrix} I & 0 \\ A & I \end{pmatrix}` come in pairs
    :math:`\sigma, 1/\sigma` with :math:`\sigma - 1/\sigma = a`, one pair for each singular value a
    of A, so that :math:`\kappa = ((a + \sqrt{a^2 + 4}) / 2)^2` for the largest.

    Args:
        norm: The largest singular value of the block, at least 0.

    Returns:
        The condition number, a pure number >= 1.

    Raises:
        ArgumentError: `norm` is negative or not finite.

    Source:
        Singular values of a shear; ours in this form.

    Example:
        >>> unit_condition_number(0.0)
        1.0
        >>> round(unit_condition_number(1.0), 6)  # the square of the golden ratio
        2.618034
    """
    if norm != 0:
        positive_float("norm", norm)
    return ((norm + sqrt(norm * norm + 4)) / 2) ** 2


ROTATION_BLOCK_NORMS = (2 + sqrt(2), 1.0, sqrt(2), 2.0, 2.0, 1.0)
"""Theorem B: the norms that the six blocks A1, X1, A2, X2, A3, X3 of a rotation do not exceed."""


def rotation_bound() -> float:
    """Returns the condition number that no coupling of a rotation exceeds, in any dimension.

    Returns:
        The largest over the six blocks of Theorem B.

    Source:
        Ours (Theorem B of the page "Six couplings").

    Example:
        >>> round(rotation_bound(), 4)
        13.5832
    """
    return max(map(unit_condition_number, ROTATION_BLOCK_NORMS))


def least_condition_number(condition_number: float, couplings: int) -> float:
    r"""Returns what the worst of so many factors has at least: :math:`\kappa(T)^{1/m}`.

    Args:
        condition_number: That of the product, at least 1.
        couplings: The number m of factors.

    Returns:
        A bound for the largest condition number of a factor, whatever the factors are.

    Raises:
        ArgumentError: The condition number is below 1.

    Source:
        The condition number of a product is at most the product of the condition numbers.

    Example:
        >>> round(least_condition_number(1e6, 6), 12)
        10.0
    """
    count = positive_int("couplings", couplings)
    if positive_float("condition_number", condition_number) < 1:
        raise ArgumentError(
            f"'condition_number' should be at least 1, got {condition_number}: it is the largest "
            "singular value divided by the smallest."
        )
    return float(condition_number) ** (1 / count)
