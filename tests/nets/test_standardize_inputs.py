"""The fixed affine map in front of context networks."""

import pytest
import torch

import kappaflow as kf


def test_fitting_gives_mean_zero_and_deviation_one():
    """The rows that it was fitted to come out standardized."""
    rows = 5 + 3 * torch.randn(100, 2, dtype=torch.float64)
    units = kf.nets.StandardizeInputs(2).double()
    assert torch.equal(units(rows), rows)
    units.fit(rows)
    assert units.fitted
    torch.testing.assert_close(units(rows).mean(0), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(
        units(rows).std(0, correction=0), torch.ones(2, dtype=torch.float64)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_column_that_is_constant_up_to_rounding_is_only_shifted(dtype):
    """The deviation of a constant, or of noise in its last bit, is rounding, not a scale."""
    constant = torch.full((7,), 0.1, dtype=dtype)
    noisy = constant.clone()
    noisy[::2] *= 1 + torch.finfo(dtype).eps
    rows = torch.stack((constant, noisy, 0.1 * torch.arange(7, dtype=dtype)), 1)
    for weights in (None, torch.ones(7)):
        standardize = kf.nets.StandardizeInputs(3).to(dtype)
        standardize.fit(rows, weights)
        assert standardize.scale.tolist() == pytest.approx([1, 1, 0.2])


def test_its_repr_works_where_it_has_no_numbers():
    """On the meta device nobody knows whether it is fitted."""
    units = kf.nets.StandardizeInputs(2).to("meta")
    assert repr(units) == "StandardizeInputs(features=2, fitted=unknown)"
