"""Proofs that a given linear map is no product of so many couplings, or that it is one."""

import re
from dataclasses import dataclass
from typing import Literal

from kappaflow._checks import positive_float, positive_int
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.theory.arguments import Case, Finding
from kappaflow.theory.exact import Numbers, numbers_of

TOLERANCE = 1e-10
ENOUGH = 6


@dataclass(frozen=True)
class Verdict:
    """What is known about writing a map as a product of a word of L's and U's.

    Args:
        words: The orders that were looked at, in the order of the product: T = L U means first U.
        verdict: "cannot" (for all words), "can" (for one), or "unknown": no argument applies.
        reason: A sentence, one for each word that is excluded.
        argument: The name of the argument, or of each.
        exact: Whether it is about the very matrix; else it holds to rounding, and says so.
    """

    words: tuple[str, ...]
    verdict: Literal["can", "cannot", "unknown"]
    reason: str
    argument: str
    exact: bool

    def __str__(self) -> str:
        words = " or ".join(" ".join(word) for word in self.words)
        return f"{words}: {self.verdict}. {self.reason}"


@dataclass(frozen=True)
class _Cases:
    """T as seen by words that begin with L, and with U; whether its determinant forbids all."""

    lower: Case
    upper: Case
    numbers: Numbers
    negative: bool


def check_word(
    matrix: object,
    word: str,
    *,
    first: int | None = None,
    positive: bool = True,
    tolerance: float = TOLERANCE,
) -> Verdict:
    r"""Returns whether a map can be a product of couplings in one order.

    Args:
        matrix: T, invertible n x n, acting on columns. Whole numbers and fractions are taken
            exactly; other floats to rounding.
        word: Such as "LULUL", left to right as in the product. L changes the second part, U the
            first. Shorter words are contained: a coupling may be the identity.
        first: Features in the first part; half of them, rounded down, if not given.
        positive: Whether the diagonals must be positive.
        tolerance: For floats: entries below this share of the largest count as zero.

    Returns:
        The verdict. "unknown" says nothing: the arguments are sufficient, not complete.

    Raises:
        ArgumentError: The matrix is not square, not finite or singular, the word does not
            alternate, or `first` leaves a part empty.

    Note:
        For one and two couplings the criterion is exact, also for three with T12 invertible or
        zero. For four, and five with T12 = 0, T11 and the block 22 of the inverse must have equal
        spectra after a scaling of each by a diagonal matrix. Signs of coefficients (the trace
        first), or cycles, which have eigenvalues that are not real, exclude that.

    Source:
        Ours, but for the count itself: Urschel 2023.

    Example:
        >>> quarter_turns = [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 1], [0, 0, -1, 0]]
        >>> check_word(quarter_turns, "LULUL").argument
        'trace'
    """
    cases = _cases(matrix, first, positive=positive, tolerance=tolerance)
    return _verdict(cases, _checked_word(word))


def check_count(
    matrix: object,
    couplings: int,
    *,
    first: int | None = None,
    positive: bool = True,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """Returns whether a map can be a product of so many couplings, in either order.

    Args:
        matrix: As for `check_word`.
        couplings: How many, alternating.
        first: Features in the first part; half of them, rounded down, if not given.
        positive: Whether the diagonals must be positive.
        tolerance: For floats: entries below this share of the largest count as zero.

    Returns:
        "cannot" if both orders are excluded, "can" if one of them, or a shorter word, is proved
        possible.

    Raises:
        ArgumentError: As for `check_word`.

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
    """Returns a number such that fewer couplings are proved not to do, and the proofs.

    Args:
        matrix: As for `check_word`.
        first: Features in the first part; half of them, rounded down, if not given.
        positive: Whether the diagonals must be positive.
        tolerance: For floats: entries below this share of the largest count as zero.

    Returns:
        The smallest count, up to six, that is not excluded, and the verdicts up to it, in order.

    Raises:
        ArgumentError: As for `check_word`, or no count will do, as the determinant is negative.

    Source:
        Ours.

    Example:
        >>> fewest_couplings([[1, 0], [5, 1]])[0], fewest_couplings([[-1, 0], [0, -1]])[0]
        (1, 4)
    """
    cases = _cases(matrix, first, positive=positive, tolerance=tolerance)
    verdicts: list[Verdict] = []
    for count in range(1, ENOUGH + 1):
        verdicts.append(_either_order(cases, count))
        if verdicts[-1].argument == "determinant":
            raise ArgumentError(
                "'matrix' should have a positive determinant for couplings with positive "
                "diagonals: allow any sign, or change the sign of one row first."
            )
        if verdicts[-1].verdict != "cannot":
            return count, tuple(verdicts)
    return ENOUGH, tuple(verdicts)


def _either_order(cases: _Cases, count: int) -> Verdict:
    """Returns the verdicts on both words of a length in one."""
    words = tuple(("LU" * count)[i : i + count] for i in (0, 1))
    found = [_verdict(cases, word) for word in words]
    for verdict in found:
        if verdict.verdict == "can" or verdict.argument == "determinant":
            return verdict
    joined = "cannot" if all(v.verdict == "cannot" for v in found) else "unknown"
    reason = " ".join(f"{' '.join(v.words[0])}: {v.reason}" for v in found)
    argument = ", ".join(dict.fromkeys(v.argument for v in found))
    return Verdict(words, joined, reason, argument, cases.numbers.exact)


def _verdict(cases: _Cases, word: str) -> Verdict:
    """Returns what the arguments say of one word."""
    numbers = cases.numbers
    finding = cases.lower.judge(len(word)) if word[0] == "L" else cases.upper.judge(len(word))
    if cases.negative:
        finding = Finding(
            "cannot",
            "determinant",
            "The determinant is negative, that of couplings with positive diagonals is not.",
        )
    reason = finding.reason
    if not numbers.exact:
        reason += f" (To rounding: entries below {numbers.tolerance:g} of the largest are zero.)"
    return Verdict((word,), finding.verdict, reason, finding.argument, numbers.exact)


def _cases(matrix: object, first: int | None, *, positive: bool, tolerance: float) -> _Cases:
    """Returns what the arguments need, computed once, or says what is wrong with the matrix."""
    given, numbers = numbers_of(matrix, positive_float("tolerance", tolerance))
    size = len(given) // 2 if first is None else positive_int("first", first)
    if size >= len(given):
        raise ArgumentError(
            f"'first' should be below {len(given)}, got {size}: both parts need a feature."
        )
    try:
        inverse = numbers.inverse(given)
    except NumericalError as error:
        raise ArgumentError(
            "'matrix' should be invertible, as every product of couplings is."
        ) from error
    lower, upper = Case.of(given, inverse, first=size, positive=positive, numbers=numbers)
    return _Cases(lower, upper, numbers, positive and numbers.sign(given) == -1)


def _checked_word(word: str) -> str:
    """Returns the word if L's and U's alternate in it."""
    if not isinstance(word, str) or not re.fullmatch("L?(UL)*U?", word) or not word:
        raise ArgumentError(f"'word' should alternate L and U, such as 'LULUL', got {word!r}.")
    return word
