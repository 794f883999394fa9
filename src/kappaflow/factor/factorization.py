"""What a factorization returns: the couplings, and what they are worth."""

from dataclasses import dataclass

from torch import Tensor

from kappaflow.bijection import Chain
from kappaflow.factor.coupling import LinearCoupling

LOOSE = 1e-12  # relative residual beyond which a better conditioned one is not the better one


@dataclass(frozen=True, eq=False)
class Factorization:
    """A linear map T as couplings, T = M1 M2 ...: the last coupling is applied first.

    Attributes:
        matrix: T, (n, n), float64.
        couplings: In the order of the product.
        residual: |M1 M2 ... - T| / |T| in Frobenius norms, the product in higher precision.
        method: The route: "direct", "rotation", "eleven" or "tracking".
        flipped: Which coupling has the one negative entry in its diagonal, that a map with a
            negative determinant needs; None where all diagonals are positive.
        note: Why so many couplings, in a sentence; may be empty.
    """

    matrix: Tensor
    couplings: tuple[LinearCoupling, ...]
    residual: float
    method: str
    flipped: int | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.couplings)

    @property
    def condition_numbers(self) -> tuple[float, ...]:
        """Of each coupling, in the order of the product."""
        return tuple(coupling.condition_number for coupling in self.couplings)

    @property
    def condition_number(self) -> float:
        """The largest of a coupling; 1 for the identity, which needs none."""
        return max(self.condition_numbers, default=1.0)

    @property
    def is_exact(self) -> bool:
        """Whether the residual is that of rounding: at most 1e-12."""
        return self.residual <= LOOSE

    def bijection(self) -> Chain:
        """Returns the map as a chain: `fact.bijection()(x)[0]` is x T^T, for rows x.

        Returns:
            The couplings themselves, not copies, the last of the product first.

        Example:
            >>> import torch, kappaflow as kf
            >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
            >>> chain = kf.factor_linear(turn).bijection()
            >>> chain(torch.tensor([[3.0, 7.0]], dtype=torch.float64))[0].detach().round()
            tensor([[-7.,  3.]], dtype=torch.float64)
        """
        return Chain(reversed(self.couplings))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{number:.3g}" for number in self.condition_numbers)
        parts = [
            f"{len(self.matrix)} features in {len(self)} couplings, by {self.method}",
            f"relative residual {self.residual:.1e}",
            f"condition numbers {sizes or 'none'}",
        ]
        if self.flipped is not None:
            parts.append(f"one sign flip in coupling {self.flipped}")
        if self.note:
            parts.append(self.note)
        return f"Factorization({'; '.join(parts)})"


def rank(found: Factorization) -> tuple[bool, float]:
    """Returns what is least for the best of several: well conditioned, if exact to rounding."""
    return not found.is_exact, found.condition_number
