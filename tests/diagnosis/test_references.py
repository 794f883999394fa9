"""A flow compared with a Gaussian and a Gaussian mixture, row by row."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import kappaflow as kf
from diagnosis.faulty import alone, doctor, findings, points
from kappaflow.diagnosis import compare, references
from kappaflow.diagnosis.references import Reference
from kappaflow.errors import ArgumentError


def two_clusters(n, seed=0):
    """Rows around (1, 1) and (-1, -1), alternating."""
    x = 0.1 * np.random.default_rng(seed).normal(size=(n, 2)) + 1
    x[::2] -= 2
    return x


def plain_flow():
    """A standard normal as a flow."""
    return alone(kf.bijections.ElementwiseAffine(2), features=2)


def severities(diagnosis):
    """Code and severity of the findings on the likelihood."""
    return [
        (finding.code, finding.severity)
        for finding in diagnosis.findings
        if finding.code in {"KF501", "KF504", "KF505"}
    ]


def test_the_gaussian_has_the_mean_and_covariance_of_the_training_rows():
    """Against scipy, in the units of the data."""
    x = np.random.default_rng(0).normal(size=(300, 3)) @ np.diag([1.0, 10.0, 1e3])
    x[:, 2] += 50 * x[:, 1]
    gaussian, mixture = references(x[:200], x[200:])
    expected = multivariate_normal(x[:200].mean(0), np.cov(x[:200].T, ddof=0)).logpdf(x[200:])
    assert np.allclose(gaussian.nll, -expected, atol=1e-8)
    assert mixture.components == 1 and np.array_equal(mixture.nll, gaussian.nll)


def test_the_mixture_finds_the_clusters_and_is_a_density():
    """Two components by the BIC; its density integrates to one."""
    grid = np.stack(np.meshgrid(*2 * [np.linspace(-2, 2, 200)]), -1).reshape(-1, 2)
    _, mixture = references(two_clusters(600), grid)
    assert mixture.components == 2
    assert np.exp(-mixture.nll).sum() * (4 / 199) ** 2 == pytest.approx(1, abs=1e-2)


def test_with_a_context_both_describe_the_residuals_of_a_regression():
    """Against the Gaussian of the noise; a one-hot context, whose columns sum to one, too."""
    random = np.random.default_rng(0)
    context = np.eye(3)[random.integers(0, 3, 900)]
    x = context @ np.array([[5.0, 0.0], [0.0, 5.0], [-5.0, 1.0]]) + random.normal(size=(900, 2))
    gaussian, _ = references(x[:800], x[800:], context[:800], context[800:])
    noise = x[800:] - context[800:] @ np.array([[5.0, 0.0], [0.0, 5.0], [-5.0, 1.0]])
    expected = -multivariate_normal(np.zeros(2)).logpdf(noise)
    assert gaussian.nll.mean() == pytest.approx(expected.mean(), abs=0.05)
    assert compare(gaussian.nll, [gaussian], conditional=True)[0].name == (
        "a linear-Gaussian regression"
    )


def test_columns_without_a_density_have_no_reference():
    """A constant one, and one that depends on others."""
    x = np.random.default_rng(0).normal(size=(100, 2))
    assert references(np.hstack([x, np.ones((100, 1))]), np.zeros((3, 3))) == ()
    assert references(np.hstack([x, x[:, :1] + x[:, 1:]]), np.zeros((3, 3))) == ()


def test_the_error_is_that_of_the_paired_differences():
    """It is far smaller than that of either mean if both vary together."""
    nll = np.random.default_rng(0).normal(size=400) * 10
    (comparison,) = compare(nll, [Reference("Gaussian", 1, nll - 0.5)])
    assert comparison.difference == pytest.approx(0.5) and comparison.standard_error < 1e-9


def test_the_doctor_compares_held_out_rows_given_the_training_rows():
    """Worse than a Gaussian; better than one and worse than a mixture; too few to tell."""
    x = torch.from_numpy(two_clusters(700)).float()
    train, held_out = x[:600], x[600:]
    diagnosis = kf.doctor(plain_flow(), 5 * held_out, train=5 * train)
    assert severities(diagnosis) == [("KF501", "warning"), ("KF504", "warning")]
    messages = " ".join(finding.message for finding in diagnosis.findings)
    assert "a Gaussian mixture (2 components)" in messages
    assert "100 held-out rows" in diagnosis.verdict
    normal = points(n=2200, features=2)
    of_normal = doctor(plain_flow(), normal[:200], train=normal[200:])
    assert severities(of_normal) == [("KF501", "note")]


def test_without_training_rows_only_worse_is_concluded():
    """Half of the rows fit the references; a few rows are not enough."""
    x = 3 * torch.from_numpy(two_clusters(400)).float()
    diagnosis = doctor(plain_flow(), x)
    assert severities(diagnosis) == [("KF501", "warning"), ("KF504", "warning")]
    assert any("fitted to the other half" in one.message for one in diagnosis.findings)
    assert severities(doctor(plain_flow(), x[:64])) == []
    healthy = doctor(plain_flow(), points(n=400, features=2))
    assert severities(healthy) == []


def test_a_conditional_flow_is_compared_with_a_regression():
    """With the contexts of the training rows."""
    context = points(n=500, features=1)
    x = 4 * context + points(1, 500, 2)
    flow = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1)
    by_code = findings(flow, x[400:], context[400:], train=(x[:400], context[:400]))
    assert "a linear-Gaussian regression" in by_code["KF501"].message


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (torch.zeros(5, 3), "should hold rows of a table like 'x', .N, 2., got .5, 3."),
        ((torch.zeros(5, 2), torch.zeros(5, 1)), "should be rows alone for a flow without"),
        (torch.full((5, 2), math.nan), "should hold finite numbers only"),
        ((torch.zeros(5, 2),) * 3, "should be rows or .rows, context., got 3 values"),
    ],
)
def test_training_rows_that_do_not_fit_are_refused(train, words):
    """The message is one sentence."""
    with pytest.raises(ArgumentError, match=f"^'train' {words}"):
        kf.doctor(plain_flow(), torch.randn(64, 2), train=train)


def test_training_rows_need_rows_to_compare_on():
    """Samples of the flow do not show its likelihood."""
    with pytest.raises(ArgumentError, match="'train' needs 'x'"):
        kf.doctor(plain_flow(), train=torch.randn(64, 2))


def test_a_context_of_mixed_units_is_the_same_reference():
    """Columns of 1e6 and 1e-2, of which the small one alone matters."""
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(400, 2, generator=generator).double()
    x = 3 * context[:, 1:] + 0.01 * torch.randn(400, 1, generator=generator).double()
    units = torch.tensor([1e6, 1e-2]).double()
    plain, scaled = (
        references(x[:200].numpy(), x[200:].numpy(), c[:200].numpy(), c[200:].numpy())[0]
        for c in (context, context * units)
    )
    np.testing.assert_allclose(scaled.nll, plain.nll, atol=1e-6)
