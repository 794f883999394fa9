"""To the latent and back."""

import pytest
import torch

import kappaflow as kf
from kappaflow.flows.recipe import from_options
from kappaflow.testing.contract import jittered


def small(**more):
    """Returns a small Glow off its start."""
    options = {"levels": 2, "steps": 2, "hidden": 4, "values": 17, **more}
    return jittered(from_options(kf.glow, (1, 4, 4), **options)).eval()


def pixels(n, seed=0):
    """Returns whole numbers as pixels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 17, (n, 1, 4, 4), generator=generator).float()


@pytest.mark.parametrize("dequantize", ["uniform", "variational"])
def test_pixels_come_back_as_the_whole_numbers_that_they_were(dequantize):
    """The noise that fills them is dropped behind."""
    flow, x = small(dequantize=dequantize), pixels(20)
    assert torch.equal(kf.images.reconstruct(flow, x), x)


def test_real_points_come_back_up_to_rounding():
    """Without an augmentation nothing is rounded to whole numbers."""
    flow, x = small().double(), torch.randn(5, 1, 4, 4, dtype=torch.float64)
    back = kf.images.reconstruct(flow, x)
    assert torch.allclose(back, x, atol=1e-9) and not torch.equal(back, x.round())


def test_a_reconstruction_shows_where_a_flow_is_not_its_own_inverse():
    """What comes back is what the inverse says, not the point that was given."""
    flow, x = small(dequantize="uniform"), pixels(6)
    inverse = flow.bijection.inverse
    flow.bijection.inverse = lambda z, context=None: inverse(z * 0.5, context)
    assert (kf.images.reconstruct(flow, x) - x).abs().max() >= 1


def test_a_reconstruction_takes_any_leading_shape_and_a_context():
    """As log_prob does."""
    flow = small(dequantize="uniform", context_features=3)
    x = pixels(6).reshape(2, 3, 1, 4, 4)
    context = torch.eye(3)
    assert torch.equal(kf.images.reconstruct(flow, x, context), x)
    with pytest.raises(kf.errors.ArgumentError, match="'context' should be given"):
        kf.images.reconstruct(flow, x)
    with pytest.raises(kf.errors.ArgumentError, match="'flow' should be a Flow, got int"):
        kf.images.reconstruct(3, x)


def test_the_mode_of_a_flow_is_left_as_it_was():
    """Also part by part, and an ActNorm that waits for its first batch still waits."""
    flow = kf.glow((1, 4, 4), levels=1, steps=2, hidden=4)
    flow.train()
    flow.bijection.bijections[0].eval()
    before = [part.training for part in flow.modules()]
    kf.images.reconstruct(flow, torch.randn(2, 1, 4, 4))
    assert [part.training for part in flow.modules()] == before
    waiting = [p.initialized for p in flow.modules() if isinstance(p, kf.bijections.ActNorm)]
    assert len(waiting) == 2 and not any(waiting)
