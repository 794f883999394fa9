"""Flows as density estimators of sbi, with the posterior of its first tutorial."""

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError

pytest.importorskip("sbi")
from sbi.inference import NLE, NPE
from sbi.utils import BoxUniform

from kappaflow.interop.sbi import density_estimator

SMALL = {"depth": 2, "hidden": (16,)}


def simulated(n, seed=0):
    """Returns parameters and simulations of the linear Gaussian in sbi's first tutorial."""
    torch.manual_seed(seed)
    theta = BoxUniform(-2 * torch.ones(3), 2 * torch.ones(3)).sample((n,))
    return theta, theta + 1.0 + 0.1 * torch.randn(n, 3)


def perturbed(estimator):
    """Returns an estimator whose flow is not the identity, in float64."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return estimator.double().eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_posterior_of_the_first_tutorial(tmp_path, monkeypatch):
    """For x = theta + 1 + noise of 0.1 it is N(x - 1, 0.1), truncated to the prior."""
    monkeypatch.chdir(tmp_path)  # sbi writes logs into the working directory
    theta, x = simulated(2000)
    prior = BoxUniform(-2 * torch.ones(3), 2 * torch.ones(3))
    trainer = NPE(prior=prior, density_estimator=density_estimator(**SMALL))
    trainer.append_simulations(theta, x)
    estimator = trainer.train(100, learning_rate=5e-3, max_num_epochs=60)
    posterior = trainer.build_posterior(estimator)
    observed = torch.tensor([1.0, 0.5, 0.0])
    torch.manual_seed(0)
    samples = posterior.sample((2000,), x=observed, show_progress_bars=False)
    assert (samples.mean(0) - (observed - 1)).abs().max() < 0.05
    assert (samples.std(0) - 0.1).abs().max() < 0.04
    nll = -posterior.log_prob(samples, x=observed).mean().item()
    assert nll == pytest.approx(3 * (0.5 + 0.9189385 + torch.tensor(0.1).log().item()), abs=0.4)
    held_out = simulated(64, seed=1)
    for flow in (estimator, posterior):
        diagnosis = kf.doctor(flow, *held_out)
        assert not [finding for finding in diagnosis.findings if finding.severity != "note"], (
            diagnosis.verdict
        )
    kf.save(estimator.flow, tmp_path / "flow")
    stored = kf.load(tmp_path / "flow")
    assert torch.equal(stored.log_prob(*held_out), estimator.flow.log_prob(*held_out))


@pytest.mark.filterwarnings("ignore")
def test_likelihood_estimators_are_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theta, x = simulated(500)
    trainer = NLE(density_estimator=density_estimator("nice", **SMALL))
    trainer.append_simulations(theta, x)
    estimator = trainer.train(max_num_epochs=2, show_train_summary=False)
    assert estimator.log_prob(x[None], theta).shape == (1, 500)


def test_shapes_are_those_of_sbi():
    theta, x = torch.randn(20, 2).double(), torch.randn(20, 3, 4).double()
    estimator = perturbed(density_estimator(**SMALL)(theta.float(), x.float()))
    assert estimator.input_shape == (2,)
    assert estimator.condition_shape == (3, 4)
    many = torch.randn(5, 20, 2).double()
    log_probs = estimator.log_prob(many, x)
    expected = torch.stack([estimator.flow.log_prob(rows, x.flatten(1)) for rows in many])
    torch.testing.assert_close(log_probs, expected)
    torch.testing.assert_close(estimator.loss(theta, x), -estimator.log_prob(theta[None], x)[0])
    samples, log_prob = estimator.sample_and_log_prob(torch.Size((7, 2)), x)
    assert samples.shape == (7, 2, 20, 2)
    torch.testing.assert_close(log_prob[3, 1], estimator.log_prob(samples[3, 1][None], x)[0])
    assert estimator.sample((3,), x[:1]).shape == (3, 1, 2)
    with pytest.raises(ValueError, match="condition"):
        estimator.loss(theta, x[:, :2])


def test_samples_belong_to_their_condition():
    """Several samples for several conditions are not mixed up."""
    theta = torch.randn(400, 1).expand(-1, 2) + 0.01 * torch.randn(400, 2)
    estimator = perturbed(density_estimator(**SMALL)(theta, torch.randn(400, 1)))
    conditions = torch.tensor([[4.0], [-4.0]]).double()
    samples = estimator.sample((3000,), conditions)
    errors = samples.std(0) * (2 / 3000) ** 0.5  # of a difference of two means
    means = samples.mean(0)
    for i in range(2):
        alone = estimator.sample((3000,), conditions[i : i + 1])[:, 0].mean(0)
        assert ((means[i] - alone).abs() < 5 * errors[i]).all()
    assert ((means[0] - means[1]).abs() > 10 * errors[0]).any()


def test_an_embedding_net_gets_conditions_in_their_shape():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv1d(3, 2, 2)

        def forward(self, x):
            assert x.shape[1:] == (3, 4)
            return self.layer(x).flatten(1)

    theta, x = torch.randn(20, 2), 5 + 3 * torch.randn(20, 3, 4)
    estimator = density_estimator(embedding_net=Net(), **SMALL)(theta, x)
    assert estimator.flow.context_features == 12
    loss = estimator.loss(theta, x).mean()
    perturbed(estimator).loss(theta.double(), x.double()).mean().backward()
    gradients = [p.grad for name, p in estimator.named_parameters() if "layer" in name]
    assert gradients
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    assert torch.isfinite(loss)
    assert kf.wrap(estimator) is estimator.flow


def test_parameters_with_a_domain_are_sampled_inside():
    """Bounds are arguments of the recipe; parameters outside have no density."""
    theta, x = torch.stack([torch.randn(99), torch.randn(99).exp()], 1), torch.randn(99, 3)
    theta[:, 0] = theta[:, 0].clamp(-3, 3)
    build = density_estimator("spline", depth=2, hidden=(8,), bounds=["circular", "positive"])
    estimator = build(theta, x)
    assert estimator.log_prob(theta[None], x).isfinite().all()
    samples = estimator.sample((400,), x[:2])
    assert (samples[..., 1] > 0).all() and (samples[..., 0].abs() <= torch.pi).all()
    assert torch.isneginf(estimator.log_prob(-theta[None], x)).all()


def test_invalid_arguments_are_refused():
    with pytest.raises(ArgumentError, match="'theta' should have shape"):
        density_estimator()(torch.randn(5, 2, 2), torch.randn(5, 3))
    with pytest.raises(ArgumentError, match="'model' should be"):
        density_estimator("planar")
