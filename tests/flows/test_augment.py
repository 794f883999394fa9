"""Flows of points that are joined with something: dequantised pixels, padded features."""

import copy
import math

import pytest
import torch

import kappaflow as kf
from cases import AUGMENTATIONS, seeded
from kappaflow import images
from kappaflow.testing.contract import jittered


def pixels(n, shape, values, seed=0):
    """Returns random pixel values."""
    return torch.randint(0, values, (n, *shape), generator=seeded(seed)).float()


def dequantised(augment, scale=1.0, shift=0.0, features=1):
    """Returns a flow that is an affine map of the filled pixels."""
    affine = kf.bijections.ElementwiseAffine(
        features, log_scale=[math.log(scale)] * features, shift=[shift] * features
    )
    return kf.Flow(kf.StandardNormal(features), affine, augment)


def test_bits_per_dimension_of_a_known_model():
    """A density that is uniform on 256 values takes 8 bits, whatever the noise.

    A normal so wide that it is flat over the pixels has log p = -log(sigma sqrt(2 pi)) there.
    """
    flow = dequantised(images.Dequantize(256), scale=1e-4)
    x = pixels(100, (1,), 256)
    bits = -flow.log_prob(x, generator=seeded()) / math.log(2)
    expected = math.log2(1e4 * math.sqrt(2 * math.pi))
    assert torch.allclose(bits, torch.full((100,), expected), atol=1e-3)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_what_is_drawn_is_joined_and_dropped_again(name):
    """And its density is what it is reported as."""
    case = AUGMENTATIONS[name]
    augment = jittered(case.make()).double()
    x = pixels(5, case.event, 16).double()
    augment.fit(x)
    with torch.no_grad():
        e, log_q = augment.draw(x, generator=seeded())
        again, _ = augment.draw(x, generator=seeded())
        joined = augment.join(x, e)
        back, kept = augment.drop(joined)
        assert torch.equal(e, again)
        assert torch.equal(back, x)
        assert torch.allclose(kept, e, atol=1e-12)
        assert log_q.shape == (5,)
        assert torch.allclose(augment.log_prob(e, x), log_q, atol=1e-8)
        off = augment.log_prob(e + 1e-3, x)
    assert augment.event_shape(joined.shape[1:]) == case.event
    assert (off.isneginf() if not augment.has_density else off.isfinite()).any()
    assert augment.has_density or not off.isfinite().any()


def test_the_learned_noise_has_a_density_that_integrates_to_one():
    """Of a single pixel, over its interval."""
    augment = jittered(images.VariationalDequantize((1, 1, 1), 4, depth=2, hidden=4)).double()
    grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    with torch.no_grad():
        log_q = augment.log_prob(
            grid.reshape(-1, 1, 1, 1), torch.full((20_000, 1, 1, 1), 2.0).double()
        )
    assert abs(log_q.exp().mean() - 1) < 1e-3


def test_rounding_never_carries_a_pixel_into_the_next_interval():
    """Not even the largest of many draws next to the largest value."""
    x = torch.full((2_000_000, 1), 255.0)
    e, _ = images.Dequantize(256).draw(x, generator=seeded())
    assert (x + e).max() < 256
    assert e.max() > 0.9999


@pytest.mark.parametrize(
    "augment",
    [images.Dequantize(256), images.VariationalDequantize((1, 2, 2), 256, depth=1, hidden=2)],
)
def test_types_without_room_for_noise_beside_a_pixel_are_refused(augment):
    """In them x + e would be x, or worse; half precision has room next to few values."""
    for dtype in (torch.bfloat16, torch.float16):
        narrow = copy.deepcopy(augment).to(dtype)
        with pytest.raises(
            kf.errors.ArgumentError, match=f"wider dtype than {dtype}, .* 256 values"
        ):
            narrow.draw(torch.zeros(1, 1, 2, 2, dtype=dtype))
        narrow.values = 4
        e, _ = narrow.draw(torch.zeros(1, 1, 2, 2, dtype=dtype), generator=seeded())
        assert (e >= 0).all() and (e < 1).all()


def test_the_learned_noise_has_no_density_outside_the_interval():
    """As that which is not learned."""
    augment = jittered(images.VariationalDequantize((1, 2, 2), 16, depth=2, hidden=4))
    e = torch.full((5, 1, 2, 2), 0.5)
    e[:4, 0, 0, 0] = torch.tensor([0.0, 1.0, -0.1, 1.1])
    actual = augment.log_prob(e, torch.zeros(5, 1, 2, 2))
    assert actual[:4].tolist() == [-math.inf] * 4
    assert actual[4].isfinite()


def test_draws_are_whole_numbers_of_the_range():
    """And their log_prob is the bound there."""
    flow = dequantised(images.Dequantize(4), scale=0.3, shift=-0.6)
    x, log_prob = flow.sample_and_log_prob(500, generator=seeded())
    assert set(x.flatten().tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert log_prob.isfinite().all()


def test_a_temperature_of_zero_is_the_mode():
    """And one of a half halves the deviation of the latents."""
    flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2, shift=[1.0, -1.0]))
    cold = flow.sample(3, temperature=0.0)
    assert torch.equal(cold, torch.tensor([[-1.0, 1.0]]).expand(3, 2))
    warm, cool = (flow.sample(500, temperature=t, generator=seeded()) for t in (1.0, 0.5))
    mode = torch.tensor([-1.0, 1.0])
    assert torch.allclose(cool - mode, (warm - mode) / 2, atol=1e-5)


def test_filling_and_padding_have_the_density_of_both():
    """Written out: e is noise of one channel and two normal ones, and so is what is joined."""
    both = images.DequantizeAndPad(images.Dequantize(4), 2)
    flow = kf.Flow(kf.StandardNormal((3, 2, 2)), kf.Chain([]), both)
    x = pixels(5, (1, 2, 2), 4)
    e, log_q = both.draw(x, generator=seeded())
    normal = torch.distributions.Normal(0.0, 1.0)
    added = normal.log_prob(e[:, 1:]).flatten(1).sum(1)
    assert e.shape == (5, 3, 2, 2) and ((e[:, :1] >= 0) & (e[:, :1] < 1)).all()
    assert torch.allclose(log_q, added)
    own = normal.log_prob(x + e[:, :1]).flatten(1).sum(1)
    assert torch.allclose(flow.joint_log_prob(x, e), own + added, rtol=1e-5)
    # what is padded stays standard normal, so that its terms cancel
    assert torch.allclose(flow.log_prob(x, generator=seeded()), own, rtol=1e-5)
    assert both.log_prob(torch.full_like(e, 1.5), x).tolist() == [-math.inf] * 5


def test_padding_that_is_mixed_in_gives_a_bound():
    """Z = (x + a e, e) has log p(x) = log N(0, 1 + a^2); more draws come nearer to it."""
    slope = 0.8
    mix = kf.factor.LinearCoupling(kf.Partition(2, (1,)), torch.tensor([[slope]]))
    flow = kf.Flow(kf.StandardNormal(2), mix, kf.flows.Pad(1)).double()
    x = torch.tensor([[1.5]], dtype=torch.float64).expand(4000, 1)
    exact = torch.distributions.Normal(0.0, math.sqrt(1 + slope**2)).log_prob(x[:1, 0]).item()
    with torch.no_grad():
        bounds = [flow.log_prob(x, samples=n, generator=seeded()).mean() for n in (1, 4, 64)]
    assert bounds[0] < bounds[1] - 0.1 < exact and bounds[1] < bounds[2] < exact + 0.01
    assert abs(bounds[2] - exact) < 0.01
    by_hand = exact - (bounds[0] - exact).abs()  # the gap is the divergence of q from p(e | x)
    assert bounds[0].item() == pytest.approx(by_hand.item())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: dequantised(images.Dequantize(4)).log_prob(torch.tensor([[0.5]])),
            "whole numbers",
        ),
        (lambda: dequantised(images.Dequantize(4)).log_prob(torch.tensor([[4.0]])), "0 to 3"),
        (lambda: dequantised(None).log_prob(torch.zeros(1, 1), samples=2), "exact"),
        (lambda: dequantised(None).joint_log_prob(torch.zeros(1, 1), None), "no augmentation"),
        (
            lambda: images.Dequantize(4).draw(torch.zeros(2, 1, 2, 2, dtype=torch.uint8)),
            "'x' should hold floating-point",
        ),
        (lambda: dequantised(kf.flows.Pad(1)), "fewer features"),
        (
            lambda: dequantised(kf.flows.Pad(1), features=3).joint_log_prob(
                torch.zeros(4, 2), torch.zeros(1, 1)
            ),
            "'e' should have shape .4, 1., got .1, 1.",
        ),
        (
            lambda: images.DequantizeAndPad(kf.flows.Pad(1), 1),
            "'filling' should be a Dequantize or a Var",
        ),
        (
            lambda: images.VariationalDequantize((4,)),
            "'event_shape' should be .channels, height",
        ),
        (
            lambda: kf.Flow(
                kf.StandardNormal((1, 2, 2)),
                kf.Chain([]),
                images.VariationalDequantize((1, 4, 4)),
            ),
            "'augment' should be for images of the shape",
        ),
        (lambda: dequantised("uniform"), "'augment' should be an Augmentation, got str"),
        (lambda: dequantised(None).sample(1, temperature=-1.0), "'temperature' should be 0 or"),
        (lambda: dequantised(None).sample(1, temperature=math.nan), "'temperature' should be a"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    """In one sentence."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        call()
