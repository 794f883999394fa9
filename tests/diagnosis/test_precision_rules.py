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


class Multiplied(Right):
    """Adds a log-scale computed by a matrix product, converted to float32 or not."""

    def __init__(self, *, converts):
        super().__init__()
        self.network, self.converts = torch.nn.Linear(1, FEATURES), converts

    def log_scale(self, x):
        log_scale = self.network(x.new_ones(1, 1))
        return log_scale.to(x.dtype) if self.converts else log_scale

    def encode(self, x):
        z, log_det = super().encode(x)
        log_scale = self.log_scale(x)
        return z * log_scale.exp(), log_scale.sum() + log_det.to(log_scale.dtype)

    def decode(self, z):
        log_scale = self.log_scale(z)
        x, log_det = super().decode(z / log_scale.exp())
        return x, log_det - log_scale.sum()


@pytest.mark.parametrize("converts", [False, True])
def test_a_log_det_under_autocast_is_noted_unless_it_is_converted(converts):
    """KF703, a note."""
    result = findings(Multiplied(converts=converts))
    assert {code: finding.severity for code, finding in result.items()} == (
        {} if converts else {"KF703": "note"}
    )
