"""Many couplings that approximate an elementwise map and are well conditioned at every point."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow_studies.universal.commutators import at_every_point, commutator_flow


def test_the_terms_add_up_to_the_elementwise_field():
    """With brackets from autograd: sin d_1 = x_2 cos d_2 - [x_2 d_1, sin d_2]."""

    def shear(x):
        return torch.stack((x[1], torch.zeros_like(x[1])))

    def sine(x):
        return torch.stack((torch.zeros_like(x[0]), x[0].sin()))

    for x in torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)):
        slopes = [torch.autograd.functional.jacobian(field, x) for field in (shear, sine)]
        bracket = slopes[1] @ shear(x) - slopes[0] @ sine(x)
        grown = torch.stack((torch.zeros_like(x[0]), x[1] * x[0].cos()))
        expected = torch.stack((x[0].sin(), torch.zeros_like(x[0])))
        torch.testing.assert_close(grown - bracket, expected)


def test_the_error_falls_like_one_over_the_number_and_the_condition_number_stays():
    """Each doubling halves the error; the map's own largest condition number is e."""
    found = [at_every_point(steps, points=15) for steps in (8, 16, 32)]
    errors = [one.error for one in found]
    assert [one.couplings for one in found] == [33, 65, 129]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)
    numbers = [one.condition_number for one in found]
    assert math.e < numbers[2] < numbers[1] < numbers[0] < 3.2


def test_all_layers_are_affine_couplings_on_one_partition():
    """They alternate between the two halves, and invert exactly."""
    chain = commutator_flow(4)
    first = kf.Partition.half(2)
    assert [layer.partition for layer in chain] == [first, first.swapped()] * 8 + [first]
    assert {type(layer) for layer in chain} == {kf.AffineCoupling}
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(chain.inverse(chain(x)[0])[0], x)


def test_no_steps_are_refused():
    """A number of steps is positive."""
    with pytest.raises(kf.errors.ArgumentError, match="'steps' should be"):
        commutator_flow(0)
