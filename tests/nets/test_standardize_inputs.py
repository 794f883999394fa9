"""The fixed affine map in front of context networks."""

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


def test_a_constant_column_is_only_shifted():
    """A deviation of rounding size is no deviation."""
    units = kf.nets.StandardizeInputs(1)
    units.fit(torch.full((7, 1), 0.1))
    assert units.scale.item() == 1


def test_its_repr_works_where_it_has_no_numbers():
    """On the meta device nobody knows whether it is fitted."""
    units = kf.nets.StandardizeInputs(2).to("meta")
    assert repr(units) == "StandardizeInputs(features=2, fitted=unknown)"
