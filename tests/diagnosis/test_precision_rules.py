"""Checks of dtypes, where the truth table plants no such fault."""

import pytest
import torch

from diagnosis.faulty import FEATURES, Right, findings


class Typed(Right):
    """Returns values in a dtype."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype
        self.register_buffer("scale", torch.ones(FEATURES))

    def encode(self, x):
        z, log_det = super().encode(x)
        return z.to(self.dtype), log_det


@pytest.mark.parametrize(
    ("dtype", "severity", "message"),
    [
        (torch.float64, "warning", "The forward direction returns float64"),
        (torch.float32, "note", "In a float64 copy, the forward direction returns float32"),
    ],
)
def test_values_of_another_dtype_are_found(dtype, severity, message):
    """KF702: a warning in the flow's dtype, a note if only float64 is lost."""
    finding = findings(Typed(dtype))["KF702"]
    assert finding.severity == severity and finding.message.startswith(message)
