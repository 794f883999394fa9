"""Neighbours that change the same part become one coupling."""

import pytest
import torch

import kappaflow as kf
from cases import affine, linear, mixed
from kappaflow.rewrite.merge import backward, forward, merged, pair

HALF = kf.Partition.half(5)


def same(parts, others):
    """Asserts that two lists of layers are one function."""
    x = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, log_det = kf.Chain(parts).double()(x)
    other, other_log_det = kf.Chain(others).double()(x)
    assert torch.allclose(other, z, rtol=1e-12, atol=1e-12)
    assert torch.allclose(other_log_det, log_det, rtol=1e-12, atol=1e-12)


def off_start(part):
    """Returns a layer off its start, in float64."""
    generator = torch.Generator().manual_seed(1)
    for parameter in part.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return part.double()


@pytest.mark.parametrize("partition", [HALF, HALF.swapped()])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (linear, linear),
        (linear, affine),
        (affine, linear),
        (linear, lambda p: mixed(affine(p), after=True)),
        (linear, lambda p: mixed(affine(p), before=True)),
        (lambda p: mixed(affine(p), before=True), linear),
        (lambda p: mixed(affine(p), after=True), linear),
    ],
)
def test_a_linear_neighbour_joins(partition, first, second):
    """Whatever the other one is, and on whichever side."""
    torch.manual_seed(0)
    parts = [off_start(first(partition)), off_start(second(partition))]
    both = pair(*parts)
    assert both is not None
    same(parts, [both])


def test_others_do_not_join():
    """Two nonlinear couplings, other partitions, and what is no coupling."""
    assert pair(affine(HALF), affine(HALF)) is None
    assert pair(linear(HALF), affine(HALF.swapped())) is None
    assert pair(kf.ActNorm(5), linear(HALF)) is None
    assert pair(kf.ActNorm(5), kf.ActNorm(5)) is None
    assert pair(kf.ElementwiseAffine(5), kf.ActNorm(5)) is None


@pytest.mark.parametrize("partition", [HALF, HALF.swapped()])
def test_a_linear_coupling_passes_an_elementwise_map(partition):
    """In either direction; both are other ones then, and the function is the same."""
    torch.manual_seed(0)
    elementwise, coupling = off_start(kf.ElementwiseAffine(5)), off_start(linear(partition))
    first, second = forward(elementwise, coupling)
    assert isinstance(first, kf.LinearCoupling)
    same([elementwise, coupling], [first, second])
    first, second = backward(coupling, elementwise)
    assert isinstance(second, kf.LinearCoupling)
    same([coupling, elementwise], [first, second])


def test_a_run_is_merged_in_one_pass():
    """Linear couplings pass elementwise maps in both directions to join their neighbours."""
    torch.manual_seed(0)

    def elementwise(_):
        return kf.ElementwiseAffine(5)

    first = affine, linear, elementwise, linear, linear, elementwise
    second = linear, elementwise, elementwise, affine
    parts = [off_start(make(HALF)) for make in first]
    parts += [off_start(make(HALF.swapped())) for make in second]
    found = merged(parts)
    same(parts, found)
    names = [type(part).__name__ for part in found]
    assert names == ["SandwichCoupling", "ElementwiseAffine", "SandwichCoupling"]
