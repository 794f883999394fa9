"""Wrapped density estimators of sbi, compared with their log_prob and dense Jacobians."""

import pytest
import torch

import kappaflow as kf
from interop import foreign
from kappaflow.diagnosis.doctor import diagnose_rows
from kappaflow.errors import ArgumentError

sbi = pytest.importorskip("sbi")
pytestmark = pytest.mark.filterwarnings("ignore")  # of sbi and its dependencies

D, C, ROWS = foreign.FEATURES, foreign.CONTEXT, 200
SCALES = torch.logspace(-3, 3, D) * 1.5  # parameters on very different scales
BUILT = ("made", "maf", "maf_rqs", "nsf", "zuko_nice", "zuko_maf", "zuko_nsf")


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path, monkeypatch):
    """Training writes logs into the working directory."""
    monkeypatch.chdir(tmp_path)


def simulated(seed=0, rows=ROWS, scales=SCALES):
    """Parameters (rows, D) from a normal prior, and observations linear in them with noise."""
    generator = torch.Generator().manual_seed(seed)
    weights, theta, noise = (
        torch.randn(size, generator=generator) for size in ((D, C), (rows, D), (rows, C))
    )
    return theta * scales + scales, theta @ weights + 0.3 * noise


def built(name, seed=0, theta=None, x=None, **settings):
    """An untrained estimator, as sbi builds it."""
    from sbi.neural_nets import posterior_nn

    torch.manual_seed(seed)
    rows = simulated(seed)
    arguments = (rows[0] if theta is None else theta, rows[1] if x is None else x)
    return posterior_nn(name, hidden_features=16, num_transforms=3, **settings)(*arguments)


def trained(name, seed=0):
    """An inference and an estimator trained on a linear Gaussian simulator."""
    from sbi.inference import NPE

    torch.manual_seed(seed)
    prior = torch.distributions.MultivariateNormal(SCALES, torch.diag(SCALES**2))
    inference = NPE(prior=prior, density_estimator=name, show_progress_bars=False)
    inference.append_simulations(*simulated(seed, 600))
    return inference, inference.train(max_num_epochs=8)


def severe(estimator, seed=0):
    """The findings above a note, on new rows."""
    theta, x = simulated(seed, 600)
    dtype = next(estimator.parameters()).dtype
    rows = theta[-64:].to(dtype), x[-64:].to(dtype)
    findings = diagnose_rows(estimator, *rows, compares_samples=False).findings
    return [
        (finding.code, finding.layer, finding.message)
        for finding in findings
        if finding.severity != "note"
    ]


def check(estimator, theta, x):
    """Compares a wrapped estimator with its log_prob, its inverse, and a dense Jacobian."""
    rows = x.flatten(1)
    wrapped = kf.wrap(estimator, theta, rows)
    narrow = theta.dtype == torch.float32
    tolerance = 1e-5 if narrow else 1e-10
    own = estimator.log_prob(theta[None], x)[0]
    assert torch.allclose(wrapped.log_prob(theta, rows), own, rtol=tolerance, atol=tolerance)
    assert torch.equal(wrapped.own_log_prob(theta, rows), own)
    with torch.no_grad():
        z, log_det = wrapped.bijection(theta, rows)
        back = wrapped.bijection.inverse(z, rows)[0]
    assert ((back - theta) / theta.std(0)).abs().max() < (1e-3 if narrow else 1e-6)
    dense = torch.autograd.functional.jacobian(
        lambda at: wrapped.bijection(at, rows)[0].sum(0), theta
    )
    size = theta[0].numel()
    matrices = dense.reshape(size, len(theta), size).transpose(0, 1).double()
    dense_log_det = torch.linalg.slogdet(matrices)[1].to(log_det.dtype)
    assert torch.allclose(dense_log_det, log_det, rtol=10 * tolerance, atol=10 * tolerance)
    return wrapped


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BUILT)
def test_an_estimator_is_the_same_function(name, dtype):
    """With a condition for each row; layers have the names of the library inside."""
    theta, x = (rows[:6].to(dtype) for rows in simulated())
    wrapped = check(foreign.perturbed(built(name)).to(dtype), theta, x)
    assert wrapped.library == "sbi" and wrapped.event_shape == (D,)
    assert wrapped.context_features == C and wrapped.dtype == dtype
    other = wrapped.log_prob(theta, 2 * x) - wrapped.log_prob(theta, x)
    assert other.abs().max() > 1e-3
    assert len(wrapped.standardization) == 1 and len(wrapped.core) == (
        1 if name == "made" else 3 if name.startswith("zuko") else 6
    )


@pytest.mark.parametrize("name", ["maf", "zuko_nsf"])
def test_a_condition_of_any_shape_is_a_row(name):
    """The embedding net gets it in its shape, standardized as in sbi."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 5), torch.nn.ReLU())
    x = torch.randn(ROWS, 2, 4)
    estimator = foreign.perturbed(built(name, x=x, embedding_net=net, z_score_x="structured"))
    theta, x = simulated()[0][:6].double(), x[:6].double()
    check(estimator, theta, x)
    with pytest.raises(
        ArgumentError, match=r"\(B, 8\), got .*: pass conditions of shape \(2, 4\) as .flat"
    ):
        kf.wrap(estimator, theta, x)


def test_matrix_parameters_are_flattened_first():
    """As sbi does before nflows."""
    theta = torch.randn(ROWS, 2, 3)
    estimator = foreign.perturbed(built("maf", theta=theta, z_score_theta="structured"))
    wrapped = check(estimator, theta[:6].double(), simulated()[1][:6].double())
    samples = wrapped.sample(5, torch.zeros(1, C).double())
    assert wrapped.event_shape == (2, 3) and samples.shape == (5, 1, 2, 3)


def test_a_map_from_bounded_parameters_is_a_layer():
    """It is not a standardization; where the prior has no bounds it is one."""
    from sbi.utils import BoxUniform

    prior = BoxUniform(-2 * torch.ones(D), 3 * torch.ones(D))
    free = torch.distributions.MultivariateNormal(SCALES, torch.diag(SCALES**2))
    for distribution, standardizations in ((prior, 0), (free, 1)):
        theta, x = distribution.sample((ROWS,)), simulated()[1]
        estimator = built(
            "zuko_nsf",
            theta=theta,
            x=x,
            z_score_theta="transform_to_unconstrained",
            x_dist=distribution,
        )
        wrapped = check(foreign.perturbed(estimator), theta[:6].double(), x[:6].double())
        assert len(wrapped.standardization) == standardizations


def test_an_estimator_without_conditions_takes_none():
    """The flow of a marginal."""
    from sbi.neural_nets.factory import ZukoFlowType, marginal_nn

    theta = torch.randn(ROWS, D)
    flow = marginal_nn(ZukoFlowType.NSF, hidden_features=16, num_transforms=2)(theta)
    wrapped = kf.wrap(flow, theta)
    assert torch.allclose(wrapped.log_prob(theta), flow.log_prob(theta[None])[0], atol=1e-5)
    assert kf.doctor(flow, theta[:64]).ok
    with pytest.raises(ArgumentError, match="left out: ZukoUnconditionalFlow takes no conditions"):
        kf.wrap(flow, theta, theta)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BUILT)
def test_there_is_one_sample_per_condition_with_its_density(name, dtype):
    """In the dtype of the estimator, though nflows samples in torch's default dtype."""
    x = simulated()[1][:32].to(dtype)
    wrapped = kf.wrap(foreign.perturbed(built(name)).to(dtype), context=x)
    samples, log_prob = wrapped.own_sample(32, x, generator=torch.Generator().manual_seed(0))
    assert samples.shape == (32, D) and samples.dtype == dtype
    assert torch.get_default_dtype() == torch.float32
    off = (log_prob - wrapped.log_prob(samples, x)).abs().max()
    assert off < (1e-3 if dtype == torch.float32 else 1e-6)
    assert wrapped.sample(2, x).shape == (2, 32, D)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", BUILT)
def test_a_healthy_estimator_has_no_finding_above_a_note(name, seed):
    """As built or with perturbed weights, though its parameters have very different scales."""
    estimator = built(name, seed)
    if seed != 1:
        estimator = foreign.perturbed(estimator, seed, scale=0.05 if seed % 2 else 0.1).float()
    assert severe(estimator, seed) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maf", "zuko_nsf"])
def test_a_trained_estimator_has_no_finding_above_a_note(name):
    """After a few epochs on a linear Gaussian simulator."""
    assert severe(trained(name, 1)[1], 1) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maf", "zuko_nsf"])
def test_a_wrong_constant_in_log_prob_is_found(name, monkeypatch):
    """KF205, where layers and base are right."""
    estimator = built(name)
    own = type(estimator).log_prob
    monkeypatch.setattr(
        type(estimator), "log_prob", lambda self, theta, x: own(self, theta, x) + 0.1
    )
    assert "KF205" in [code for code, *_ in severe(estimator)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maf", "zuko_nsf"])
def test_a_standardization_without_its_log_det_is_found(name, monkeypatch):
    """KF203, though the standardization does not count for the conditioning."""
    from nflows.transforms.standard import PointwiseAffineTransform
    from torch.distributions import AffineTransform

    estimator = built(name)
    kind, method = (
        (PointwiseAffineTransform, "_batch_logabsdet")
        if name == "maf"
        else (AffineTransform, "log_abs_det_jacobian")
    )
    own = getattr(kind, method)
    monkeypatch.setattr(kind, method, lambda *arguments: 0 * own(*arguments))
    assert "KF203" in [code for code, *_ in severe(estimator)]


def test_a_learned_scale_is_not_a_standardization():
    """If it is nearly singular, the doctor reports it."""
    import zuko
    from sbi.neural_nets.estimators import ZukoFlow

    theta, x = simulated()
    maf = zuko.flows.MAF(D, C, transforms=1)
    first = zuko.flows.UnconditionalTransform(
        torch.distributions.AffineTransform, torch.zeros(D), 1 / SCALES
    )
    net = zuko.flows.Flow([first, *maf.transform.transforms], maf.base)
    estimator = ZukoFlow(net, torch.nn.Identity(), theta[0].shape, x[0].shape)
    assert len(kf.wrap(estimator, context=x).standardization) == 0
    assert ("KF301", "1 UnconditionalTransform") in [finding[:2] for finding in severe(estimator)]


@pytest.mark.slow
def test_a_posterior_is_diagnosed_by_its_estimator():
    """Before samples outside the prior are rejected; on a copy, so nothing changes."""
    inference, estimator = trained("maf")
    posterior = inference.build_posterior()
    theta, x = (rows[:32] for rows in simulated())
    wrapped = kf.wrap(posterior, theta, x)
    assert wrapped.original[0] is posterior.posterior_estimator
    own = posterior.log_prob(theta[:1], x[:1], norm_posterior=False)
    assert torch.allclose(wrapped.log_prob(theta, x)[:1], own, atol=1e-5)
    before = {key: value.clone() for key, value in estimator.state_dict().items()}
    diagnosis = kf.doctor(posterior, theta, x)
    assert diagnosis.ok and diagnosis.findings == kf.doctor(estimator, theta, x).findings
    assert all(torch.equal(value, before[key]) for key, value in estimator.state_dict().items())


@pytest.mark.parametrize("builder", ["posterior_flow_nn", "posterior_score_nn", "classifier_nn"])
def test_an_estimator_that_is_not_a_flow_is_refused(builder):
    """Its class is named."""
    import sbi.neural_nets

    theta, x = simulated()
    estimator = getattr(sbi.neural_nets, builder)("mlp")(theta, x)
    with pytest.raises(ArgumentError, match="'flow' should be a flow of sbi .* got .*Estimator"):
        kf.wrap(estimator, theta, x)


@pytest.mark.parametrize("name", ["maf", "zuko_nsf"])
def test_a_missing_condition_is_reported_in_a_sentence(name):
    """As is one that is too narrow."""
    estimator, theta = built(name), simulated()[0]
    for look in (kf.wrap, kf.doctor):
        with pytest.raises(ArgumentError, match=r"should be given, \(B, 3\): .* of shape \(3,\)"):
            look(estimator, theta)
        with pytest.raises(ArgumentError, match=r"should have shape \(B, 3\).* got \(200, 4\)"):
            look(estimator, theta, theta)
