"""Averages over draws, with what is known about their accuracy."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """An average over independent draws.

    Args:
        value: The average.
        standard_error: Of the average, estimated from the same draws; nan for a single one.
        draws: How many there were.

    Example:
        >>> import torch
        >>> Estimate.of(torch.tensor([1.0, 2.0, 3.0])).value
        2.0
    """

    value: float
    standard_error: float
    draws: int

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        """Returns the average of these values, (n,), each from a draw of its own."""
        wide = values.detach().double().flatten()
        n = len(wide)
        error = wide.std().item() / n**0.5 if n > 1 else float("nan")
        return cls(wide.mean().item(), error, n)

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.standard_error:.2g}"
