"""A coupling with linear ends is one affine coupling."""

import pytest
import torch

import kappaflow as kf
from cases import additive, affine, mixed
from kappaflow.errors import ArgumentError


@pytest.mark.parametrize("kind", [affine, additive])
def test_it_is_one_affine_coupling(kind):
    """What is kept passes; the rest is scaled and shifted by functions of it."""
    torch.manual_seed(0)
    partition = kf.Partition(5, (0, 3))
    coupling = mixed(kind(partition), before=True, after=True).double()
    for parameter in coupling.parameters():
        parameter.data.normal_(0, 0.5)
    kept = torch.randn(2, dtype=torch.float64).expand(4, 2)
    changed = torch.randn(4, 3, dtype=torch.float64)
    changed[3] = changed[0] + changed[1] - changed[2]  # an affine map keeps such sums
    z, log_det = coupling(partition.merge(kept, changed))
    z_kept, z_changed = partition.split(z)
    assert torch.equal(z_kept, kept)
    assert torch.allclose(z_changed[3], z_changed[0] + z_changed[1] - z_changed[2])
    assert torch.allclose(log_det, log_det[:1])
    slopes = (z_changed[1:3] - z_changed[0]) / (changed[1:3] - changed[0])
    assert torch.allclose(slopes[0], slopes[1]), "each feature has a slope of its own"
    assert torch.allclose(slopes[0].abs().log().sum(), log_det[0])


def test_its_parts_are_given_back():
    """In their order, and those that are there only."""
    middle = affine(kf.Partition.half(4))
    both = mixed(middle, before=True, after=True)
    assert list(both.parts()) == [both.before, middle, both.after]
    behind = mixed(middle, after=True)
    assert list(behind.parts()) == [middle, behind.after]


def test_ends_of_another_partition_are_refused():
    """They would not be one coupling; nor is a coupling without ends one of this kind."""
    half = kf.Partition.half(4)
    with pytest.raises(ArgumentError, match="'after' should keep and change"):
        kf.SandwichCoupling(affine(half), after=kf.LinearCoupling(half.swapped()))
    with pytest.raises(ArgumentError, match="got None twice"):
        kf.SandwichCoupling(affine(half))
    with pytest.raises(ArgumentError, match="'coupling' should be an affine"):
        kf.SandwichCoupling(kf.ActNorm(4), kf.LinearCoupling(half))
    with pytest.raises(ArgumentError, match="'before' should be a LinearCoupling"):
        kf.SandwichCoupling(affine(half), affine(half))
