"""The recipes of images."""

import pytest
import torch

import kappaflow as kf
from kappaflow.bijections import AffineCoupling
from kappaflow.flows.recipe import from_options
from kappaflow.testing.contract import jittered


def small(recipe, **more):
    """Returns a small flow of a recipe, off its start, in float64."""
    sizes = {
        "glow": {"levels": 2, "steps": 2, "hidden": 4},
        "real_nvp_image": {"levels": 2, "hidden": 4, "blocks": 1},
        "jet": {"patch": 2, "depth": 4, "spatial_every": 2, "width": 4, "blocks": 1, "heads": 1},
    }[recipe]
    return jittered(from_options(getattr(kf, recipe), (1, 4, 4), **sizes | more)).double().eval()


RECIPES = ("glow", "real_nvp_image", "jet")


@pytest.mark.slow
def test_a_new_flow_of_images_is_a_rotation_of_its_pixels():
    """Couplings begin as the identity, and convolutions at rotations: condition number 1."""
    for recipe in RECIPES:
        flow = from_options(
            getattr(kf, recipe), (3, 4, 4), **({"levels": 1} if recipe != "jet" else {"patch": 2})
        )
        x = torch.randn(2, 3, 4, 4)
        assert (kf.spectrum(flow.core, x).condition_number < 1 + 1e-4).all()


def test_latents_are_seen_by_scale():
    """The finest first; a flow without scales has one part."""
    flow = kf.glow((3, 8, 8), levels=3, steps=1, hidden=4)
    z = flow.bijection(torch.randn(2, 3, 8, 8))[0]
    assert [tuple(part.shape) for part in flow.latents(z)] == [
        (2, 6, 4, 4),
        (2, 12, 2, 2),
        (2, 48, 1, 1),
    ]
    assert torch.equal(torch.cat([part.flatten(1) for part in flow.latents(z)], 1), z)
    table = kf.real_nvp(3, depth=2, hidden=(4,))
    assert len(table.latents(torch.zeros(2, 3))) == 1


def test_classes_have_their_own_densities():
    """A context reaches every coupling."""
    flow = small("glow", context_features=3)
    x, first, other = torch.randn(2, 1, 4, 4).double(), *torch.eye(3).double()[:2]
    assert not torch.allclose(flow.log_prob(x, first), flow.log_prob(x, other))
    assert flow.sample(5, torch.eye(3).double()).shape == (5, 3, 1, 4, 4)


@pytest.mark.parametrize("partition", ["half", "alternating", "random-half"])
def test_without_convolutions_two_steps_change_every_channel(partition):
    """The halves of a pair of steps are each other's rest, and other pairs have other halves."""
    flow = kf.glow((2, 4, 4), levels=1, steps=4, hidden=2, couplings={"partition": partition})
    kept = [part.partition.kept for part in flow.modules() if isinstance(part, AffineCoupling)]
    assert len(kept) == 4
    for first, second in (kept[:2], kept[2:]):
        assert sorted(first + second) == list(range(8))
    assert (kept[0] == kept[2]) == (partition != "random-half")
    x = torch.randn(3, 2, 4, 4)
    z = flow.bijection(x)[0]
    assert torch.allclose(flow.bijection.inverse(z)[0], x, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_padding_channels_stand_beside_those_of_the_image(recipe, tmp_path):
    """The flow takes both, samples are images alone, and all of it is saved."""
    flow = small(recipe, padding=2, dequantize="uniform", values=16).float()
    assert flow.event_shape == (1, 4, 4) and flow.joint_shape == (3, 4, 4)
    assert flow.augment.values == 16 and flow.sample(2).shape == (2, 1, 4, 4)
    kf.save(flow, tmp_path)
    loaded = kf.load(tmp_path)
    assert repr(loaded.augment) == repr(flow.augment)
    x = torch.randint(0, 16, (3, 1, 4, 4)).float()
    scores = [f.log_prob(x, generator=torch.Generator().manual_seed(1)) for f in (flow, loaded)]
    assert torch.equal(*scores)
    assert torch.equal(kf.images.reconstruct(flow, x), x)


def test_units_leave_the_padding_as_it_is():
    """Standardized or behind a logit, only the channels of the image are changed."""
    x = torch.cat((40 + 9 * torch.rand(50, 2, 4, 4), torch.randn(50, 1, 4, 4)), 1)
    units = kf.glow((2, 4, 4), levels=1, padding=1).standardization
    units.bijections[0].fit(x)
    z, log_det = units(x)
    assert torch.equal(z[:, 2:], x[:, 2:]) and not torch.equal(z[:, :2], x[:, :2])
    assert z[:, :2].std().item() == pytest.approx(1, abs=1e-3)
    deviation = x[:, :2].std((0, 2, 3), correction=0)
    assert log_det[0].item() == pytest.approx(-16 * deviation.log().sum().item(), rel=1e-4)
    logit = kf.glow((2, 4, 4), levels=1, padding=1, pixels={"logit": 0.05}).bijection.bijections[0]
    z, _ = logit(x)
    assert torch.equal(z[:, 2:], x[:, 2:])
    alone, log_det = kf.bijections.Logit(0.0, 256.0, margin=0.05)(x[:, :2])
    assert torch.equal(z[:, :2], alone) and torch.equal(logit(x)[1], log_det)


def test_padding_alone_needs_no_whole_numbers():
    """Images of real numbers are padded too; None and 0 add nothing."""
    assert repr(kf.glow((1, 4, 4), levels=1, padding=2).augment) == "Pad(features=2, scale=1)"
    for padding in (None, 0):
        assert kf.glow((1, 4, 4), levels=1, padding=padding).augment is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kf.glow((1, 4, 4), levels=1, padding=-1), "'padding' should be at least 0"),
        (lambda: kf.jet((1, 4, 4), padding=0.5), "'padding' should be a whole number"),
        (
            lambda: kf.glow((1, 28, 28), levels=3),
            "'levels' should be at most 2 for images of 28 x",
        ),
        (lambda: kf.glow((1, 7, 8), levels=1), "sides of the images should be even"),
        (lambda: kf.real_nvp_image((1, 28, 28), levels=4), "'levels' should be at most 3"),
        (lambda: kf.glow((28, 28)), r"'shape' should be \(channels, height, width\)"),
        (lambda: kf.glow((0, 4, 4)), "'shape' should be at least 1"),
        (lambda: kf.glow((1, 4, 4), levels=1, steps=0), "'steps' should be at least 1"),
        (
            lambda: kf.glow((1, 4, 4), levels=1, couplings={"coupling": "spline"}),
            "'coupling' should be one of",
        ),
        (
            lambda: kf.glow((1, 8, 8), couplings={"partition": "half", "mixing": "qr"}),
            "'mixing' and 'condition_bound' should be left out",
        ),
        (lambda: kf.glow((1, 8, 8), couplings={"partition": "third"}), "'partition' should be"),
        (lambda: kf.glow((1, 8, 8), couplings={"condition_bound": 9.0}), "'condition_bound'"),
        (
            lambda: kf.glow((1, 4, 4), levels=1, pixels={"dequantize": "no"}),
            "'dequantize' should be one of",
        ),
        (lambda: kf.glow((1, 4, 4), levels=1, pixels={"logit": 0.7}), "'margin' should be"),
        (lambda: kf.jet((1, 6, 6), patch=4), "'patch' should divide the sides of the images"),
        (lambda: kf.jet((1, 4, 4), network={"width": 6, "heads": 4}), "heads"),
    ],
)
def test_what_cannot_be_built_is_said(call, message):
    """In one sentence."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        call()
