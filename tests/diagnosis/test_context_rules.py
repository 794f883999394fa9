"""Rules on contexts: planted faults at a few seeds."""

import pytest
import torch

from diagnosis.faulty import SEEDS, findings, moved, points

CONTEXT = torch.linspace(-1, 1, 300)[:, None]


class Given(torch.nn.Module):
    """A conditional flow that optionally scales its first column by the context."""

    def __init__(self, seed, *, steep=0.0, reads=True):
        super().__init__()
        self.flow, self.steep, self.reads = moved(seed, context_features=1), steep, reads

    def read(self, context):
        return context if self.reads else 0 * context

    def scale(self, context):
        steep = torch.where(context > 0.99, self.steep, 0.0)
        return torch.cat((steep, -steep, 0 * steep, 0 * steep), 1)

    def encode(self, x, context):
        z, log_det = self.flow.bijection(x, self.read(context))
        return z * self.scale(context).exp(), log_det

    def decode(self, z, context):
        return self.flow.bijection.inverse(z * (-self.scale(context)).exp(), self.read(context))


@pytest.mark.slow
def test_equal_contexts_are_moved():
    """They say whether the flow reads them, and that they are equal."""
    unread, read = (
        findings(Given(0, reads=reads), points(0), torch.ones(64, 1)) for reads in (False, True)
    )
    assert set(unread) == set(read) == {"KF210"}
    assert "does not change" in unread["KF210"].message and "constant" in read["KF210"].message


@pytest.mark.slow
@SEEDS
def test_a_context_of_bad_conditioning_is_named(seed):
    """KF306: beyond the first 64 rows, one of the last two; a warning where digits are lost."""
    x = points(seed, 300)
    by_code = findings(Given(seed, steep=4.0), x, CONTEXT)
    assert by_code["KF306"].evidence["row"] in (298, 299)
    assert findings(Given(seed, steep=7.0), x, CONTEXT)["KF306"].severity == "warning"
