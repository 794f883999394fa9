"""Invertible 1x1 convolutions."""

import pytest
import torch
from torch.nn.functional import conv2d

import kappaflow as kf
from kappaflow.bijections.conv1x1 import FORMS
from kappaflow.testing.contract import jittered


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("form", FORMS)
def test_it_starts_at_a_rotation(form, channels):
    """Orthogonal to rounding, and not the identity."""
    torch.manual_seed(0)
    layer = kf.bijections.InvertibleConv1x1(channels, form=form)
    matrix = layer.matrix().double()
    assert torch.allclose(matrix @ matrix.T, torch.eye(channels).double(), atol=1e-5)
    assert abs(layer.condition_number - 1) < 1e-4
    if form != "lu":
        assert torch.linalg.det(matrix).item() == pytest.approx(1, abs=1e-5)
    if channels > 1:
        assert (matrix - torch.eye(channels)).abs().max() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_it_is_a_convolution(form):
    """Of kernel 1 with the matrix as weight."""
    layer = jittered(kf.bijections.InvertibleConv1x1(5, form=form)).double()
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = conv2d(x, layer.matrix()[:, :, None, None])
    assert torch.allclose(layer(x)[0], expected, atol=1e-12)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(layer(channels_last)[0], expected, atol=1e-12)


@pytest.mark.parametrize("bound", [1.0, 4.0])
def test_a_bound_on_the_condition_number_holds_anywhere(bound):
    """However far the parameters go."""
    layer = kf.bijections.InvertibleConv1x1(6, form="svd", condition_bound=bound).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 10 * torch.randn_like(parameter)
    assert layer.condition_number <= bound * (1 + 1e-9)
    assert layer.condition_number >= 0.9 * bound


def test_a_rotation_stays_one():
    """Its scales are no parameters."""
    layer = kf.bijections.InvertibleConv1x1(4, form="orthogonal")
    names = [name for name, p in layer.named_parameters() if p.requires_grad]
    assert names == ["linear.left", "linear.right"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "cholesky"}, "'form' should be one of"),
        ({"form": "lu", "condition_bound": 2.0}, "'condition_bound' should be left out"),
        ({"form": "svd", "condition_bound": 0.5}, "'condition_bound' should be at least 1"),
        ({"form": "svd", "condition_bound": float("nan")}, "'condition_bound' should be a finite"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    """In one sentence."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.bijections.InvertibleConv1x1(4, **arguments)
