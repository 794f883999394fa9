"""The gradient of energies: against closed forms and against autograd, in float64."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow.training.energy import reverse_kl_loss

MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
LOG_SCALE = (0.3, -0.2)


def gaussian(x):
    """N(MEAN, 1), without its constant."""
    return -0.5 * (x - MEAN).square().sum(1)


def curved(seed=0):
    """A flow off its start, in float64."""
    torch.manual_seed(seed)
    flow = kf.real_nvp(3, depth=4, hidden=(8,), couplings={"scale_bound": 3.0}).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return flow.eval()


def wavy(x):
    return -0.5 * x.square().sum(1) + x.sin().sum(1)


def gradient(flow, log_density, z, **how):
    """The derivatives of the loss by all parameters, in one row."""
    flow.zero_grad()
    reverse_kl_loss(flow, log_density, z, **how).value.backward()
    return gradients(flow)


def gradients(flow):
    return torch.cat([p.grad.flatten() for p in flow.parameters() if p.grad is not None])


def draws(n, features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("inverse_temperature", [1.0, 0.3])
def test_the_gradient_is_that_of_samples_and_their_density_without_the_score(inverse_temperature):
    """Sample by sample, not only on average: a sign or a factor would show."""
    flow, z = curved(), draws(50, 3)
    path = gradient(flow, wavy, z, inverse_temperature=inverse_temperature)
    flow.zero_grad()
    x = flow.bijection.inverse(z)[0]
    (flow.log_prob(x) - inverse_temperature * wavy(x)).mean().backward()
    total = gradients(flow)
    flow.zero_grad()
    flow.log_prob(x.detach()).mean().backward()
    score = gradients(flow)
    assert torch.allclose(path, total - score, rtol=1e-9, atol=1e-12)
    assert score.norm() > 0.1 * path.norm()


def test_the_gradient_is_unbiased():
    """Of an affine flow, with z = x e^s + t, KL has a closed form; 100 batches of 200 draws.

    A z-test of each coordinate at 4.5: a bias of a twentieth of the gradient would fail.
    """
    flow = kf.Flow(
        kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2, log_scale=LOG_SCALE)
    ).double()
    s = torch.tensor(LOG_SCALE, dtype=torch.float64, requires_grad=True)
    t = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    mean, variance = -t * (-s).exp(), (-2 * s).exp()
    (0.5 * ((mean - MEAN).square() + variance).sum() + s.sum()).backward()
    assert s.grad is not None and t.grad is not None
    expected = torch.cat((s.grad, t.grad))
    each = torch.stack([gradient(flow, gaussian, draws(200, 2, seed)) for seed in range(100)])
    error = each.std(dim=0) / 10
    assert ((each.mean(0) - expected).abs() < 4.5 * error).all()
    assert (error < expected.abs().max() / 50).all()


def test_at_the_target_no_sample_has_a_gradient():
    """Sticking the landing: the noise vanishes where the flow fits."""
    flow, z = curved(), draws(20, 3)
    target = curved()
    assert gradient(flow, target.log_prob, z).abs().max() < 1e-10


def test_the_value_is_the_free_energy_of_the_tempered_target():
    flow, z = curved(), draws(50, 3)
    loss = reverse_kl_loss(flow, wavy, z, inverse_temperature=0.3)
    x = flow.bijection.inverse(z)[0]
    expected = (flow.log_prob(x) - 0.3 * wavy(x)).mean().item()
    assert loss.value.item() == pytest.approx(expected, rel=1e-10)
    assert torch.equal(loss.x, x) and math.isfinite(expected)
