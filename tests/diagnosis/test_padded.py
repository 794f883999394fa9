"""A padded flow has the density of the original flow until it is trained."""

import pytest
import torch

import kappaflow as kf
from kappaflow.diagnosis.fixes import padded
from kappaflow.errors import ArgumentError

MADE = [
    lambda: kf.real_nvp(5, depth=4, hidden=(8, 8), network={"dropout": 0.1}),
    lambda: kf.real_nvp(5, depth=35, hidden=(8,), partition="random-half", couplings={"seed": 3}),
    lambda: kf.real_nvp(
        4, depth=3, hidden=(8, 8), partition="alternating", network={"residual": True}
    ),
    lambda: kf.real_nvp(2, depth=2, hidden=(8,), context_features=3),
    lambda: kf.nice(3, depth=4, hidden=(8,)),
]


def moved(flow, seed=0):
    """Returns a float64 flow with random weights and another standardization."""
    generator = torch.Generator().manual_seed(seed)
    flow = flow.double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator).double()
    features = flow.joint_shape[0]
    next(iter(flow.bijection)).fit(3 + 2 * torch.randn(50, features, generator=generator).double())
    return flow.eval()


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("added", [None, 1, 3])
def test_padding_keeps_the_density(make, added):
    flow = moved(make())
    wide = padded(flow, added)
    features = flow.joint_shape[0]
    assert wide.joint_shape[0] == features + (features if added is None else added)
    x = 3 + torch.randn(6, features).double()
    context = torch.randn(6, 3).double() if flow.context_features else None
    for _ in range(2):  # two draws of the padding
        difference = wide.log_prob(x, context) - flow.log_prob(x, context)
        assert difference.abs().max() < 1e-10


def test_training_uses_the_padding():
    wide = padded(moved(kf.real_nvp(2, depth=4, hidden=(8,))), 2)
    wide.log_prob(torch.randn(20, 2).double()).mean().neg().backward()
    (stack,) = (part for part in wide.bijection if isinstance(part, kf.CouplingStack))
    for coupling in stack:
        gradient = coupling.conditioner.layers[-1].weight.grad
        assert gradient.abs().sum(dim=-1).min() > 0  # each answer, the padding's too


def test_the_original_flow_is_unchanged():
    flow = moved(kf.real_nvp(3, depth=2, hidden=(8,)))
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    with torch.no_grad():
        for parameter in padded(flow).parameters():
            parameter += 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kf.real_nvp(3, depth=2, hidden=(8,), couplings={"mixing": "lu"}), "linear maps"),
        (lambda: kf.real_nvp(3, depth=2, hidden=(8,), padding=1), "no padding"),
        (lambda: kf.real_nvp(3, depth=2, hidden=(8,), partition="random"), "random permutations"),
        (lambda: kf.real_nvp(3, depth=2, hidden=(8,), start="whiten"), "whitening"),
        (lambda: kf.real_nvp(1, depth=2, hidden=(8,)), "two features"),
        (
            lambda: kf.Flow(kf.StandardNormal(2), kf.Chain([kf.bijections.ActNorm(2)])),
            "assembled from layers",
        ),
        (lambda: kf.spline(2), "made by spline"),
    ],
)
def test_what_cannot_be_padded_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        padded(make())
