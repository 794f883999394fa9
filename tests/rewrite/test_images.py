"""Flows of images on one partition a scale, and with their linear layers as one."""

import pytest
import torch

import kappaflow as kf
from kappaflow.flows.recipe import from_options
from kappaflow.testing.contract import jittered


def trained(recipe="glow", shape=(3, 8, 8), **settings):
    """Returns a flow with started activation norms and random weights."""
    torch.manual_seed(0)
    sizes = {"levels": 2, "steps": 2, "hidden": 4} if recipe == "glow" else {}
    flow = from_options(getattr(kf, recipe), shape, **sizes | settings)
    flow.train()
    flow.augmented_log_prob(torch.randn(32, *shape))
    return jittered(flow).eval()


def layers(flow):
    """Returns the layers of all scales, in a list."""
    scales = [part for part in flow.bijection if isinstance(part, kf.bijections.MultiScale)][0]
    return [layer for scale in scales for layer in scale]


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["lu", "svd"])
def test_a_glow_becomes_couplings_of_one_partition_a_scale(mixing):
    """Without 1x1 convolutions, with the same function."""
    flow = trained(mixing=mixing)
    rewritten, certificate = kf.rewrite_fixed_partition(flow)
    kinds = {type(layer) for layer in layers(rewritten)}
    assert kf.bijections.InvertibleConv1x1 not in kinds
    for layer in layers(rewritten):
        if hasattr(layer, "partition"):
            half = kf.Partition.half(layer.partition.features)
            assert layer.partition in (half, half.swapped())
    assert certificate.couplings_before == 5
    assert certificate.mixing_before == 4
    assert certificate.couplings_after < 5 + 4 * 6
    assert certificate.joined > 0
    assert certificate.left == ()
    x = flow.sample(20)
    actual = rewritten.double().log_prob(x.double())
    assert torch.allclose(actual, flow.double().log_prob(x.double()), atol=1e-7)
    assert certificate.differences["float64"].log_prob < 1e-6


@pytest.mark.slow
def test_scales_that_run_steps_together_are_rewritten():
    """Each scale stays an `ImageChain`, also after `fuse`."""
    flow = trained()
    for rewritten in (kf.fuse(flow), kf.rewrite_fixed_partition(flow)[0]):
        scales = [
            part for part in rewritten.bijection if isinstance(part, kf.bijections.MultiScale)
        ][0]
        assert {type(scale) for scale in scales} == {kf.bijections.ImageChain}


@pytest.mark.slow
def test_permutations_of_patches_become_couplings():
    """Of a Jet, whose transformers read half of the channels or half of the places."""
    flow = trained("jet", (1, 8, 8), patch=4, depth=4, width=4, blocks=1, heads=1)
    rewritten, certificate = kf.rewrite_fixed_partition(flow)
    assert not any(
        isinstance(part, kf.bijections.Permutation) for part in rewritten.bijection.modules()
    )
    assert set(certificate.left) == {"SigmoidCoupling"}
    assert certificate.differences["float64"].log_prob < 1e-9


@pytest.mark.slow
def test_checkerboards_are_kept_and_named():
    """They split pixels, not channels."""
    flow = trained("real_nvp_image", (1, 8, 8), levels=2, hidden=4, blocks=1)
    _, certificate = kf.rewrite_fixed_partition(flow)
    assert certificate.couplings_before == certificate.couplings_after == 10
    assert certificate.left == ("AffineCoupling",) * 7
    assert certificate.differences["float64"].log_prob < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("dequantize", ["uniform", "variational"])
def test_the_dequantization_is_kept(dequantize):
    """Both flows are compared on the same dequantized pixels."""
    flow = trained("glow", (1, 4, 4), dequantize=dequantize, values=4)
    rewritten, certificate = kf.rewrite_fixed_partition(flow)
    assert repr(rewritten.augment) == repr(flow.augment)
    assert certificate.differences["float64"].log_prob < 1e-6
    assert kf.fuse(flow).augment is not None


def test_runs_of_linear_layers_of_the_channels_become_one():
    """Activation norm and convolution are one layer, with the same function."""
    flow = trained().double()
    fused = kf.fuse(flow)
    kinds = [type(layer) for layer in layers(fused)]
    assert kf.bijections.InvertibleConv1x1 not in kinds
    assert kf.bijections.ActNorm not in kinds
    assert kinds.count(kf.bijections.Linear) == 4
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(fused.log_prob(x), flow.log_prob(x), atol=1e-9)


def test_a_gray_image_without_scales_has_nothing_to_mix():
    """One channel, and no squeeze."""
    flow = trained("real_nvp_image", (1, 3, 3), levels=1, hidden=4, blocks=1)
    with pytest.raises(kf.errors.ArgumentError, match="two features or more"):
        kf.rewrite_fixed_partition(flow)
