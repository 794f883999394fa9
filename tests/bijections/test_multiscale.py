"""Multi-scale maps."""

import pytest
import torch

import kappaflow as kf
from cases import image_coupling
from kappaflow.conditioning import layers_of
from kappaflow.testing.contract import dense_jacobian, jittered


def three_scales():
    """Returns a map of three scales with learned densities of what is factored out."""
    scales, channels = [], 2
    for last in (False, False, True):
        channels *= 4
        mix = kf.bijections.InvertibleConv1x1(channels)
        layers = [kf.bijections.Squeeze(), kf.bijections.ActNorm(channels), mix]
        if not last:
            layers.append(image_coupling(kf.Partition.half(channels)))
        scales.append(kf.Chain(layers))
        channels //= 2
    return jittered(kf.bijections.MultiScale((2, 8, 8), scales)).double().eval()


def test_the_latent_is_packed_with_the_coarsest_scale_last():
    """Without layers that change values, the parts are channels of the squeezed image."""
    both = kf.bijections.MultiScale((1, 4, 4), [kf.bijections.Squeeze(), kf.bijections.Squeeze()])
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    z = both(x)[0]
    squeezed = kf.bijections.Squeeze()(x)[0]
    assert both.shapes == ((2, 2, 2), (8, 1, 1))
    assert torch.equal(z[:, :8], squeezed[:, 2:].flatten(1))
    assert torch.equal(z[:, 8:], kf.bijections.Squeeze()(squeezed[:, :2])[0].flatten(1))
    finest, coarsest = both.latents(z)
    assert torch.equal(finest, squeezed[:, 2:])
    assert coarsest.shape == (1, 8, 1, 1)


def test_the_chain_of_single_layers_is_the_same_map():
    """Value and log_det in both directions, through states that are flat."""
    scales = three_scales()
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    z, log_det = scales(x)
    plain, plain_log_det = scales.plain()(x)
    assert torch.allclose(plain, z, atol=1e-12)
    assert torch.allclose(plain_log_det, log_det, atol=1e-10)
    assert torch.allclose(scales.plain().inverse(z)[0], x, atol=1e-10)


def test_layers_are_named_with_their_scale():
    """What a profile shows."""
    names = [layer.name for layer in layers_of(three_scales())]
    assert names[:4] == [
        "1 Flatten",
        "2 Squeeze, scale 1",
        "3 ActNorm, scale 1",
        "4 InvertibleConv1x1, scale 1",
    ]
    assert names[-1] == "14 InvertibleConv1x1, scale 3"


def test_a_profile_ends_with_the_whole_map():
    """Cumulative singular values behind the last layer are those of the dense Jacobian."""
    scales = jittered(
        kf.bijections.MultiScale((1, 4, 4), [_level(4, prior=True), _level(8)])
    ).double()
    flow = kf.Flow(kf.StandardNormal(16), scales).double()
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    profile = kf.profile(flow, x)
    values = torch.linalg.svdvals(dense_jacobian(scales.eval().forward, x, None))
    assert torch.allclose(profile.sigma_max[-1], values[:, 0], rtol=1e-9)
    assert torch.allclose(profile.sigma_min[-1], values[:, -1], rtol=1e-9)
    assert profile.round_trip_data[0].max() < 1e-12


def _level(channels, *, prior=False):
    layers = [kf.bijections.Squeeze(), image_coupling(kf.Partition.half(channels).swapped())]
    return kf.Chain([*layers, image_coupling(kf.Partition.half(channels))] if prior else layers)


def test_what_is_factored_out_has_a_density_given_what_goes_on():
    """The coupling at the end of a scale moves the part that is done, and leaves the other."""
    scales = kf.bijections.MultiScale((1, 4, 4), [_level(4, prior=True), kf.bijections.Squeeze()])
    prior = list(scales)[0].bijections[-1]
    x = torch.randn(2, 1, 4, 4)
    before = scales.latents(scales(x)[0])
    with torch.no_grad():
        prior.conditioner.last.bias += 1
    after = scales.latents(scales(x)[0])
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[0], after[0])


def test_too_few_channels_and_other_shapes_are_refused():
    """One sentence each."""
    with pytest.raises(
        kf.errors.ArgumentError, match="scale 1 should leave images with two channels"
    ):
        kf.bijections.MultiScale((1, 4, 4), [kf.bijections.ActNorm(1), kf.bijections.Squeeze()])
    with pytest.raises(kf.errors.ArgumentError, match="one bijection or more"):
        kf.bijections.MultiScale((1, 4, 4), [])
    with pytest.raises(kf.errors.ArgumentError, match="height and width divide"):
        kf.bijections.MultiScale((1, 6, 6), [kf.bijections.Squeeze(), kf.bijections.Squeeze()])
    with pytest.raises(kf.errors.ArgumentError, match=r"'z' should have shape \(batch, 16\)"):
        kf.bijections.MultiScale((1, 4, 4), [kf.bijections.Squeeze()]).inverse(
            torch.zeros(2, 4, 2, 2)
        )
