"""The arguments of theorems A and F, for a pattern that begins with L: L, L U, L U L and so on."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from kappaflow_studies.theory.diagonal_scalings import (
    always_not_real,
    always_real,
    coefficient_signs,
    degrees_to_look_at,
    is_triangular,
    pivot_signs,
    ranks_above_diagonal,
    rows_scaled,
    scaled_alike,
)
from kappaflow_studies.theory.exact import Array, Number, Numbers


@dataclass(frozen=True)
class Conclusion:
    """A verdict, the name of the argument, and a sentence."""

    verdict: Literal["can", "cannot", "unknown"]
    argument: str
    reason: str


class _Names(NamedTuple):
    """Names of the blocks of T and T^-1, of the two diagonals, and of the first letter."""

    P: str
    Q: str
    R: str
    S: str
    inverse_Q: str
    inverse_S: str
    C: str
    B: str
    L: str


UPRIGHT = _Names("T11", "T12", "T21", "T22", "(T^-1)12", "(T^-1)22", "C", "B", "L")
EXCHANGED = _Names("T22", "T21", "T12", "T11", "(T^-1)21", "(T^-1)11", "B", "C", "U")


@dataclass(frozen=True)
class Case:
    """The blocks [[P, Q], [R, S]] of T, two blocks of T^-1, and the conditions.

    If `swapped`, the parts have been exchanged, for patterns that begin with U. Reasons still use
    the user's names for the blocks, and for the diagonals C and B (of the first and second part).
    """

    P: Array
    Q: Array
    R: Array
    S: Array
    inverse_Q: Array
    inverse_S: Array
    positive: bool
    numbers: Numbers
    swapped: bool

    @classmethod
    def of(
        cls, matrix: Array, inverse: Array, *, first: int, positive: bool, numbers: Numbers
    ) -> tuple["Case", "Case"]:
        """Returns the cases for patterns that begin with L, and with U."""
        a, b = slice(None, first), slice(first, None)
        return tuple(  # pyright: ignore[reportReturnType]
            cls(
                matrix[part, part],
                matrix[part, rest],
                matrix[rest, part],
                matrix[rest, rest],
                inverse[part, rest],
                inverse[rest, rest],
                positive,
                numbers,
                swapped=part is b,
            )
            for part, rest in ((a, b), (b, a))
        )

    @property
    def name(self) -> "_Names":
        """The names of the blocks and diagonals as the user sees them."""
        return EXCHANGED if self.swapped else UPRIGHT

    def judge(self, length: int) -> Conclusion:
        """Returns what is known about T = L U L ... with this many factors."""
        if length <= 3:
            return (self._one, self._two, self._three)[length - 1]()
        nearly_equal = abs(len(self.P) - len(self.S)) <= 1
        if (nearly_equal and length >= 6) or len(self.P) == len(self.S) == 1:
            name = "A" if self.even else "F"
            return Conclusion("can", "theorem", f"This many represent every map (Theorem {name}).")
        if length == 5 and self._five_by_kernels():
            n = self.name
            return Conclusion(
                "can",
                "theorem",
                f"The rows of {n.Q} are independent, and its kernel is not that of {n.inverse_Q} "
                "(Theorem F).",
            )
        return self._ranks(length) or self._four_or_more(length)

    def _four_or_more(self, length: int) -> Conclusion:
        """Returns what the spectra imply for four and for five factors."""
        if length == 4:
            return self._spectra("For four couplings")
        return (
            self._five()
            if length == 5
            else _unknown("No argument applies to this many couplings.")
        )

    def _ranks(self, length: int) -> Conclusion | None:
        """Returns "cannot" if T22 or T11 is more ranks from diagonal than couplings add."""
        n, odd, half = self.name, length % 2, length // 2
        last, first = not self.R.any() and not odd, not self.Q.any()
        for name, block, useful, passage in (
            (n.S, self.S, half - (last or first), len(self.P)),
            (n.P, self.P, half - (first if odd else 1), len(self.S)),
        ):
            rank_distance = ranks_above_diagonal(block, self.positive)
            if rank_distance > passage * useful:
                return _cannot(
                    "rank",
                    f"{name} is at least {rank_distance} ranks from every diagonal matrix"
                    f"{self._and_positive}; this pattern adds at most {passage * useful}.",
                )
        return None

    @property
    def even(self) -> bool:
        """Whether both parts have the same size."""
        return self.P.shape == self.S.shape

    @cached_property
    def q_singular(self) -> bool:
        """Whether T12 is not square or has no inverse."""
        return not self.even or self.numbers.is_singular(self.Q)

    def _one(self) -> Conclusion:
        """Returns whether T is L: the first rows are those of the identity."""
        moved = self.P - np.eye(len(self.P), dtype=int)
        if self.Q.any() or self.numbers.cleaned(moved, self.P).any():
            return _cannot("structure", "A single coupling leaves one part unchanged.")
        if not self._scales(self.S):
            return _cannot("structure", f"{self.name.S} is not diagonal{self._and_positive}.")
        return _can("T has the form of a coupling.")

    def _two(self) -> Conclusion:
        """Returns whether T is L U: P and its Schur complement S - R P^-1 Q are diagonal."""
        if not self._scales(self.P):
            return _cannot("structure", f"{self.name.P} is not diagonal{self._and_positive}.")
        taken = self.numbers.product(self.R, self.Q / np.diag(self.P)[:, None])
        if not self._scales(self.numbers.cleaned(self.S - taken, self.S, taken)):
            return _cannot(
                "structure",
                f"The Schur complement of {self.name.P} is not diagonal{self._and_positive}.",
            )
        return _can(f"{self.name.P} and its Schur complement are diagonal.")

    def _three(self) -> Conclusion:
        """Returns whether T is L U L: P = C + Q A, S = B + A' Q, R = A' P + B A."""
        if self.q_singular:
            return self._three_on_null_spaces()
        if self.numbers.too_ill_conditioned(self.Q):
            return _unknown(
                f"{self.name.Q} is too close to a singular matrix to decide in floats."
            )
        inverse = self.numbers.inverse(self.Q)
        product = self.numbers.product
        through = product(product(self.S, inverse), self.P)
        target = self.numbers.cleaned(through - self.R, through, self.R)
        n = self.name
        equation = f"{n.S} {n.Q}^-1 {n.P} - {n.R} = {n.B} {n.Q}^-1 {n.C}"
        if scaled_alike(target, inverse, self._allowed, self.numbers):
            return _can(f"Some diagonal {n.C} and {n.B} give {equation}.")
        return _cannot(
            "structure", f"No diagonal {n.C} and {n.B}{self._and_positive} give {equation}."
        )

    def _three_on_null_spaces(self) -> Conclusion:
        """Returns "cannot" if S or P, restricted to the kernel of Q, cannot act as B or C."""
        n = self.name
        right = self.numbers.null_space(self.Q)
        left = self.numbers.null_space(self.Q.T)
        for name, moved, basis in (
            (f"On the kernel of {n.Q}, {n.S}", self.numbers.product(self.S, right), right),
            (
                f"On the kernel of {n.Q} transposed, {n.P} transposed",
                self.numbers.product(self.P.T, left),
                left,
            ),
        ):
            if not rows_scaled(self.numbers.cleaned(moved), basis, self._allowed, self.numbers):
                return _cannot(
                    "structure", f"{name} does not act as a diagonal matrix{self._and_positive}."
                )
        if not self.Q.any():
            return _can(f"{n.Q} is zero, {n.P} and {n.S} are diagonal.")
        return _unknown(f"{self.name.Q} is neither zero nor an invertible square.")

    def _five(self) -> Conclusion:
        """Returns the verdict from Q: the last L changes P freely if Q is regular."""
        n = self.name
        if not self.Q.any():
            return self._spectra(f"As {n.Q} = 0, the last {n.L} has no effect on {n.P}. So")
        if not self.q_singular:
            return _can(f"{n.Q} is invertible (Theorem A).")
        return _unknown(f"{self.name.Q} is neither zero nor an invertible square.")

    def _five_by_kernels(self) -> bool:
        """Returns whether Q, (d, d + 1), has rank d and another kernel than (T^-1)12."""
        if len(self.S) != len(self.P) + 1:
            return False
        kernel = self.numbers.null_space(self.Q)
        moved = self.numbers.product(self.inverse_Q, kernel)
        return kernel.shape[1] == 1 and bool(self.numbers.cleaned(moved, self.inverse_Q).any())

    def _spectra(self, why: str) -> Conclusion:
        """Returns whether C^-1 P and (T^-1)22 B can have the same spectrum, apart from ones."""
        n, blocks = self.name, (self.P, self.inverse_S)
        names = (f"{n.C}^-1 {n.P}", f"{n.inverse_S} {n.B}")
        equal = f"{why} the spectra of {names[0]} and {names[1]} must agree, for diagonal C and B"
        equal += f"{self._and_positive}{'' if self.even else ', except for ones'}."
        for i in (0, 1):
            real = always_real(blocks[i], self.positive)
            not_real = always_not_real(blocks[1 - i], self.positive)
            if real and not_real:
                return _cannot(
                    "reality",
                    f"{equal} The spectrum of {names[i]} is always real (it is {real}), that of "
                    f"{names[1 - i]} never is (it has {not_real}).",
                )
        if not self.even:
            return self._uneven_traces(equal)
        return self._coefficients(equal) or self._chosen_spectra()

    def _uneven_traces(self, equal: str) -> Conclusion:
        """Returns "cannot" if the traces cannot differ by the number of ones, q - p."""
        left, right = (
            coefficient_signs(block, 1, self.positive, self.numbers)
            for block in (self.P, self.inverse_S)
        )
        more = len(self.S) - len(self.P)
        less, larger = (left, right) if more > 0 else (right, left)
        if -1 not in less and 1 not in larger:
            return _cannot(
                "trace",
                f"{equal} But one trace is always {_sign_names(less)}, the other "
                f"{_sign_names(larger)}; it should be {abs(more)} more.",
            )
        return _unknown(f"The spectra of {self.name.P} and {self.name.inverse_S} may fit.")

    def _coefficients(self, equal: str) -> Conclusion | None:
        """Returns "cannot" if, in some degree, the two coefficients never have the same sign."""
        for degree in degrees_to_look_at(len(self.P)):
            left, right = (
                coefficient_signs(block, degree, self.positive, self.numbers)
                for block in (self.P, self.inverse_S)
            )
            if not left & right:
                name = "trace" if degree == 1 else f"sum of principal minors of size {degree}"
                return _cannot(
                    "trace" if degree == 1 else "coefficient",
                    f"{equal} But the {name} of the first is always {_sign_names(left)}, that of "
                    f"the second {_sign_names(right)}.",
                )
        return None

    def _chosen_spectra(self) -> Conclusion:
        """Returns "can" if C and B can give both matrices the same distinct real eigenvalues."""
        n, P, S = self.name, np.diag(self.P), np.diag(self.inverse_S)
        if is_triangular(self.P) and is_triangular(self.inverse_S) and P.all() and S.all():
            both = f"{n.P} and {n.inverse_S} are triangular up to the order of features"
            if self.positive and (P < 0).sum() != (S < 0).sum():
                return _cannot(
                    "inertia", f"{both}, with unequal numbers of negative entries on the diagonal."
                )
            return _can(f"{both}: C and B scale their spectra to any numbers.")
        signs_P, signs_S = (pivot_signs(block, self.numbers) for block in (self.P, self.inverse_S))
        if signs_P and signs_S and (not self.positive or signs_P == signs_S):
            return _can(
                f"No leading minor of {n.P} or {n.inverse_S} is zero: entries of C and B that are "
                "far enough apart make the spectra equal, at very high condition numbers."
            )
        return _unknown(f"The spectra of {n.P} and {n.inverse_S} may fit.")

    @property
    def _and_positive(self) -> str:
        return " with positive entries" if self.positive else ""

    def _scales(self, matrix: Array) -> bool:
        """Returns whether a matrix is diagonal and allowed as the diagonal of a coupling."""
        diagonal = np.diag(matrix)
        allowed = (diagonal > 0) if self.positive else (diagonal != 0)
        return bool(allowed.all()) and not (matrix != np.diag(diagonal)).any()

    def _allowed(self, ratio: Number) -> bool:
        return bool(ratio > 0) if self.positive else bool(ratio != 0)


def _sign_names(signs: frozenset[int]) -> str:
    named = {-1: "negative", 0: "zero", 1: "positive"}
    return " or ".join(named[sign] for sign in sorted(signs))


def _can(reason: str) -> Conclusion:
    return Conclusion("can", "structure", reason)


def _cannot(argument: str, reason: str) -> Conclusion:
    return Conclusion("cannot", argument, reason)


def _unknown(reason: str) -> Conclusion:
    return Conclusion("unknown", "none", reason)
