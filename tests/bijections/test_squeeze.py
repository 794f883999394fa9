"""Squeezing images."""

import pytest
import torch

import kappaflow as kf


def test_the_order_of_channels_is_the_documented_one():
    """Channel c f^2 + i f + j is channel c of row i and column j of each square."""
    x = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    z = kf.bijections.Squeeze()(x)[0]
    assert z.shape == (1, 8, 2, 3)
    for c in range(2):
        for i in range(2):
            for j in range(2):
                assert torch.equal(z[:, 4 * c + 2 * i + j], x[:, c, i::2, j::2])


def test_no_images_have_the_shape_of_squeezed_ones():
    """An empty batch goes through both ways, products with vectors too, and through a flow."""
    x = torch.zeros(0, 3, 4, 6)
    z, log_det = kf.bijections.Squeeze()(x)
    assert z.shape == (0, 12, 2, 3) and log_det.shape == (0,)
    assert kf.bijections.Squeeze().inverse(z)[0].shape == x.shape
    assert kf.bijections.Squeeze().linearize(x).jv(torch.zeros(2, *x.shape)).shape == (
        2,
        0,
        12,
        2,
        3,
    )
    flow = kf.glow(
        (1, 8, 8), levels=2, steps=1, hidden=2, pixels={"dequantize": "variational"}
    ).eval()
    assert flow.log_prob(torch.zeros(0, 1, 8, 8)).shape == (0,)
    assert flow.bijection.inverse(torch.zeros(0, 64))[0].shape == (0, 1, 8, 8)


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 4, 5), (3, 4)])
def test_what_cannot_be_squeezed_is_said(shape):
    """Odd sides, and what is no image."""
    with pytest.raises(kf.errors.ArgumentError, match="height and width divide by 2"):
        kf.bijections.Squeeze()(torch.zeros(1, *shape))


def test_channels_that_make_no_squares_are_refused():
    """On the way back."""
    with pytest.raises(kf.errors.ArgumentError, match="channels divide by 4"):
        kf.bijections.Squeeze().inverse(torch.zeros(1, 6, 2, 2))
