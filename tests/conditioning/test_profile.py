"""Profiles over depth, round trips, and what rounding predicts for them."""

import json
import math

import pytest
import torch

import kappaflow as kf
from kappaflow.conditioning import layers_of, predicted_round_trip
from kappaflow.testing.contract import jittered


def conditional_flow(depth=4, features=5):
    """Returns a standardized flow with random weights."""
    flow = jittered(kf.real_nvp(features, depth=depth, hidden=(8,), context_features=2))
    flow.standardization.bijections[0].fit(100 + 1000 * torch.randn(64, features))
    flow.bijection.embedding.fit(5 + 2 * torch.randn(64, 2))
    return flow.eval()


def points(n=6, features=5):
    """Returns points in the units of that flow, and contexts."""
    return 100 + 1000 * torch.randn(n, features), 5 + 2 * torch.randn(n, 2)


def test_the_last_row_is_the_spectrum_of_the_core():
    """That is the flow after its standardization."""
    flow, (x, context) = conditional_flow(), points()
    profile = kf.profile(flow, x, context=context)
    of_core = kf.spectrum(flow.core, flow.standardization(x)[0], context=context)
    torch.testing.assert_close(profile.sigma_max[-1], of_core.sigma_max, rtol=1e-5, atol=0)
    torch.testing.assert_close(profile.sigma_min[-1], of_core.sigma_min, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        profile.condition_number[-1], of_core.condition_number, rtol=1e-5, atol=0
    )
    assert profile.status == "exact"


def test_each_row_of_a_layer_is_its_own_spectrum():
    """At its inputs and with its context, in float64."""
    flow, x, context = conditional_flow().double(), *(part.double() for part in points())
    profile = kf.profile(flow, x, context=context)
    h = flow.standardization(x)[0]
    for i, layer in enumerate(layers_of(flow.core, context)):
        alone = kf.spectrum(layer.bijection, h, context=layer.context)
        torch.testing.assert_close(profile.layer_sigma_max[i], alone.sigma_max)
        torch.testing.assert_close(profile.layer_sigma_min[i], alone.sigma_min)
        h, log_det = layer.bijection(h, layer.context)
        torch.testing.assert_close(profile.layer_log_det[i], log_det.detach().double())


def test_units_do_not_change_the_profile():
    """Columns in units of 1e-6 and 1e6 leave the profile of an untrained flow at 1."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    x = torch.randn(64, 2) * torch.tensor([1e-6, 1e6])
    flow.standardization.bijections[0].fit(x)
    profile = kf.profile(flow, x)
    assert [name.split()[1] for name in profile.layers] == ["AffineCoupling"] * 2
    assert torch.equal(profile.condition_number, torch.ones(2, 64).double())
    assert kf.spectrum(flow.bijection, x).condition_number.min() > 1e11


def test_one_bad_layer_is_found():
    """By its number and its name."""
    flow = jittered(kf.real_nvp(4, depth=6, hidden=(8,)))
    bad = kf.bijections.ElementwiseAffine(4, log_scale=[4.0, -4.0, 0.0, 0.0])
    parts = [layer.bijection for layer in layers_of(flow.bijection)]
    flow = kf.Flow(flow.base, kf.Chain([*parts[:4], kf.Chain([bad]), *parts[4:]]))
    profile = kf.profile(flow, torch.randn(8, 4))
    assert profile.worst_layer == 3
    assert profile.layers[3] == "4 ElementwiseAffine"
    assert profile.layer_condition_number[3].median().item() == pytest.approx(
        math.exp(8), rel=1e-4
    )


def test_a_layer_that_is_not_finite_is_the_worst():
    """And the status says so."""
    flow = jittered(kf.real_nvp(4, depth=4, hidden=(8,)))
    with torch.no_grad():
        flow.bijection.bijections[1].plain().bijections[2].conditioner.layers[0].bias[0] = (
            torch.nan
        )
    profile = kf.profile(flow, torch.randn(8, 4))
    assert profile.worst_layer == 2
    assert profile.status == "not finite"


def test_a_profile_is_plain_numbers_for_json():
    """Lists of a number a layer, for each quantity and quantile."""
    flow, (x, context) = conditional_flow(depth=3), points()
    profile = kf.profile(flow, x, context=context)
    plain = json.loads(json.dumps(profile.to_dict(), allow_nan=False))
    assert plain["layers"] == list(profile.layers)
    assert plain["points"] == 6
    for name in ("condition_number", "layer_round_trip", "round_trip_latent"):
        assert len(plain[name]["median"]) == 3
        assert plain[name]["min"] <= plain[name]["median"] <= plain[name]["max"]


def test_round_trips_of_the_profile_are_those_of_the_flow():
    """Row 0 of the data side and the last row of the latent side are the whole flow's."""
    flow, (x, context) = conditional_flow(depth=8), points(50)
    profile, trip = kf.profile(flow, x, context=context), kf.round_trip(flow, x, context=context)
    assert torch.equal(profile.round_trip_data[0], trip.data)
    assert torch.equal(profile.round_trip_latent[-1], trip.latent)
    assert profile.round_trip_data.shape == profile.round_trip_latent.shape == (8, 50)
    h = flow.standardization(x)[0]
    core = kf.Chain([layer.bijection for layer in layers_of(flow.core)])  # to the last bit
    context = flow.core.embed(context)
    with torch.no_grad():
        expected = (core.inverse(core(h, context)[0], context)[0] - h).norm(dim=1).double()
        z = flow.base.sample(50, generator=torch.Generator().manual_seed(0))
        latent = (core(core.inverse(z, context)[0], context)[0] - z).norm(dim=1).double()
    torch.testing.assert_close(trip.data, expected, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(trip.latent, latent, rtol=1e-4, atol=1e-9)


def test_one_side_can_fail_where_the_other_is_fine():
    """A layer that maps the data out of the range of float32 fails on its side only."""

    class Cubic(kf.Bijection):
        """z = x^3: flat at 0, where its inverse is steep."""

        def forward(self, x, context=None):
            return x**3, (3 * x.square()).log().sum(1)

        def inverse(self, z, context=None):
            x = z.sign() * z.abs() ** (1 / 3)
            return x, -(3 * x.square()).log().sum(1)

    shifted = kf.Chain([Cubic(), kf.bijections.ElementwiseAffine(1, shift=[1.0])])
    flow = kf.Flow(kf.StandardNormal(1), shifted)
    trip = kf.round_trip(flow, torch.full((50, 1), 1e-2))
    assert trip.data.median() > 20 * trip.latent.median()


@pytest.mark.parametrize("scale_bound", [2.0, 6.0, 12.0])
@pytest.mark.parametrize("depth", [2, 8, 32])
def test_the_round_trip_error_is_within_what_rounding_predicts(depth, scale_bound):
    """The median point is below 1.35 times eps * condition number * |x|, the worst below 10."""
    flow = jittered(
        kf.real_nvp(8, depth=depth, hidden=(16,), couplings={"scale_bound": scale_bound}),
        seed=depth,
    )
    x = torch.randn(200, 8)
    profile = kf.profile(flow, x)
    testable = profile.eps * profile.condition_number[-1] < 1e-2
    ratio = (profile.round_trip_data[0] / profile.predicted_round_trip)[testable]
    assert testable.any()
    assert ratio.median() < 1.35
    assert ratio.max() < 10


def test_the_prediction_is_eps_times_condition_number_times_size():
    """In the type of x."""
    x = torch.tensor([[3.0, 4.0]])
    result = predicted_round_trip(torch.tensor([10.0]).double(), x)
    assert result.item() == pytest.approx(50 * torch.finfo(torch.float32).eps)


def test_lanczos_profiles_agree_with_dense_ones(monkeypatch):
    """In many dimensions no matrix is formed; here the limits are lowered to see both."""
    import importlib

    module = importlib.import_module("kappaflow.conditioning.profile")
    flow, (x, context) = conditional_flow(depth=3, features=12), points(4, 12)
    dense = kf.profile(flow, x, context=context)
    monkeypatch.setattr(module, "MATRIX_FREE_ABOVE", 3)
    monkeypatch.setattr(module, "DENSE_WORK", 0)
    lanczos = kf.profile(flow, x, context=context)
    assert lanczos.status == "converged"
    for name in ("layer_sigma_max", "layer_sigma_min", "sigma_max", "sigma_min"):
        torch.testing.assert_close(getattr(lanczos, name), getattr(dense, name), rtol=2e-3, atol=0)


def test_deep_flows_at_few_points_are_measured_by_matrices_in_more_dimensions():
    """Lanczos iterations would take time that grows with the square of the depth."""
    flow = kf.glow((1, 12, 12), levels=2, steps=1, hidden=2).eval()
    x = torch.randn(30, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    assert kf.profile(flow, x[:1]).status == "exact"
    assert kf.profile(flow, x).status == "converged"


def test_layers_open_nested_chains_in_order():
    """Names count from 1 at the data side, and contexts are those that arrive."""
    inner = kf.Chain(
        [kf.bijections.Permutation((1, 0)), kf.Chain([kf.bijections.ElementwiseAffine(2)])],
        embedding=torch.nn.Linear(3, 2),
        context_features=3,
    )
    layers = layers_of(kf.Chain([kf.bijections.ActNorm(2), inner]), torch.zeros(1, 3))
    assert [layer.name for layer in layers] == [
        "1 ActNorm",
        "2 Permutation",
        "3 ElementwiseAffine",
    ]
    assert [layer.context.shape[1] for layer in layers] == [3, 2, 2]


def test_wrong_arguments_are_refused():
    """A profile needs a flow with a layer after its standardization."""
    only = kf.Flow(kf.StandardNormal(2), kf.bijections.Standardize(2))
    for flow, message in ((only, "layer after"), (kf.bijections.Permutation((1, 0)), "a Flow")):
        with pytest.raises(kf.errors.ArgumentError, match=message):
            kf.profile(flow, torch.zeros(2, 2))
