"""Linear layers that are nearly singular become layers with a bound."""

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.bijections import SVDLinear
from kappaflow.diagnosis.fixes import bounded
from kappaflow.errors import ArgumentError


def spectrum_matrix(n, condition_number, seed, sign=1.0):
    """Returns a matrix with a geometric spectrum from 1 down, and a determinant of this sign."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    matrix = left @ np.diag(np.geomspace(1, 1 / condition_number, n)) @ right
    if np.linalg.slogdet(matrix)[0] != sign:
        matrix[:, 0] *= -1
    return torch.from_numpy(matrix)


@pytest.mark.parametrize("n", [1, 2, 7, 33])
def test_svd_linear_takes_any_matrix_within_its_bound(n):
    """Its numbers, also of one that is being trained."""
    matrix = spectrum_matrix(n, 9.0, 0) * 3
    layer = SVDLinear.of(matrix.clone().requires_grad_(), torch.arange(n), condition_bound=100.0)
    torch.testing.assert_close(layer.matrix().detach(), matrix, atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(layer.shift.detach(), torch.arange(n).double())


def test_svd_linear_takes_axes_and_exchanges():
    for matrix in (torch.eye(4), torch.eye(4)[[1, 0, 3, 2]], torch.diag(torch.tensor([-1.0, -1]))):
        layer = SVDLinear.of(matrix.double(), condition_bound=10.0)
        torch.testing.assert_close(layer.matrix(), matrix.double(), atol=1e-14, rtol=0)


def test_svd_linear_moves_values_outside_to_the_nearest_within():
    matrix = spectrum_matrix(5, 1e8, 0)
    values = torch.linalg.svdvals(SVDLinear.of(matrix, condition_bound=100.0).matrix())
    expected = torch.linalg.svdvals(matrix).clamp(100**-0.475, 100**0.475)
    torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("matrix", "bound", "message"),
    [
        ([[0.0, 1.0], [1.0, 0.0]], 10.0, "positive determinant"),
        ([[1.0, 1.0], [1.0, 1.0]], 10.0, "positive determinant"),
        ([[1.0, 0.0]], 10.0, "square"),
        ([[1.0]], 1.0, "above 1"),
        ([[float("nan")]], 10.0, "finite"),
    ],
)
def test_svd_linear_refuses_invalid_matrices(matrix, bound, message):
    with pytest.raises(ArgumentError, match=message):
        SVDLinear.of(matrix, condition_bound=bound)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_only_small_singular_values_are_raised(sign, scale):
    matrix = scale * spectrum_matrix(6, 1e7, 1, sign)
    shift = torch.arange(6).double()
    flow = kf.Flow(kf.StandardNormal(6), kf.Chain([kf.bijections.Linear.of(matrix, shift)]))
    fixed, replaced = bounded(flow, 1e3)
    assert replaced == (pytest.approx(1e7, rel=1e-6),)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).double()
    left, values, right = torch.linalg.svd(matrix)
    raised = values.clamp_min(values[0] * 1e3**-0.95)
    expected = x @ (left @ raised.diag() @ right).mT + shift
    torch.testing.assert_close(fixed.bijection(x)[0], expected, rtol=1e-10, atol=1e-10 * scale)
    torch.testing.assert_close(fixed.bijection.inverse(expected)[0], x, rtol=1e-8, atol=1e-8)


def of_linear(matrix):
    """A flow of one linear layer."""
    layer = kf.bijections.Linear.of(matrix)
    return kf.Flow(kf.StandardNormal(len(matrix)), kf.Chain([layer]))


def test_training_cannot_leave_the_bound():
    fixed, _ = bounded(of_linear(spectrum_matrix(4, 1e6, 0).float()), 50.0)
    with torch.no_grad():
        for parameter in fixed.parameters():
            if parameter.requires_grad:
                parameter += 20 * torch.randn(parameter.shape)
    values = kf.spectrum(fixed.bijection, torch.zeros(1, 4))
    assert values.condition_number.item() <= 50.0 * (1 + 1e-3)


@pytest.mark.parametrize("bound", [1.0, float("nan"), float("inf")])
def test_a_bound_that_is_none_is_refused_though_no_layer_exceeds_it(bound):
    flow = kf.Flow(kf.StandardNormal(2), kf.Chain([kf.bijections.ActNorm(2)]))
    with pytest.raises(ArgumentError, match="'condition_bound' should be"):
        bounded(flow, bound)


def test_layers_within_the_bound_are_unchanged():
    flow = of_linear(spectrum_matrix(4, 10.0, 0))
    assert bounded(flow, 1e3) == (flow, ())


def test_frozen_layers_stay_frozen_and_the_flow_can_be_saved(tmp_path):
    fixed, _ = bounded(of_linear(spectrum_matrix(3, 1e6, 2)).requires_grad_(False))
    assert not any(parameter.requires_grad for parameter in fixed.parameters())
    kf.save(fixed, tmp_path / "flow")
    x = torch.ones(2, 3).double()
    assert torch.equal(kf.load(tmp_path / "flow").log_prob(x), fixed.log_prob(x))
