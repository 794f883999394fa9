"""The doctor in a test of somebody else."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.testing import assert_healthy

X = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))


TWICE = 2 * math.log(2)


def doubling(log_det=TWICE):
    """Returns two functions, of which the first may say a wrong log_det."""
    return (
        lambda x: (2 * x, torch.full((len(x),), log_det)),
        lambda z: (z / 2, torch.full((len(z),), -TWICE)),
    )


@pytest.mark.slow
def test_a_healthy_flow_passes():
    """Ours, and any other."""
    assert_healthy(doubling(), X)
    assert_healthy(kf.nice(2, depth=2, hidden=(4,)), X)


def test_a_faulty_one_fails_as_an_assertion_with_code_cause_and_cure():
    """Unless its code is left out."""
    with pytest.raises(
        AssertionError, match=r"error KF203 in layer 1 encode: The log_det .* wrong sign"
    ):
        assert_healthy(doubling(0.0), X)
    assert_healthy(doubling(0.0), X, ignore=["KF203"])
    assert_healthy(doubling(0.0), X, select=["KF1", "KF3"])


def test_notes_pass_unless_nothing_may():
    """An untrained flow waits for its first data: a note."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    assert_healthy(flow, X)
    with pytest.raises(AssertionError, match="note KF401"):
        assert_healthy(flow, X, allow="nothing")
    with pytest.raises(ArgumentError, match="'allow' should be one of"):
        assert_healthy(flow, X, allow="errors")


def test_warnings_fail_unless_they_are_allowed():
    """A condition number that is large, but not too large."""
    layer = kf.bijections.ElementwiseAffine(2, log_scale=[9.5, 0.0])
    flow = kf.Flow(kf.StandardNormal(2), layer)
    x = X * torch.tensor([1e-4, 1.0])  # where the flow has its mass
    with pytest.raises(AssertionError, match="warning KF301 in layer 1 ElementwiseAffine"):
        assert_healthy(flow, x)
    assert_healthy(flow, x, allow="warning")
