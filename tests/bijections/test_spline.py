"""Rational-quadratic splines, entry by entry: next to others', autograd, and at extremes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kappaflow as kf
from kappaflow.bijections.spline import (
    Pieces,
    SplineNode,
    pulled_back,
    spline_knots,
    splined,
    unsplined,
)
from kappaflow.bijections.spline_shape import LEAST, SplineShape

FAR = 1e4
SIZES = (0.0, 0.3, 3.0, 30.0, 1e4, 1e30)


def shapes():
    """Returns shapes up to the ends of what is taken."""
    return st.builds(
        lambda bins, bound, share, slope: SplineShape(
            bins, bound, LEAST["min_bin"] + share * (0.99 - LEAST["min_bin"]), slope
        ),
        st.integers(2, 20),
        st.sampled_from((0.5, 3.0, 5.0, 100.0)),
        st.sampled_from((0.0, 0.01, 0.3, 1.0)),
        st.sampled_from((LEAST["min_slope"], 0.05, 0.9)),
    )


def numbers(shape, size, seed, rows, dtype=torch.float64):
    """Returns random numbers of splines, (rows, 3 K - 1, 1), some of them all at one end."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(rows, shape.parameters, 1, generator=generator, dtype=torch.float64) * size
    ends = torch.rand(raw.shape, generator=generator) < 0.1
    return torch.where(ends, raw.sign() * size, raw).to(dtype)


def points_on(raw, shape, seed, *, is_output=False):
    """Returns points (rows, 1): at knots, next to them, at the bound, beyond it and between."""
    knots = spline_knots(raw, shape)[2][:, int(is_output), :, 0]
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(shape.bins + 1, (len(raw), 1), generator=generator)
    at = knots.gather(1, which)
    up, down = (torch.nextafter(at, torch.full_like(at, end)) for end in (math.inf, -math.inf))
    inside = (2 * torch.rand(at.shape, generator=generator, dtype=torch.float64) - 1).to(at)
    beyond = torch.full_like(at, FAR) * inside.sign()
    choices = torch.stack((at, up, down, shape.bound * inside, shape.bound * inside, beyond), 2)
    chosen = torch.randint(choices.shape[2], (len(raw), 1, 1), generator=generator)
    return choices.gather(2, chosen)[..., 0]


def round_trip(forward, inverse, points, raw, shape):
    """Returns errors of coming back in units of rounding, 0.1 to 3 where all is right.

    The unit is eps (B + |p|)(1 + 1 / slope), with the smaller slope of both ends. Where slopes in
    between are so much smaller still that the image cannot tell the points apart, it is the image
    that has to be that of the point: in units of eps (B + |image|)(1 + slope).
    """
    image, log_slope = forward(points, raw, shape)
    home, log_back = inverse(image, raw, shape)
    again = forward(home, raw, shape)[0]
    for actual in (image, log_slope, home, log_back):
        assert torch.isfinite(actual).all()
    eps, steps = torch.finfo(points.dtype).eps, torch.stack((log_slope, -log_back)).exp()
    unit = eps * (shape.bound + points.abs()) * (1 + 1 / steps.amin(0))
    of_image = eps * (shape.bound + image.abs()) * (1 + steps.amax(0))
    return torch.minimum((home - points).abs() / unit, (again - image).abs() / of_image)


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes(),
    size=st.sampled_from(SIZES),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    is_output=st.booleans(),
)
def test_round_trips_hold_to_rounding_and_nothing_is_ever_nan(shape, size, seed, dtype, is_output):
    """At extreme numbers; at knots, next to them, at the bound, far out; on both sides."""
    raw = numbers(shape, size, seed, 500, dtype)
    points = points_on(raw, shape, seed, is_output=is_output)
    forward, inverse = (unsplined, splined) if is_output else (splined, unsplined)
    assert round_trip(forward, inverse, points, raw, shape).max() < 8


def test_the_plain_discriminant_is_seen_to_fail():
    """In float32 b^2 - 4 a c falls below zero at numbers where the sum of squares is right."""
    shape = SplineShape(8, 5.0, **LEAST)
    raw = numbers(shape, 30.0, 3, 10_000, torch.float32)
    y = points_on(raw, shape, 4, is_output=True)
    actual = Pieces(y, raw, shape, is_output=True)
    assert (actual.u + actual.v - 1).abs().max() < 2e-7
    s, d0, d1, height, low, y = (
        part.double()
        for part in (actual.s, actual.d0, actual.d1, actual.height, actual.y0, actual.safe)
    )
    expected = plain_root(s, d0, d1, height, y - low)[1].clamp(max=1)
    narrow = (part.float() for part in (s, d0, d1, height))
    discriminant, theirs = plain_root(*narrow, (y - low).float())
    assert (discriminant < 0).any()
    roots = torch.stack((theirs, actual.u)).double()
    errors = (roots - expected).abs() / expected.clamp(min=1e-30)
    assert errors[0].max() > 1e-2 > 20 * errors[1].max()


def plain_root(s, d0, d1, height, y):
    """Returns the discriminant and the root as they are usually computed."""
    turn = d0 + d1 - 2 * s
    a, b, c = height * (s - d0) + y * turn, height * d0 - y * turn, -s * y
    discriminant = b.square() - 4 * a * c
    return discriminant, 2 * c / (-b - discriminant.clamp(min=0).sqrt())


@settings(max_examples=40, deadline=None)
@given(
    shape=shapes(),
    size=st.sampled_from(SIZES[:-1]),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    by_hand=st.booleans(),
)
def test_gradients_are_finite_at_knots_and_beyond_the_bound(shape, size, seed, dtype, by_hand):
    """In both directions, those of the branches that `where` leaves aside too."""
    raw = numbers(shape, size, seed, 200, dtype)
    for is_output, function in ((False, splined), (True, unsplined)):
        points = points_on(raw, shape, seed, is_output=is_output)
        inputs = points.clone().requires_grad_(), raw.clone().requires_grad_()
        if by_hand and not is_output:
            outputs = SplineNode.apply(*inputs, shape)
        else:
            outputs = function(*inputs, shape)
        by_points, by_raw = torch.autograd.grad(sum(o.sum() for o in outputs), inputs)
        assert torch.isfinite(by_points).all() and torch.isfinite(by_raw).all()
        beyond = points.abs() >= shape.bound
        assert (by_points[beyond] == 1).all() and (by_raw[beyond[:, 0]] == 0).all()


def test_what_is_not_finite_stays_what_it_is():
    """An infinite point is outside, a missing one is not made up; neighbors are not touched."""
    shape, raw = SplineShape(4), torch.randn(1, 11, 4, generator=torch.Generator().manual_seed(0))
    x = torch.tensor([[math.inf, -math.inf, math.nan, 0.5]])
    for function in (splined, unsplined):
        value, log_slope = function(x, raw, shape)
        assert value[0, :2].tolist() == [math.inf, -math.inf] and value[0, 2].isnan()
        assert log_slope[0, :3].tolist() == [0, 0, 0] and value[0, 3].isfinite()


@pytest.mark.parametrize("size", [0.5, 3.0, 20.0])
def test_the_derivative_by_hand_is_that_of_autograd(size):
    """By points and by numbers, through values and through log-slopes."""
    shape = SplineShape(5, 2.0, 0.1, 0.05)
    raw = numbers(shape, size, 5, 1000).requires_grad_()
    x = points_on(raw.detach(), shape, 6).requires_grad_()
    generator = torch.Generator().manual_seed(7)
    weights = torch.randn(2, *x.shape, generator=generator, dtype=torch.float64)
    outputs = splined(x, raw, shape)
    expected = torch.autograd.grad(outputs, (x, raw), tuple(weights))
    actual = pulled_back(Pieces(x.detach(), raw.detach(), shape), *weights)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-12 * e.abs().max().item())


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_the_derivative_of_the_inverse_is_that_of_the_implicit_function(size):
    """At the middle of a piece too, where the mirrored root takes over."""
    shape = SplineShape(5, 2.0)
    raw = numbers(shape, size, 13, 500).requires_grad_()
    y = points_on(raw.detach(), shape, 14, is_output=True)
    y[:100] = 0  # where zeros have the middle of the third piece
    x = unsplined(y, raw, shape)[0]
    (actual,) = torch.autograd.grad(x.sum(), raw)
    pieces = Pieces(x.detach(), raw.detach(), shape)
    expected = -pulled_back(pieces, 1 / pieces.slope)[1]
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_node_can_be_differentiated_twice():
    """As numerical differences say."""
    shape = SplineShape(3, 2.0)
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    raw = torch.randn(2, 8, 2, dtype=torch.float64, generator=generator).requires_grad_()
    function = lambda x, raw: SplineNode.apply(x, raw, shape)  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, raw))
    assert torch.autograd.gradgradcheck(function, (x, raw))


def knots_of(raw, shape):
    """Returns shares of the widths and heights, and all slopes, (rows, ...), by other means."""
    k = shape.bins
    widths, heights = (
        shape.min_bin / k + (1 - shape.min_bin) * part.softmax(1)
        for part in (raw[:, :k, 0], raw[:, k : 2 * k, 0])
    )
    c = -math.log(shape.min_slope)
    slopes = (c * (raw[:, 2 * k :, 0] / c).tanh()).exp()
    return widths, heights, torch.nn.functional.pad(slopes, (1, 1), value=1.0)


def of_zuko(raw, shape):
    """Returns zuko's transform with the same knots."""
    transforms = pytest.importorskip("zuko.transforms")
    widths, heights, slopes = knots_of(raw, shape)
    actual = transforms.MonotonicRQSTransform(widths, heights, slopes[:, 1:-1], bound=shape.bound)
    for name, sizes in (("horizontal", widths), ("vertical", heights)):
        ends = torch.nn.functional.pad(sizes.cumsum(1), (1, 0))
        setattr(actual, name, shape.bound * (2 * ends - 1))
    actual.derivatives = slopes
    return actual


def compared():
    """Returns numbers, points within the bound and beyond it, and a shape, in float64."""
    shape = SplineShape(6, 3.0, 0.1, 0.1)
    raw = numbers(shape, 1.0, 9, 2000)
    generator = torch.Generator().manual_seed(10)
    return 2 * torch.randn(2000, 1, dtype=torch.float64, generator=generator), raw, shape


def require_close(actual, expected):
    """Equal to 1e-12."""
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_values_inverses_and_log_slopes_are_those_of_zuko():
    """At the same knots, in float64."""
    x, raw, shape = compared()
    theirs = of_zuko(raw, shape)
    y, log_slope = splined(x, raw, shape)
    expected = theirs.call_and_ladj(x[:, 0])
    require_close((y[:, 0], log_slope[:, 0]), expected)
    require_close(unsplined(x, raw, shape)[0][:, 0], theirs.inv(x[:, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1.0, 10.0, 1e4])
def test_slopes_stay_in_their_range(size):
    """Whatever the numbers; and both ends are nearly reached."""
    for shape in (SplineShape(), SplineShape(3, 1.0, 0.3, 0.3), SplineShape(5, 9.0, 0.01, 0.5)):
        low, high = shape.slopes
        raw = numbers(shape, size, 11, 20_000)
        x = points_on(raw, shape, 12)
        slope = splined(x, raw, shape)[1].exp()
        assert low * (1 - 1e-9) <= slope.min() and slope.max() <= high * (1 + 1e-9)


def test_the_ends_of_the_range_are_nearly_reached():
    """By one wide bin of the least height between two steep knots, and one the other way."""
    shape = SplineShape(3, 5.0, 0.15, 0.1)
    low, high = shape.slopes
    wide, flat = torch.tensor([-1e3, 1e3, -1e3]), torch.tensor([1e3, -1e3, 1e3])
    x = torch.zeros(1, 1)
    flattest = torch.cat((wide, torch.tensor([0.0, -1e3, 1e3]), torch.full((2,), 1e3)))
    steepest = torch.cat((flat, wide, torch.full((2,), -1e3)))
    slopes = [
        splined(x, raw.view(1, -1, 1), shape)[1].exp().item() for raw in (flattest, steepest)
    ]
    assert low <= slopes[0] < 2.5 * low
    assert 0.95 * high < slopes[1] <= high


def test_zeros_make_the_identity():
    """Up to rounding, in every shape."""
    for shape in (SplineShape(), SplineShape(3, 7.0), SplineShape(20, 0.5, 0.02, 0.5)):
        x = torch.linspace(-2 * shape.bound, 2 * shape.bound, 1001)[None]
        y, log_slope = splined(x, torch.zeros(1, shape.parameters, 1001), shape)
        assert (y - x).abs().max() <= 4 * torch.finfo().eps * shape.bound
        assert log_slope.abs().max() <= 8 * torch.finfo().eps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bins": 1}, "'bins' should be at least 2, got 1"),
        ({"bins": 0}, "'bins'"),
        ({"bound": 0.0}, "'bound'"),
        ({"min_bin": 1.0}, "'min_bin' should be at least 0.01 and below 1, got 1.0"),
        ({"min_bin": 0.0}, "'min_bin'"),
        ({"min_slope": 1.0}, "'min_slope' should be at least 0.001 and below 1, got 1.0"),
        ({"min_slope": 1e-4}, "'min_slope'"),
    ],
)
def test_shapes_that_are_none_are_refused(arguments, message):
    """In one sentence."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        SplineShape(**arguments)
