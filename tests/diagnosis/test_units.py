"""Rows on another scale than the training rows, and standardizations that were never fitted."""

import pytest
import torch

import kappaflow as kf


def normal(n=200, seed=0):
    """Rows of N(0, I) in three columns."""
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def raw(n=200, seed=0):
    """Rows with a mean of 100 and standard deviations of 1, 10 and 100."""
    return 100 + normal(n, seed) * torch.tensor([1.0, 10.0, 100.0])


@pytest.fixture(scope="module")
def trained():
    """A flow that is fitted to raw rows."""
    flow = kf.real_nvp(3, depth=2, hidden=(8,))
    kf.fit(flow, raw(400, seed=1), max_epochs=3, progress=False)
    return flow


def found(flow, x):
    """Findings by code."""
    return {one.code: one for one in kf.doctor(flow, x).findings}


@pytest.mark.slow
def test_a_standardization_that_was_never_fitted_is_an_error():
    """KF403 names a column and the way out; on standardized rows it is the note KF401 alone."""
    flow = kf.real_nvp(3, depth=2, hidden=(8,))
    diagnosis = kf.doctor(flow, raw())
    (finding,) = (one for one in diagnosis.findings if one.code == "KF403")
    assert not diagnosis.ok and finding.severity == "error"
    assert "standardization was never fitted" in diagnosis.verdict
    assert "column 0 has mean 100" in finding.message and ".fit(x)" in finding.fix
    healthy = found(flow, normal(64))
    assert set(healthy) == {"KF401"}


@pytest.mark.slow
def test_a_trained_flow_is_no_error_on_its_own_data(trained):
    """Nor on few rows of it."""
    for x in (raw(200, seed=2), raw(8, seed=3)):
        assert kf.doctor(trained, x).ok


@pytest.mark.slow
@pytest.mark.parametrize("change", ["thousandfold", "tenfold", "standardized", "thousandth"])
def test_rows_on_another_scale_are_an_error(trained, change):
    """Larger, smaller, shifted."""
    x = raw(200, seed=2)
    other = {
        "thousandfold": 1000 * x,
        "tenfold": 10 * x,
        "standardized": (x - x.mean(0)) / x.std(0),
        "thousandth": x / 1000,
    }[change]
    assert "KF403" in found(trained, other)


def test_rows_with_nearly_equal_latents_are_an_error():
    """Rows scaled to be small, where the origin is in the middle of the flow."""
    flow = kf.Flow(kf.StandardNormal(3), kf.bijections.ElementwiseAffine(3))
    finding = found(flow, normal() / 1000)["KF403"]
    assert "lie close together in the latent space" in finding.message
    assert "KF403" not in found(flow, normal() / 2)


def test_flows_of_other_libraries_are_checked():
    """Two functions: an affine map fitted to raw rows, given standardized ones."""
    mean, spread = raw().mean(0), raw().std(0)
    log_det = -spread.log().sum()
    flow = (
        lambda x: ((x - mean) / spread, log_det.expand(len(x))),
        lambda z: (z * spread + mean, -log_det.expand(len(z))),
    )
    assert "KF403" in found(flow, normal())
    assert "KF403" not in found(flow, raw(seed=5))
