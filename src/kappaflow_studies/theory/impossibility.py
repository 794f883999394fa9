"""Proofs that a given linear map is, or is not, a product of a number of couplings."""

import re
from dataclasses import dataclass
from typing import Literal

from kappaflow._checks import positive_float, positive_int
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow_studies.theory.arguments import Case, Conclusion
from kappaflow_studies.theory.exact import Numbers, numbers_of

TOLERANCE = 1e-10
ALWAYS_ENOUGH = 6


@dataclass(frozen=True)
class Verdict:
    """What is known about a map as a product of L's and U's.

    Args:
        patterns: The orders considered. In the product T = L U, U acts first.
        verdict: "cannot" (for all patterns), "can" (for one), or "unknown" (no argument applies).
        reason: One sentence for each excluded pattern.
        argument: The name of each argument.
        exact: Whether the verdict holds for the given matrix exactly; otherwise it holds up to
            rounding.
    """

    patterns: tuple[str, ...]
    verdict: Literal["can", "cannot", "unknown"]
    reason: str
    argument: str
    exact: bool

    def __str__(self) -> str:
        patterns = " or ".join(" ".join(pattern) for pattern in self.patterns)
        return f"{patterns}: {self.verdict}. {self.reason}"


@dataclass(frozen=True)
class _Cases:
    """T for patterns that begin with L, and with U; and whether its determinant excludes all."""

    lower: Case
    upper: Case
    numbers: Numbers
    negative: bool


def check_pattern(
    matrix: object,
    pattern: str,
    *,
    first: int | None = None,
    positive: bool = True,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """Returns whether a map can be a product of couplings in one order.

    Args:
        matrix: T, invertible n x n, acting on columns. Integers and fractions are treated exactly,
            other floats up to rounding.
        pattern: Such as "LULUL", in the order of the product. L changes the second part, U the
            first. Shorter patterns are included, since a coupling may be the identity.
        first: Number of features in the first part; by default half of them, rounded down.
        positive: Whether the diagonals must be positive.
        tolerance: For floats: entries below this share of the largest entry count as zero.

    Returns:
        The verdict. "unknown" proves nothing, because the arguments are sufficient, not complete.

    Raises:
        ArgumentError: The matrix is not square, not finite or singular, the pattern does not
            alternate, or `first` leaves a part empty.

    Note:
        For one and two couplings the criterion is exact, also for three with T12 invertible or
        zero. For four, and for five with T12 = 0, T11 and block 22 of the inverse must have equal
        spectra after each is scaled by a diagonal matrix. Signs of coefficients (the trace first)
        or cycles, whose eigenvalues are not real, can exclude this.

    Source:
        Ours, except for the count itself: Urschel 2023.

    Example:
        >>> quarter_turns = [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 1], [0, 0, -1, 0]]
        >>> check_pattern(quarter_turns, "LULUL").argument
        'trace'
    """
    cases = _cases(matrix, first, positive=positive, tolerance=tolerance)
    return _verdict(cases, _checked_pattern(pattern))


def check_count(
    matrix: object,
    couplings: int,
    *,
    first: int | None = None,
    positive: bool = True,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """Returns whether a map can be a product of a number of couplings, in either order.

    Args:
        matrix: As for `check_pattern`.
        couplings: Number of alternating couplings.
        first: Number of features in the first part; half of them, rounded down, by default.
        positive: Whether the diagonals must be positive.
        tolerance: For floats: entries below this share of the largest count as zero.

    Returns:
        "cannot" if both orders are excluded; "can" if one of them, or a shorter pattern, is proved
        possible.

    Raises:
        ArgumentError: As for `check_pattern`.

    Source:
        Ours.

    Example:
        >>> import numpy as np
        >>> rotation_of_three = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
        >>> T = np.kron(np.diag([0, 1]), rotation_of_three) + np.kron(np.diag([1, 0]), np.eye(3))
        >>> print(check_count(T, 5).verdict, check_count(T, 6).verdict)
        cannot can
    """
    cases = _cases(matrix, first, positive=positive, tolerance=tolerance)
    verdict = _either_order(cases, positive_int("couplings", couplings))
    if verdict.verdict == "unknown":
        for fewer in range(couplings - 1, 0, -1):
            shorter = _either_order(cases, fewer)
            if shorter.verdict == "can":
                return shorter
    return verdict


def fewest_couplings(
    matrix: object,
    *,
    first: int | None = None,
    positive: bool = True,
    tolerance: float = TOLERANCE,
) -> tuple[int, tuple[Verdict, ...]]:
    """Returns the smallest number of couplings that is not excluded, with the proofs.

    Args:
        matrix: As for `check_pattern`.
        first: Number of features in the first part; half of them, rounded down, by default.
        positive: Whether the diagonals must be positive.
        tolerance: For floats: entries below this share of the largest count as zero.

    Returns:
        The smallest count up to six that is not excluded, and the verdicts up to it, in order. If
        all six are excluded, as parts of different sizes allow, the count is 6 and every verdict
        is "cannot".

    Raises:
        ArgumentError: As for `check_pattern`, or the determinant is negative, which excludes any
            number of couplings with positive diagonals.

    Source:
        Ours.

    Example:
        >>> fewest_couplings([[1, 0], [5, 1]])[0], fewest_couplings([[-1, 0], [0, -1]])[0]
        (1, 4)
    """
    cases = _cases(matrix, first, positive=positive, tolerance=tolerance)
    verdicts: list[Verdict] = []
    for count in range(1, ALWAYS_ENOUGH + 1):
        verdicts.append(_either_order(cases, count))
        if verdicts[-1].argument == "determinant":
            raise ArgumentError(
                "'matrix' should have a positive determinant for couplings with positive "
                "diagonals: allow any sign, or change the sign of one row first."
            )
        if verdicts[-1].verdict != "cannot":
            return count, tuple(verdicts)
    return ALWAYS_ENOUGH, tuple(verdicts)


def _either_order(cases: _Cases, count: int) -> Verdict:
    """Returns one verdict for both patterns of a length."""
    patterns = tuple(("LU" * count)[i : i + count] for i in (0, 1))
    verdicts = [_verdict(cases, pattern) for pattern in patterns]
    for verdict in verdicts:
        if verdict.verdict == "can" or verdict.argument == "determinant":
            return verdict
    joined = "cannot" if all(v.verdict == "cannot" for v in verdicts) else "unknown"
    reason = " ".join(f"{' '.join(v.patterns[0])}: {v.reason}" for v in verdicts)
    argument = ", ".join(dict.fromkeys(v.argument for v in verdicts))
    return Verdict(patterns, joined, reason, argument, cases.numbers.exact)


def _verdict(cases: _Cases, pattern: str) -> Verdict:
    """Returns the verdict for one pattern."""
    numbers = cases.numbers
    finding = (
        cases.lower.judge(len(pattern)) if pattern[0] == "L" else cases.upper.judge(len(pattern))
    )
    if cases.negative:
        finding = Conclusion(
            "cannot",
            "determinant",
            "The determinant is negative; with positive diagonals it would be positive.",
        )
    reason = finding.reason
    if not numbers.exact:
        reason += f" (To rounding: entries below {numbers.tolerance:g} of the largest are zero.)"
    return Verdict((pattern,), finding.verdict, reason, finding.argument, numbers.exact)


def _cases(matrix: object, first: int | None, *, positive: bool, tolerance: float) -> _Cases:
    """Returns the input of the arguments, or raises ArgumentError for an invalid matrix."""
    array, numbers = numbers_of(matrix, positive_float("tolerance", tolerance))
    size = len(array) // 2 if first is None else positive_int("first", first)
    if size >= len(array):
        raise ArgumentError(
            f"'first' should be below {len(array)}, got {size}: both parts need a feature."
        )
    try:
        inverse = numbers.inverse(array)
    except NumericalError as error:
        raise ArgumentError(
            "'matrix' should be invertible, as every product of couplings is."
        ) from error
    lower, upper = Case.of(array, inverse, first=size, positive=positive, numbers=numbers)
    return _Cases(lower, upper, numbers, positive and numbers.sign(array) == -1)


def _checked_pattern(pattern: str) -> str:
    """Returns the pattern if L's and U's alternate in it."""
    if not isinstance(pattern, str) or not re.fullmatch("L?(UL)*U?", pattern) or not pattern:
        raise ArgumentError(
            f"'pattern' should alternate L and U, such as 'LULUL', got {pattern!r}."
        )
    return pattern
