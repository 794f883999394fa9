"""Singular values of float32 flows are those of the map that their weights define."""

import copy
import importlib

import pytest
import torch

import kappaflow as kf
from kappaflow.conditioning import layers_of
from kappaflow.testing.contract import dense_jacobian

ATTAINED = 1e-6  # where a hundredth was asked for
LOST = 2e-3  # what products in float32 miss by at the least, in the cases here


def stretching(n, condition_number, seed=0):
    """Returns a random matrix of a condition number, in float64."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, n, n, generator=generator, dtype=torch.float64)
    values = torch.logspace(0.5, -0.5, n, base=condition_number, dtype=torch.float64)
    return torch.linalg.qr(left)[0] * values @ torch.linalg.qr(right)[0]


def linear(matrix):
    """Returns a layer with a matrix, in float32."""
    layer = kf.bijections.Linear(len(matrix))
    layer.load_state_dict({"weight": matrix.float(), "shift": torch.zeros(len(matrix))})
    return layer


def couplings(n, depth, size, seed=0):
    """Returns couplings with random weights of a size."""
    core = kf.real_nvp(n, depth=depth, hidden=(32, 32), couplings={"scale_bound": 40.0}).core
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in core.parameters():
            inputs = 1 if parameter.dim() == 1 else parameter.shape[-1]
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * size / inputs**0.5)
    return core.eval()


def deep():
    """Couplings so deep that rounding moves the points between them."""
    return couplings(64, 32, 0.85, seed=2), points(64)


def undone():
    """A dense layer of 1e6, couplings, and the inverse of the layer."""
    matrix = stretching(4, 1e6)
    parts = linear(matrix), couplings(4, 4, 0.1), linear(torch.linalg.inv(matrix))
    return kf.Chain(parts), points(4)


def points(n):
    """Three of N(0, I)."""
    return torch.randn(3, n, generator=torch.Generator().manual_seed(0))


def reference(core, x):
    """Returns both ends by autograd in float64, layer by layer."""
    double_flow, h = copy.deepcopy(core).double(), x.double()
    forth = back = torch.eye(x.shape[1]).double()
    for layer in layers_of(double_flow):
        forth = dense_jacobian(layer.bijection.forward, h, None) @ forth
        h = layer.bijection(h)[0].detach()
        back = back @ dense_jacobian(layer.bijection.inverse, h, None)
    return torch.linalg.svdvals(forth)[:, 0], 1 / torch.linalg.svdvals(back)[:, 0]


def in_float32(core, x):
    """Returns sigma_min by products in float32 with the inverse."""
    units = torch.eye(x.shape[1])[:, None].expand(-1, len(x), -1)
    back = core.linearize(x).inverse_jv(units).detach().movedim(0, 2).double()
    return 1 / torch.linalg.svdvals(back)[:, 0]


def off(result, true):
    """Returns the largest relative error."""
    return (result / true - 1).abs().max().item()


@pytest.mark.parametrize("make", [pytest.param(deep, marks=pytest.mark.slow), undone])
def test_both_ends_are_right_where_products_in_float32_are_not(make):
    """At condition numbers of 1e10 to 1e14, for each way of measuring."""
    core, x = make()
    top, bottom = reference(core, x)
    assert (top / bottom > 1e13).any() or make is undone
    assert off(in_float32(core, x), bottom) > LOST
    flow = kf.Flow(kf.StandardNormal(x.shape[1]), core)
    depth, doctor = kf.profile(flow, x), kf.doctor(flow, x).profile
    for result in (depth, doctor):
        assert off(result.sigma_max[-1], top) < ATTAINED
        assert off(result.sigma_min[-1], bottom) < ATTAINED
    for method in ("dense", "lanczos"):
        result = kf.spectrum(core, x, method=method)
        assert off(result.sigma_max, top) < ATTAINED
        assert off(result.sigma_min, bottom) < ATTAINED


def test_the_flow_and_its_log_dets_stay_float32():
    """Round trips and log_dets of a profile are computed in float32."""
    core, x = couplings(4, 4, 0.5), points(4)
    flow = kf.Flow(kf.StandardNormal(4), core).train()
    before = copy.deepcopy(flow.state_dict())
    result = kf.profile(flow, x)
    kf.spectrum(core, x)
    assert flow.training
    for name, value in flow.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name])
    layers = kf.Chain([layer.bijection for layer in layers_of(core)])
    log_det = layers.eval()(x)[1].detach()
    torch.testing.assert_close(result.log_det[-1], log_det.double(), rtol=1e-6, atol=1e-6)
    assert torch.equal(result.layer_log_det.float().double(), result.layer_log_det)
    assert result.eps == torch.finfo(torch.float32).eps


class Own(kf.Bijection):
    """Doubles its input; it counts its calls by their type, and can refuse some."""

    def __init__(self, refused=None, copied=True):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))
        self.calls, self.refused, self.copied = [], refused, copied

    def __deepcopy__(self, memo):
        if not self.copied:
            raise TypeError("no copies")
        built = Own(self.refused)
        built.calls = self.calls
        return built

    def forward(self, x, context=None):
        self.calls.append(x.dtype)
        if x.dtype == self.refused:
            raise ValueError(f"no {x.dtype}")
        return x * self.factor, self.factor.log().expand(len(x)) * x.shape[1]

    def inverse(self, z, context=None):
        return z / self.factor, -self.factor.log().expand(len(z)) * z.shape[1]


@pytest.mark.parametrize(
    ("built", "types"),
    [
        (lambda: Own(), {torch.float64}),
        (lambda: Own(refused=torch.float64), {torch.float64, torch.float32}),
        (lambda: Own(copied=False), {torch.float32}),
    ],
)
def test_a_bijection_without_float64_is_measured_in_its_type(built, types):
    """It forbids copies, or works in float32 only."""
    bijection = built()
    result = kf.spectrum(bijection, torch.ones(2, 3))
    torch.testing.assert_close(result.sigma_min, torch.full((2,), 2.0).double(), rtol=1e-6, atol=0)
    assert set(bijection.calls) == types


@pytest.mark.parametrize(
    ("log_scales", "types"),
    [
        ([[2.0, 0.0], [3.0, 0.0]], {torch.float32}),
        ([[12.0, 0.0], [-11.0, 0.0]], {torch.float32, torch.float64}),
        ([[6.0, 0.0], [6.0, 0.0]], {torch.float32, torch.float64}),
    ],
)
def test_lanczos_uses_float64_only_if_float32_is_not_exact_enough(monkeypatch, log_scales, types):
    """If one layer, or all so far, have a condition number near 1 / eps."""
    module = importlib.import_module("kappaflow.conditioning.profile")
    monkeypatch.setattr(module, "MATRIX_FREE_ABOVE", 1)
    monkeypatch.setattr(module, "DENSE_WORK", 0)
    seen, own = set(), module._lanczos_extremes
    monkeypatch.setattr(module, "_lanczos_extremes", lambda *of: seen.add(of[1].dtype) or own(*of))
    layers = kf.Chain([kf.bijections.ElementwiseAffine(2, log_scale=s) for s in log_scales])
    result = kf.profile(kf.Flow(kf.StandardNormal(2), layers), torch.zeros(3, 2))
    assert seen == types
    assert result.status == "converged"
    seen.clear()
    kf.profile(kf.Flow(kf.StandardNormal(2), layers).double(), torch.zeros(3, 2).double())
    assert seen == {torch.float64}
