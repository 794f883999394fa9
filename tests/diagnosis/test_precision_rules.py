"""Checks of dtypes: planted faults at a few seeds."""

import pytest
import torch

from diagnosis.faulty import FEATURES, SEEDS, Right, findings, points


class Typed(Right):
    """Converts its output."""

    def __init__(self, seed, *, value=None, log_det=None):
        super().__init__(seed)
        self.types = value, log_det
        self.register_buffer("scale", torch.ones(FEATURES))

    def encode(self, x):
        z, log_det = super().encode(x)
        value, other = self.types
        return z.to(value or z.dtype), log_det.to(other or log_det.dtype)


@pytest.mark.slow
@SEEDS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_log_det_of_few_digits_is_found(seed, dtype):
    """KF701 with the dtype."""
    found = findings(Typed(seed, log_det=dtype), points(seed))["KF701"]
    assert found.severity == "warning" and found.evidence["type"] == str(dtype)[6:]
    assert findings(Typed(seed), points(seed)) == {}


@pytest.mark.slow
@SEEDS
def test_values_of_another_dtype_are_found(seed):
    """KF702: a warning in the flow's dtype, a note if only float64 is lost."""
    found = findings(Typed(seed, value=torch.float64), points(seed))["KF702"]
    assert found.severity == "warning" and found.evidence["got"] == "float64"
    found = findings(Typed(seed, value=torch.float32), points(seed))
    assert set(found) == {"KF702"} and found["KF702"].severity == "note"
    assert found["KF702"].message.startswith("In a float64 copy, the forward direction")


class Multiplied(Right):
    """Adds a log-scale computed by a matrix product."""

    def __init__(self, seed, *, kept):
        super().__init__(seed)
        self.network, self.kept = torch.nn.Linear(1, FEATURES), kept

    def log_scale(self, x):
        found = self.network(x.new_ones(1, 1))
        return found.float() if self.kept and x.dtype == torch.float32 else found

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


@pytest.mark.slow
@SEEDS
def test_a_log_det_under_autocast_is_noted(seed):
    """KF703; log-scales that are converted first give no finding."""
    found = findings(Multiplied(seed, kept=False), points(seed))
    assert set(found) == {"KF703"} and found["KF703"].severity == "note"
    assert findings(Multiplied(seed, kept=True), points(seed)) == {}
