"""Flows as distributions and transforms of torch, and in Pyro."""

import copy

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution

import kappaflow as kf
from kappaflow.errors import ArgumentError


def moved(flow, seed=0):
    """Returns a flow of float64 that is not the identity."""
    generator = torch.Generator().manual_seed(seed)
    flow = flow.double().eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return flow


@pytest.fixture
def plain():
    return moved(kf.real_nvp(3, depth=4, hidden=(8,)))


@pytest.fixture
def conditional():
    return moved(kf.real_nvp(3, depth=4, hidden=(8,), context_features=2))


def standard_normal(n):
    """Returns N(0, 1) in n features."""
    return Independent(Normal(torch.zeros(n).double(), 1.0), 1)


def test_the_log_det_is_that_of_the_jacobian(plain):
    transform = plain.as_transform()
    z = torch.randn(5, 3).double()
    x = transform(z)
    for i in range(5):
        matrix = torch.autograd.functional.jacobian(lambda latent: transform(latent), z[i])
        actual = transform.log_abs_det_jacobian(z[i], x[i])
        torch.testing.assert_close(actual, torch.linalg.slogdet(matrix)[1])
    torch.testing.assert_close(transform.inv(x), z)
    inverse = transform.inv.log_abs_det_jacobian(x, z)
    torch.testing.assert_close(inverse, -transform.log_abs_det_jacobian(z, x))


def test_domains_and_shapes_are_said(plain):
    transform = plain.as_transform()
    assert transform.domain.event_dim == transform.codomain.event_dim == 1
    assert transform.bijective
    assert transform.forward_shape((4, 5, 3)) == transform.inverse_shape((4, 5, 3)) == (4, 5, 3)
    with pytest.raises(ArgumentError, match="'shape' should end with"):
        transform.forward_shape((4, 2))
    image = moved(kf.glow((1, 4, 4), levels=2, steps=1, hidden=4, pixels={"dequantize": None}))
    transform = image.as_transform()
    latent = image.base.event_shape
    assert transform.forward_shape((7, *latent)) == (7, 1, 4, 4)
    assert transform(torch.randn(7, *latent).double()).shape == (7, 1, 4, 4)


def test_a_cache_gives_back_the_latent_and_no_log_det_of_other_weights(plain):
    z = torch.randn(2, 3).double()
    cached = plain.as_transform(cache_size=1)
    x = cached(z)
    assert cached.inv(x) is z
    assert plain.as_transform().inv(plain.as_transform()(z)) is not z
    before = cached.log_abs_det_jacobian(z, x)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter += 0.1
    assert not torch.equal(cached.log_abs_det_jacobian(z, x), before)
    assert cached.with_cache(0)._cache_size == 0


def test_contexts_are_a_batch(conditional):
    context = torch.randn(4, 2).double()
    density = conditional.as_distribution(context)
    assert (density.batch_shape, density.event_shape) == ((4,), (3,))
    drawn = density.rsample((7,))
    assert drawn.shape == (7, 4, 3)
    expected = torch.stack([
        conditional.log_prob(drawn[:, i], context[i].expand(7, 2)) for i in range(4)
    ])
    torch.testing.assert_close(density.log_prob(drawn), expected.T)
    transform = conditional.as_transform(context)
    distribution = TransformedDistribution(standard_normal(3), [transform])
    torch.testing.assert_close(distribution.log_prob(drawn), expected.T)
    expanded = conditional.as_distribution(context[:1]).expand((4,))
    assert expanded.sample().shape == (4, 3)
    assert density.expand((5, 4)).sample((2,)).shape == (2, 5, 4, 3)
    assert density.expand((5, 4)).log_prob(drawn[0]).shape == (5, 4)
    torch.testing.assert_close(
        expanded.log_prob(drawn), conditional.log_prob(drawn, context[:1].expand(7, 4, 2))
    )


def test_draws_follow_the_generator_of_torch_and_carry_gradients(plain):
    density = plain.as_distribution()
    assert density.expand((2,)).log_prob(density.sample()).shape == (2,)
    torch.manual_seed(1)
    first = density.sample((5,))
    torch.manual_seed(1)
    assert torch.equal(density.sample((5,)), first)
    assert not first.requires_grad
    assert density.has_rsample
    density.rsample((5,)).sum().backward()
    assert all(parameter.grad is not None for parameter in plain.parameters())
    assert density.sample().shape == (3,)
    assert bool(density.support.check(first).all())


def test_draws_belong_to_their_contexts(conditional):
    """A batch of contexts is not mixed up with the draws: they are those of `sample`."""
    context = torch.randn(3, 2).double()
    torch.manual_seed(1)
    drawn = conditional.as_distribution(context).sample((4,))
    torch.manual_seed(1)
    rows = conditional.sample(1, context.expand(4, 3, 2).reshape(12, 2))[0]
    torch.testing.assert_close(drawn, rows.reshape(4, 3, 3))


def test_a_transform_is_a_module_that_can_be_copied(plain):
    transform = plain.as_transform()
    assert {id(p) for p in transform.parameters()} == {id(p) for p in plain.parameters()}
    other = copy.deepcopy(transform)
    z = torch.randn(2, 3).double()
    assert torch.equal(other(z), transform(z))
    assert hash(transform) != hash(other)
    assert transform != other


@pytest.mark.parametrize(
    ("make", "call", "message"),
    [
        (lambda: kf.real_nvp(2, depth=2, padding=1), "as_distribution", "a bound"),
        (lambda: kf.real_nvp(2, depth=2, padding=1), "as_transform", "no padding"),
        (lambda: kf.real_nvp(2, depth=2, padding=kf.flows.ZeroPad(1)), "as_distribution", "joint"),
        (lambda: kf.real_nvp(2, depth=2, context_features=1), "as_distribution", "'context'"),
        (lambda: kf.real_nvp(2, depth=2, context_features=1), "as_transform", "'context'"),
    ],
)
def test_what_is_no_density_says_so(make, call, message):
    with pytest.raises(ArgumentError, match=message):
        getattr(make(), call)()


def test_values_of_another_shape_are_refused_in_a_sentence(plain):
    with pytest.raises(ArgumentError, match=r"'x' should have shape \(..., 3\), got \(4, 2\)"):
        plain.as_distribution().log_prob(torch.randn(4, 2).double())


def test_pyro_takes_the_transform_as_its_own():
    pyro = pytest.importorskip("pyro")
    flow = moved(kf.real_nvp(2, depth=2, hidden=(8,), context_features=1))
    base = pyro.distributions.Normal(torch.zeros(2).double(), 1.0).to_event(1)

    def model(context):
        pyro.module("flow", flow)
        with pyro.plate("rows", len(context)):
            transformed = pyro.distributions.TransformedDistribution(
                base, [flow.as_transform(context)]
            )
            return pyro.sample("x", transformed)

    pyro.clear_param_store()
    context = torch.randn(6, 1).double()
    trace = pyro.poutine.trace(model).get_trace(context)
    x = trace.nodes["x"]["value"]
    assert x.shape == (6, 2)
    torch.testing.assert_close(
        trace.log_prob_sum().detach(), flow.log_prob(x, context).sum().detach()
    )
