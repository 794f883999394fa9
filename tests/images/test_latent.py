"""There and back through the latent, and from one point to another."""

import pytest
import torch

import kappaflow as kf
from kappaflow.flows.recipe import from_options
from kappaflow.testing.contract import jittered


def small(**more):
    """Returns a small Glow off its start."""
    given = {"levels": 2, "steps": 2, "hidden": 4, "values": 17, **more}
    return jittered(from_options(kf.glow, (1, 4, 4), **given)).eval()


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


def test_the_mode_of_a_flow_is_left_as_it_was():
    """Also part by part, and an ActNorm that waits for its first batch still waits."""
    flow = kf.glow((1, 4, 4), levels=1, steps=2, hidden=4)
    flow.train()
    flow.bijection.bijections[0].eval()
    before = [part.training for part in flow.modules()]
    kf.images.reconstruct(flow, torch.randn(2, 1, 4, 4))
    kf.images.interpolate(flow, torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4), 3)
    assert [part.training for part in flow.modules()] == before
    waiting = [p.initialized for p in flow.modules() if isinstance(p, kf.bijections.ActNorm)]
    assert len(waiting) == 2 and not any(waiting)


def test_an_interpolation_begins_and_ends_at_its_points():
    """The first step is a and the last is b, exactly as they come back."""
    flow, a, b = small(dequantize="uniform"), pixels(4), pixels(4, seed=1)
    way = kf.images.interpolate(flow, a, b, 5)
    assert way.shape == (5, 4, 1, 4, 4)
    assert torch.equal(way[0], a) and torch.equal(way[-1], b)
    assert not torch.equal(way[2], a) and not torch.equal(way[2], b)


def test_the_arc_turns_at_an_even_pace_and_keeps_the_length():
    """Between latents of one length each step is as long as they are, at equal angles."""
    flow = kf.Flow(
        kf.StandardNormal(16),
        kf.Chain([kf.bijections.Squeeze(), kf.bijections.Flatten((4, 2, 2))]),
    )
    a, b = torch.randn(2, 6, 1, 4, 4).double()
    length = a.flatten(1).norm(dim=1)
    b = b * (length / b.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
    way = kf.images.interpolate(flow.double(), a, b, 9).flatten(2)
    assert torch.allclose(way.norm(dim=2), length.expand(9, -1), rtol=1e-12)
    turns = torch.nn.functional.cosine_similarity(way[1:], way[:-1], dim=2).arccos()
    assert torch.allclose(turns, turns[:1].expand_as(turns), rtol=1e-8)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_latents_of_one_line_have_no_arc_and_are_joined_by_it(factor):
    """The same, one direction, opposite: the steps are even ones on that line."""
    flow = kf.Flow(kf.StandardNormal(3), kf.bijections.Permutation((2, 0, 1)))
    a = torch.tensor([[1.0, 2.0, 3.0]])
    way = kf.images.interpolate(flow, a, factor * a, 5)
    for step, x in enumerate(way):
        assert torch.allclose(x, (1 + (factor - 1) * step / 4) * a, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 1}, "'steps' should be at least 2"),
        ({"b": torch.zeros(3, 1, 4, 4)}, "'a' and 'b'"),
        ({"b": torch.zeros(2, 1, 5, 5)}, "'x' should have shape"),
        ({"flow": 3}, "'flow' should be a Flow"),
    ],
)
def test_what_cannot_be_joined_is_refused(change, message):
    """One sentence that names it."""
    requested = {
        "flow": small(),
        "a": torch.zeros(2, 1, 4, 4),
        "b": torch.zeros(2, 1, 4, 4),
    } | change
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.images.interpolate(**requested)
