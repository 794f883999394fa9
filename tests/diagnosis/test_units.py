"""Rows on another scale than the training rows, and standardizations that were never fitted."""

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import alone, findings, points

SPREADS = torch.tensor([1.0, 10.0, 100.0])


def raw(n=200, seed=0):
    """Rows with a mean of 100 and standard deviations of 1, 10 and 100."""
    return 100 + points(seed, n, 3) * SPREADS


@pytest.fixture(scope="module")
def trained():
    """A flow that is fitted to raw rows."""
    flow = kf.real_nvp(3, depth=2, hidden=(8,))
    kf.fit(flow, raw(400, seed=1), max_epochs=3, progress=False)
    return flow


def test_a_standardization_that_was_never_fitted_is_an_error():
    """KF403 names a column and the way out; on standardized rows it is the note KF401 alone."""
    flow = kf.real_nvp(3, depth=2, hidden=(8,))
    finding = findings(flow, raw())["KF403"]
    assert finding.severity == "error" and "never fitted" in finding.message
    assert "column 0 has mean 100" in finding.message and ".fit(x)" in finding.fix
    assert set(findings(flow, points(features=3))) == {"KF401"}


@pytest.mark.slow
def test_a_trained_flow_is_no_error_on_its_own_data(trained):
    """Nor on few rows of it; larger, smaller and shifted rows are one."""
    x = raw(200, seed=2)
    assert kf.doctor(trained, x).ok and kf.doctor(trained, raw(8, seed=3)).ok
    for other in (1000 * x, 10 * x, (x - x.mean(0)) / x.std(0), x / 1000):
        assert "KF403" in findings(trained, other)


def test_rows_with_nearly_equal_latents_are_an_error():
    """Rows scaled to be small, where the origin is in the middle of the flow."""
    flow, x = alone(kf.bijections.ElementwiseAffine(3), features=3), points(n=200, features=3)
    finding = findings(flow, x / 1000)["KF403"]
    assert "lie close together in the latent space" in finding.message
    assert "KF403" not in findings(flow, x / 2)


def test_flows_of_other_libraries_are_checked():
    """Two functions: an affine map fitted to raw rows, given standardized ones."""
    log_det = -SPREADS.log().sum()
    flow = (
        lambda x: ((x - 100) / SPREADS, log_det.expand(len(x))),
        lambda z: (z * SPREADS + 100, -log_det.expand(len(z))),
    )
    assert "KF403" in findings(flow, points(n=200, features=3))
    assert "KF403" not in findings(flow, raw(seed=5))
