"""Flows: densities against closed forms, shapes, broadcasting and errors."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

import kappaflow as kf
from cases import FLOWS
from kappaflow import registry
from kappaflow.conditioning import layers_of
from kappaflow.testing.contract import jittered


def conditional_flow():
    """Returns a flow of 3 features and 2 columns of context, off its start."""
    return jittered(kf.real_nvp(3, depth=3, hidden=(8,), context_features=2))


def test_log_prob_is_that_of_a_correlated_normal():
    """A shear by a linear conditioner, against the multivariate normal."""
    coupling = kf.bijections.AdditiveCoupling(kf.Partition.half(2), kf.nets.MLP(1, 1, ()))
    with torch.no_grad():
        coupling.conditioner.layers[0].weight.fill_(0.7)
    flow = kf.Flow(kf.StandardNormal(2), coupling).double()
    inverse = torch.tensor([[1.0, 0.0], [-0.7, 1.0]]).double()
    normal = MultivariateNormal(torch.zeros(2).double(), inverse @ inverse.T)
    x = torch.randn(20, 2, dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("features", [1, 2])
def test_the_density_integrates_to_one(features):
    """By the trapezoid rule on a grid that holds all but 1e-7 of the mass."""
    flow = jittered(kf.real_nvp(features, depth=4, hidden=(8,)), seed=3).double()
    axis = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * features).reshape(-1, features)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** features
    assert mass.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("x_shape", "context_shape", "expected"),
    [
        ((3,), (2,), ()),
        ((5, 3), (5, 2), (5,)),
        ((5, 3), (2,), (5,)),
        ((3,), (4, 2), (4,)),
        ((5, 1, 3), (4, 2), (5, 4)),
        ((2, 1, 4, 3), (5, 1, 2), (2, 5, 4)),
        ((0, 3), (0, 2), (0,)),
    ],
)
def test_leading_shapes_of_x_and_context_broadcast(x_shape, context_shape, expected):
    """Each value is that of its own row and context."""
    flow, x, context = conditional_flow(), torch.randn(x_shape), torch.randn(context_shape)
    actual = flow.log_prob(x, context)
    assert actual.shape == expected
    rows = x.expand(*expected, 3).reshape(-1, 3), context.expand(*expected, 2).reshape(-1, 2)
    torch.testing.assert_close(actual.flatten(), flow.log_prob(*rows))


def test_rsample_carries_gradients_to_parameters_and_contexts():
    """Sample carries none."""
    flow = conditional_flow()
    context = torch.randn(4, 2, requires_grad=True)
    flow.rsample(3, context).sum().backward()
    assert context.grad.any()
    assert any(p.grad is not None and p.grad.any() for p in flow.parameters())
    assert not flow.sample(3, context).requires_grad


def test_a_flow_without_numbers_has_type_and_device():
    """A flow of permutations only follows `to` like any other."""
    flow = kf.Flow(kf.StandardNormal(2), kf.bijections.Permutation((1, 0)))
    assert flow.dtype == torch.float32
    assert flow.double().dtype == torch.float64
    assert flow.sample(2).dtype == torch.float64
    assert flow.state_dict().keys() == {"bijection.index"}


def test_units_are_the_leading_standardization_and_core_is_the_rest():
    """Together they are the bijection; both may be empty."""
    flow = jittered(kf.real_nvp(3, depth=3, hidden=(4,)))
    flow.standardization.bijections[0].fit(5 + 3 * torch.randn(64, 3))
    x = torch.randn(6, 3)
    assert [type(part) for part in flow.standardization] == [kf.bijections.Standardize]
    assert len(layers_of(flow.core)) == 3
    torch.testing.assert_close(flow.core(flow.standardization(x)[0])[0], flow.bijection(x)[0])
    affine = kf.bijections.ElementwiseAffine(2)
    for layer, units, rest in ((affine, [], [affine]), (kf.bijections.Standardize(2), [1], [])):
        flow = kf.Flow(kf.StandardNormal(2), layer)
        assert (len(flow.standardization), list(flow.core)) == (len(units), rest)


def test_the_context_of_core_passes_through_the_embedding():
    """The core of a conditional flow embeds the context as the whole does."""
    flow = conditional_flow()
    flow.bijection.embedding.fit(5 + 2 * torch.randn(64, 2))
    x, context = torch.randn(6, 3), torch.randn(6, 2)
    points = flow.standardization(x)[0]
    assert torch.equal(flow.core(points, context)[0], flow.bijection(x, context)[0])


def test_the_width_of_the_context_is_that_of_the_embedding():
    """Where a network reads 5 columns and gives 2, the chain says so and the flow asks for 5."""
    coupling = kf.AffineCoupling(
        kf.Partition.half(2), kf.nets.MLP(1, 2, (), context_features=2), context_features=2
    )
    embedding = torch.nn.Sequential(kf.nets.StandardizeInputs(5), kf.nets.MLP(5, 2, (4,)))
    chain = kf.Chain([coupling], embedding=embedding, context_features=5)
    flow = kf.Flow(kf.StandardNormal(2), kf.Inverse(chain))
    assert flow.context_features == 5
    assert flow.log_prob(torch.zeros(3, 2), torch.zeros(3, 5)).shape == (3,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, c: f.log_prob(torch.zeros(2, 3)), "'x' should have shape \\(..., 2\\), got"),
        (lambda f, c: f.log_prob(torch.tensor(1.0)), "'x' should have shape"),
        (lambda f, c: f.log_prob([[1.0, 2.0]]), "'x' should be a tensor, an array, .* got list"),
        (lambda f, c: f.log_prob(torch.zeros(2, 2).cfloat()), "'x' should hold real numbers"),
        (lambda f, c: f.log_prob(np.array([["a", "b"]])), "'x' should hold numbers, got an array"),
        (lambda f, c: f.log_prob(torch.zeros(2, 2), torch.zeros(2, 1)), "should be left out"),
        (lambda f, c: f.sample(-1), "'n' should be at least 0, got -1"),
        (lambda f, c: f.sample((2, -3)), "'n' should be at least 0, got -3"),
        (lambda f, c: f.sample("23"), "'n' should be a whole number"),
        (lambda f, c: c.log_prob(torch.zeros(2, 3)), "'context' should be given, with 2 columns"),
        (lambda f, c: c.sample(2, [1.0, 2.0]), "'context' should be a tensor, .* got list"),
        (lambda f, c: c.sample(2, torch.zeros(4, 3)), "'context' should have shape \\(..., 2\\)"),
        (
            lambda f, c: c.log_prob(torch.zeros(2, 3), torch.zeros(5, 2)),
            "leading shape \\(2,\\) as 'x' does, or one that broadcasts with it, got \\(5,\\)",
        ),
        (lambda f, c: kf.Flow(f.bijection, f.base), "'base' should be a Base"),
        (lambda f, c: kf.Flow(f.base, torch.nn.Linear(2, 2)), "'bijection' should be a Bijection"),
        (lambda f, c: kf.StandardNormal((2, 1.5)), "'event_shape' should be a whole number"),
        (lambda f, c: kf.Chain([torch.nn.Linear(2, 2)]), "'bijections' should hold bijections"),
        (lambda f, c: kf.Inverse(torch.nn.Linear(2, 2)), "'bijection' should be a Bijection"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    """One sentence names the argument, what it should be, and what it was."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        call(kf.real_nvp(2, depth=2, hidden=(4,)), conditional_flow())


def test_half_precision_adds_up_in_float32():
    """log_prob of a bfloat16 flow is in float32."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,)).bfloat16()
    assert flow.log_prob(torch.zeros(2, 2, dtype=torch.bfloat16)).dtype == torch.float32
    assert flow.sample(2).dtype == torch.bfloat16


def test_a_generator_draws_on_its_own_device(monkeypatch):
    """The draws are moved from there to the device asked for, whatever the default device is."""
    seen, randn = [], torch.randn

    def noting(*args, **kwargs):
        seen.append(kwargs["device"])
        return randn(*args, **kwargs)

    monkeypatch.setattr(torch, "randn", noting)
    base, generator, meta = kf.StandardNormal(2), torch.Generator(), torch.device("meta")
    with meta:
        assert base.sample(3, generator=generator).device.type == "cpu"
        assert base.sample(3, device=meta, generator=generator).device.type == "meta"
    assert seen == [torch.device("cpu")] * 2
    assert base.sample(3, device=meta).device.type == "meta"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda f, x, c: f.log_prob(x.to("meta"), c), "x"),
        (lambda f, x, c: f.log_prob(x, c.to("meta")), "context"),
        (lambda f, x, c: f.sample(2, c.to("meta")), "context"),
    ],
)
def test_what_lies_on_another_device_is_refused(call, name):
    """One sentence says where the flow is, where the argument is, and how to move it."""
    message = (
        f"'{name}' should be on the flow's device cpu, got meta: "
        f"move it with {name}.to(flow.device)."
    )
    with pytest.raises(kf.errors.ArgumentError, match=re.escape(message)):
        call(conditional_flow(), torch.zeros(4, 3), torch.zeros(4, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_has_a_repr_on_the_meta_device(name):
    """A flow without numbers can be looked at."""
    assert "Flow(" in repr(FLOWS[name].make().to("meta"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_can_be_copied_and_sent_to_another_process(name):
    """The copy is the same function of the same description, and shares no state."""
    flow, x, context = FLOWS[name].build(torch.float32)
    log_prob = flow.log_prob(x, context)
    state = flow.state_dict()  # kept, so that no copy takes the memory of a tensor made for it
    addresses = {tensor.data_ptr() for tensor in state.values() if tensor.numel()}
    for twin in (pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow)):
        assert registry.describe(twin) == registry.describe(flow)
        assert torch.equal(twin.log_prob(x, context), log_prob)
        assert addresses.isdisjoint(tensor.data_ptr() for tensor in twin.state_dict().values())


@pytest.mark.parametrize(
    ("n", "contexts", "expected"),
    [
        ((2, 3), None, (2, 3)),
        (torch.Size((2,)), None, (2,)),
        ((), None, ()),
        (0, (4,), (0, 4)),
        (5, (), (5,)),
        ((2, 3), (5,), (2, 3, 5)),
    ],
)
def test_samples_have_the_shapes_of_torch_distributions(n, contexts, expected):
    """The given one, before the batch shape of the contexts; each draw has its own log_prob."""
    flow = kf.real_nvp(3, depth=2, hidden=(4,)) if contexts is None else conditional_flow()
    context = None if contexts is None else torch.randn(*contexts, 2)
    x, log_prob = flow.sample_and_log_prob(n, context)
    assert x.shape == flow.rsample(n, context).shape == (*expected, 3)
    assert log_prob.shape == expected
    torch.testing.assert_close(log_prob, flow.log_prob(x, context), rtol=1e-4, atol=1e-4)


def test_the_samples_of_a_shape_are_those_of_their_number():
    flow, generator = kf.real_nvp(2, depth=2, hidden=(4,), padding=1), torch.Generator()
    flat, shaped = (flow.sample(n, generator=generator.manual_seed(0)) for n in (6, [2, 3]))
    assert torch.equal(flat.reshape(2, 3, 2), shaped)
    assert flow.sample((2, 3), temperature=0.5).shape == (2, 3, 2)
