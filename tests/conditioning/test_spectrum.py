"""Spectra: dense and matrix-free, against closed forms, each other, and at the ends of float32."""

import math

import pytest
import torch

import kappaflow as kf
from cases import BIJECTIONS, affine
from kappaflow.conditioning.spectrum import all_of_both
from kappaflow.testing.contract import dense_jacobian, jittered


def stretch(*factors):
    """Returns a bijection that scales each feature by a factor."""
    return kf.bijections.ElementwiseAffine(len(factors), log_scale=[math.log(f) for f in factors])


@pytest.mark.parametrize("method", ["dense", "lanczos", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_diagonal_map_has_the_singular_values_of_its_diagonal(method, dtype):
    """Both ends, at each of several points, in float64 whatever the type of x."""
    measured = kf.spectrum(
        stretch(8.0, 0.5, 2.0, 1.0).to(dtype), torch.randn(3, 4, dtype=dtype), k=2, method=method
    )
    expected = torch.tensor([[8.0, 2.0], [0.5, 1.0]]).double()
    assert measured.sigma_max.dtype == torch.float64
    torch.testing.assert_close(measured.sigma_max, expected[0].expand(3, 2), rtol=1e-5, atol=0)
    torch.testing.assert_close(measured.sigma_min, expected[1].expand(3, 2), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        measured.condition_number, torch.full((3,), 16.0).double(), rtol=1e-5, atol=0
    )
    assert measured.status == ("converged" if method == "lanczos" else "exact")


@pytest.mark.parametrize("method", ["dense", "lanczos"])
@pytest.mark.parametrize("name", ["Chain, embedding", "AffineCoupling, wide scales", "Logit"])
def test_values_are_those_of_the_autograd_jacobian(name, method):
    """Against the singular values of dense Jacobians by plain autograd, in float64."""
    bijection, x, context = BIJECTIONS[name].build(torch.float64)
    expected = torch.linalg.svdvals(dense_jacobian(bijection.forward, x, context))
    measured = kf.spectrum(bijection, x, context=context, k=2, method=method, tolerance=1e-8)
    torch.testing.assert_close(measured.sigma_max, expected[:, :2], rtol=1e-7, atol=0)
    torch.testing.assert_close(measured.sigma_min, expected[:, -2:].flip(1), rtol=1e-7, atol=0)


@pytest.mark.parametrize("k", [1, 3])
def test_lanczos_agrees_with_dense_on_a_flow(k):
    """At several points of a flow of 40 dimensions, within the tolerance."""
    flow = jittered(kf.real_nvp(40, depth=6, hidden=(16,), couplings={"scale_bound": 4.0}))
    x = 2 * torch.randn(5, 40)
    dense = kf.spectrum(flow.bijection, x, k=k, method="dense")
    lanczos = kf.spectrum(flow.bijection, x, k=k, method="lanczos", tolerance=1e-4)
    assert (dense.method, lanczos.method) == ("dense", "lanczos")
    assert lanczos.status == "converged"
    assert dense.condition_number.std() > 0
    torch.testing.assert_close(lanczos.sigma_max, dense.sigma_max, rtol=1e-4, atol=0)
    torch.testing.assert_close(lanczos.sigma_min, dense.sigma_min, rtol=1e-4, atol=0)


def test_auto_is_dense_up_to_128_dimensions():
    """Above, no matrix is formed."""
    for n, method in ((128, "dense"), (129, "lanczos")):
        measured = kf.spectrum(kf.bijections.ElementwiseAffine(n), torch.zeros(1, n))
        assert measured.method == method
        assert measured.condition_number.item() == pytest.approx(1, abs=1e-5)


def mixed(n=24, spread=3.0):
    """Returns affine couplings of widely spread log-scales, whose features linear ones mix."""
    torch.manual_seed(2)
    half = kf.Partition.half(n)
    parts, mixers = [], []
    for partition in 2 * (half, half.swapped()):
        coupling = jittered(affine(partition, (16, 16), scale_bound=9.0), seed=len(parts))
        mixer = kf.bijections.AdditiveCoupling(partition, kf.nets.MLP(n // 2, n // 2, ()))
        with torch.no_grad():
            coupling.conditioner.layers[-1].bias[: n // 2] += spread * torch.randn(n // 2)
            mixer.conditioner.layers[0].weight.normal_(0, (2 / n) ** 0.5)
        parts.append(coupling)
        mixers.append(mixer)
    return kf.Chain([*mixers[:2], *parts, *mixers[2:]]).eval()


@pytest.mark.parametrize("method", ["dense", "lanczos"])
def test_sigma_min_of_couplings_is_right_in_float32_where_their_jacobian_is_not(method):
    """At condition number 1e13, against float64, layer by layer."""
    flow, x = mixed(), torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    measured = kf.spectrum(flow, x, method=method)
    lost = torch.linalg.svdvals(dense_jacobian(flow.forward, x, None).float())[:, -1]
    h, forth, back = x.double(), torch.eye(24).double(), torch.eye(24).double()
    for part in flow.double():
        forth = dense_jacobian(part.forward, h, None) @ forth
        h = part(h)[0].detach()
        back = back @ dense_jacobian(part.inverse, h, None)
    top, bottom = torch.linalg.svdvals(forth)[:, 0], 1 / torch.linalg.svdvals(back)[:, 0]
    assert (top / bottom > 1e13).all()
    torch.testing.assert_close(measured.sigma_max, top, rtol=1e-3, atol=0)
    torch.testing.assert_close(measured.sigma_min, bottom, rtol=1e-3, atol=0)
    assert (lost / bottom > 10).all()


def test_too_few_steps_are_not_converged():
    """The status says so."""
    flow = jittered(kf.real_nvp(40, depth=6, hidden=(16,)))
    measured = kf.spectrum(flow.bijection, torch.randn(2, 40), method="lanczos", max_steps=2)
    assert measured.status == "not converged"
    assert measured.sigma_max.shape == (2,)


@pytest.mark.parametrize("method", ["dense", "lanczos"])
def test_parameters_that_are_not_finite_give_a_status(method):
    """The status is "not finite", and nothing is raised."""
    coupling = jittered(affine(kf.Partition.half(4)))
    with torch.no_grad():
        coupling.conditioner.layers[0].weight[0, 0] = torch.nan
    measured = kf.spectrum(coupling, torch.randn(2, 4), method=method)
    assert measured.status == "not finite"


def test_results_have_no_graph():
    """Even if x requires gradients."""
    measured = kf.spectrum(stretch(2.0, 1.0), torch.zeros(2, 2, requires_grad=True))
    assert not measured.sigma_max.requires_grad
    assert not measured.sigma_min.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "'k' should be at least 1"),
        ({"k": 5}, "'k' should be at most 4, the number of singular values, got 5"),
        ({"method": "svd"}, "'method' should be one of 'auto', 'dense', 'lanczos', got 'svd'"),
        ({"tolerance": 0.0}, "'tolerance' should be a finite number above 0"),
        ({"max_steps": 0}, "'max_steps' should be at least 1"),
        ({"x": torch.zeros(4)}, "'x' should have shape \\(batch, event\\), got \\(4,\\)"),
        (
            {"bijection": kf.real_nvp(4, depth=1, hidden=(4,))},
            "got Flow: for a flow, pass flow.bijection, or flow.core to leave out the stand",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    """The error names the argument."""
    options = {
        "bijection": kf.bijections.ElementwiseAffine(4),
        "x": torch.zeros(2, 4),
        **arguments,
    }
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.spectrum(options.pop("bijection"), options.pop("x"), **options)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_all_singular_values_lose_only_half_of_the_digits_on_any_scale(scale):
    """From a matrix and its inverse, with values up to a condition number of 1e10."""
    values = scale * torch.logspace(5, -5, 9, dtype=torch.float64)
    left, right = torch.linalg.qr(torch.randn(2, 9, 9, dtype=torch.float64))[0]
    matrix, inverse = left * values @ right.mT, right / values @ left.mT
    result = all_of_both(matrix[None], inverse[None])[0]
    assert (result / values - 1).abs().max() < 10 * torch.finfo(torch.float64).eps * 1e5
