"""Standardization, the affine map and the logit, against closed forms and at extreme values."""

import math

import pytest
import torch

import kappaflow as kf

HALF = [torch.float16, torch.bfloat16]


def affine(**starts):
    return kf.bijections.ElementwiseAffine(2, **starts)


def test_standardize_is_the_closed_form():
    """Z = (x - mean) / deviation, and log_det is minus the sum of the log-deviations."""
    x = 7 + torch.tensor([100.0, 0.01], dtype=torch.float64) * torch.randn(500, 2).double()
    units = kf.bijections.Standardize(2).double()
    assert torch.equal(units(x)[0], x) and not units(x)[1].any()
    assert "fitted=unknown" in repr(kf.bijections.Standardize(2).to("meta"))
    units.fit(x)
    z, log_det = units(x)
    torch.testing.assert_close(z, (x - x.mean(0)) / x.std(0, correction=0))
    torch.testing.assert_close(log_det, -x.std(0, correction=0).log().sum().expand(500))


def test_standardize_survives_a_column_far_from_zero():
    """Moments are taken in float64: a float32 column near 1e6 comes out standard."""
    x = (1e6 + torch.randn(4000, 1, dtype=torch.float64)).float()
    units = kf.bijections.Standardize(1)
    units.fit(x)
    assert abs(units.deviation.item() - x.double().std().item()) < 1e-3
    assert units(x)[0].double().std().item() == pytest.approx(1, abs=0.05)


def test_elementwise_affine_holds_at_scales_of_e_to_the_80():
    """Values scaled by 5e34 and by 2e-35 in float32 come back to rounding."""
    z, log_det = affine(log_scale=[1.0, -2.0], shift=[3.0, 4.0])(torch.ones(1, 2))
    torch.testing.assert_close(z, torch.tensor([[math.e + 3, math.exp(-2) + 4]]))
    assert log_det.item() == -1
    extreme, x = affine(log_scale=[80.0, -80.0]), torch.randn(50, 2)
    z, log_det = extreme(x)
    assert torch.isfinite(z).all()
    assert log_det.abs().max() == 0
    torch.testing.assert_close(extreme.inverse(z)[0], x, rtol=1e-5, atol=0)


def test_logit_is_the_closed_form():
    """Values and log_det are those of log(u / (1 - u)) with u squeezed by the margin."""
    x = torch.linspace(-0.9, 2.9, 20, dtype=torch.float64)[:, None]
    z, log_det = kf.bijections.Logit(-1.0, 3.0, margin=0.05)(x)
    u = 0.05 + 0.9 * (x + 1) / 4
    torch.testing.assert_close(z, (u / (1 - u)).log())
    torch.testing.assert_close(log_det, (0.9 / 4 / (u * (1 - u))).log()[:, 0])
    assert kf.bijections.Logit()(torch.tensor([[1.5]]))[0].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_margin_keeps_the_ends_of_the_interval_finite(dtype):
    """With a margin both ends have a finite image, and come back."""
    logit = kf.bijections.Logit(0.0, 255.0, margin=0.05)
    x = torch.tensor([[0.0], [255.0]], dtype=dtype)
    z, log_det = logit(x)
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()
    torch.testing.assert_close(logit.inverse(z)[0], x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("z", [-80.0, -30.0, 30.0, 80.0])
def test_the_log_det_of_a_far_latent_is_right(z):
    """log|dx/dz| is minus |z| out there, even where x itself has rounded to an end."""
    x, log_det = kf.bijections.Logit()(torch.tensor([[0.5]]))
    assert (x.item(), round(log_det.item(), 4)) == (0.0, 1.3863)
    x, log_det = kf.bijections.Logit().inverse(torch.tensor([[z]]))
    assert 0 <= x.item() <= 1
    assert log_det.item() == pytest.approx(-abs(z), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: kf.bijections.Logit(padding=3)(torch.ones(1, 2)),
            "more features than the 3 padding features",
        ),
        (lambda: kf.bijections.Logit(1.0, 1.0), "'high - low' should be a finite number above 0"),
        (lambda: kf.bijections.Logit("a", 2.0), "'low' should be a finite number, got 'a'"),
        (lambda: kf.bijections.Logit(margin=0.5), "'margin' should be at least 0 and below 1/2"),
        (lambda: kf.bijections.Logit(margin=-0.1), "'margin' should be at least 0"),
        (lambda: kf.bijections.Standardize(2).fit(torch.zeros(5, 3)), r"shape \(batch, 2\)"),
        (lambda: kf.bijections.Standardize(2, padding=2), "'padding' should be less than the 2"),
        (lambda: affine(log_scale=[1.0]), r"'log_scale' should hold 2 numbers, got shape \(1,\)"),
        (lambda: affine(shift="ab"), "'shift' should hold numbers, got 'ab'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(make, message):
    """The message names the argument and its value."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        make()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    "make",
    [
        lambda: kf.bijections.Standardize(2),
        lambda: kf.bijections.ElementwiseAffine(2, log_scale=[0.5, 1.0]),
        lambda: kf.bijections.ActNorm(2).eval(),
        lambda: kf.bijections.Permutation((1, 0)),
        lambda: kf.bijections.Logit(-9.0, 9.0),
    ],
)
def test_half_precision_keeps_its_type_and_adds_log_det_in_float32(make, dtype):
    """Values stay in half precision, the log_det does not; both are finite and come back."""
    bijection = make().to(dtype)
    x = torch.tensor([[0.5, -1.25], [2.0, 1.0]], dtype=dtype)
    z, log_det = bijection(x)
    back, negative = bijection.inverse(z)
    assert z.dtype == back.dtype == dtype
    assert log_det.dtype == negative.dtype == torch.float32
    torch.testing.assert_close(back, x, rtol=0.05, atol=0.05)
