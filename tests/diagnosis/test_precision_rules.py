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
    """Adds a log-scale computed by a matrix product."""

    def __init__(self, *, kept):
        super().__init__()
        self.network, self.kept = torch.nn.Linear(1, FEATURES), kept

    def log_scale(self, x):
        value = self.network(x.new_ones(1, 1))
        return value.float() if self.kept and x.dtype == torch.float32 else value

    def encode(self, x):
        z, log_det = super().encode(x)
        log_scale = self.log_scale(x)
        return z * log_scale.exp(), log_scale.sum().expand(len(x)) + (
            log_det if self.kept else log_det.to(log_scale.dtype)
        )

    def decode(self, z):
        log_scale = self.log_scale(z)
        x, log_det = super().decode(z / log_scale.exp())
        return x, log_det - log_scale.sum()


def test_a_log_det_under_autocast_is_noted():
    """KF703; log-scales that are converted first give no finding."""
    assert [one.severity for one in findings(Multiplied(kept=False)).values()] == ["note"]
    assert findings(Multiplied(kept=True)) == {}
