"""The recipes of images."""

import pytest
import torch

import kappaflow as kf
from kappaflow.testing.contract import jittered


def small(recipe, **more):
    """Returns a small flow of a recipe, off its start, in float64."""
    sizes = {
        "glow": {"levels": 2, "steps": 2, "hidden": 4},
        "real_nvp_image": {"levels": 2, "hidden": 4, "blocks": 1},
        "jet": {"patch": 2, "depth": 4, "spatial_every": 2, "width": 4, "blocks": 1, "heads": 1},
    }[recipe]
    return jittered(getattr(kf, recipe)((1, 4, 4), **sizes | more)).double().eval()


RECIPES = ("glow", "real_nvp_image", "jet")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_density_of_a_sample_is_its_log_prob(recipe):
    """Through all scales, there and back."""
    flow = small(recipe)
    x, log_prob = flow.sample_and_log_prob(6)
    assert torch.allclose(flow.log_prob(x), log_prob, atol=1e-8)


@pytest.mark.parametrize("recipe", RECIPES)
def test_images_are_restored(recipe):
    """Exactly, up to rounding times the condition number."""
    flow = small(recipe)
    x = torch.randn(6, 1, 4, 4, dtype=torch.float64)
    z = flow.bijection(x)[0]
    assert z.shape == (6, 16)
    assert torch.allclose(flow.bijection.inverse(z)[0], x, atol=1e-9)


@pytest.mark.parametrize("memory", ["store", "recompute", "invert"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_memory_modes_give_the_same_gradients(recipe, memory):
    """As plain autograd does."""
    flow, plain = small(recipe, memory=memory), small(recipe, memory="store")
    plain.load_state_dict(flow.state_dict())
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    for each in (flow, plain):
        each.train()
        each.log_prob(x).sum().backward()
    for (name, p), q in zip(flow.named_parameters(), plain.parameters(), strict=True):
        if q.grad is not None:
            assert torch.allclose(p.grad, q.grad, atol=1e-7 * (1 + q.grad.abs().max())), name


def test_a_new_flow_of_images_is_a_rotation_of_its_pixels():
    """Couplings begin as the identity, and convolutions at rotations: condition number 1."""
    for recipe in RECIPES:
        flow = getattr(kf, recipe)(
            (3, 4, 4), **({"levels": 1} if recipe != "jet" else {"patch": 2})
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
    x, one, other = torch.randn(2, 1, 4, 4).double(), *torch.eye(3).double()[:2]
    assert not torch.allclose(flow.log_prob(x, one), flow.log_prob(x, other))
    assert flow.sample(5, torch.eye(3).double()).shape == (5, 3, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: kf.glow((1, 28, 28), levels=3),
            "'levels' should be at most 2 for images of 28 x",
        ),
        (lambda: kf.glow((1, 7, 8), levels=1), "sides of the images should divide by 2"),
        (lambda: kf.real_nvp_image((1, 28, 28), levels=4), "'levels' should be at most 3"),
        (lambda: kf.glow((28, 28)), r"'shape' should be \(channels, height, width\)"),
        (lambda: kf.glow((0, 4, 4)), "'shape' should be at least 1"),
        (lambda: kf.glow((1, 4, 4), levels=1, steps=0), "'steps' should be at least 1"),
        (lambda: kf.glow((1, 4, 4), levels=1, coupling="spline"), "'coupling' should be one of"),
        (lambda: kf.glow((1, 4, 4), levels=1, dequantize="no"), "'dequantize' should be one of"),
        (lambda: kf.glow((1, 4, 4), levels=1, logit=0.7), "'margin' should be"),
        (lambda: kf.jet((1, 6, 6), patch=4), "'patch' should divide the sides of the images"),
        (lambda: kf.jet((1, 4, 4), width=6, heads=4), "heads"),
    ],
)
def test_what_cannot_be_built_is_said(call, message):
    """In one sentence."""
    with pytest.raises(kf.ArgumentError, match=message):
        call()


@pytest.mark.parametrize("dequantize", ["uniform", "variational"])
def test_flows_of_pixels_learn(dequantize):
    """A few steps on images of two values lower the bits per dimension."""
    torch.manual_seed(0)
    flow = kf.glow(
        (1, 4, 4), levels=1, steps=2, hidden=8, dequantize=dequantize, values=4, memory="store"
    )
    x = torch.randint(0, 2, (64, 1, 1, 1)).float().expand(64, 1, 4, 4) * 3
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = -flow.log_prob(x).mean() / 16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[1] - 0.5
    assert set(flow.sample(20).unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
