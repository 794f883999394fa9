"""Flows of zuko as ours: the same density, saved and loaded, conditional, refused where wrong."""

import math
import sys

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.flows.zuko_flow import KINDS

zuko = pytest.importorskip("zuko")
QUICK = {"gf": {}, "cnf": {"hidden": (8,)}}


def made(kind, features=3, **others):
    """Returns a small flow of a kind, in float64, with weights of its own."""
    torch.manual_seed(3)
    return kf.zuko_flow(features, kind, **QUICK.get(kind, {"hidden": (8,)}), **others).double()


def theirs(flow, name, *arguments, **others):
    """Returns a flow of zuko with the weights of one of ours."""
    whole = getattr(zuko.flows, name)(*arguments, **others).double()
    own = [one.transform.state_dict() for one in flow.core]
    parts = getattr(whole.transform, "transforms", [whole.transform])
    for part, state in zip(parts, own, strict=True):
        part.load_state_dict(state)
    return whole


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_is_that_of_zuko(kind):
    """With the same weights, in the units that rows are standardized to."""
    flow = made(kind)
    name, depth = KINDS[kind]
    others = {} if depth is None else {"transforms": depth}
    others |= {} if kind == "gf" else {"hidden_features": [8]}
    x = torch.randn(40, 3, dtype=torch.float64)
    flow.bijection.bijections[0].fit(5 * x + 2)
    whole = theirs(flow, name, 3, **others)
    standardized, units = flow.standardization(5 * x + 2)
    expected = whole().log_prob(standardized) + units
    torch.testing.assert_close(flow.log_prob(5 * x + 2), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_of_zuko_is_saved_and_loaded_to_the_same_bits(kind, tmp_path):
    """Other weights than those it would begin with."""
    flow = made(kind, depth=None if kind == "cnf" else 2).eval()
    x = torch.randn(5, 3, dtype=torch.float64)
    kf.save(flow, tmp_path / "model")
    torch.manual_seed(99)
    loaded = kf.load(tmp_path / "model")
    assert torch.equal(loaded.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize("kind", ["maf", "nsf", "realnvp", "gf"])
def test_a_conditional_flow_of_zuko_follows_its_context(kind):
    """log_prob of a row is that of its own context."""
    flow = made(kind, context_features=2, depth=2)
    x = torch.randn(6, 3, dtype=torch.float64)
    context = torch.randn(6, 2, dtype=torch.float64)
    found = flow.log_prob(x, context)
    alone = [flow.log_prob(x[i : i + 1], context[i : i + 1]).item() for i in range(6)]
    torch.testing.assert_close(found, torch.tensor(alone, dtype=torch.float64))
    assert (flow.log_prob(x, context.flip(0)) - found).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("cnf", "naf")])
def test_singular_values_are_those_of_the_dense_jacobian(kind):
    """Those of kinds with a searched inverse too, of which nothing is differentiated twice."""
    flow = made(kind, depth=2).eval()
    x = torch.randn(4, 3, dtype=torch.float64)
    found = kf.spectrum(flow.core, x)
    jacobians = [
        torch.autograd.functional.jacobian(lambda one: flow.core(one[None])[0][0], row)
        for row in x
    ]
    values = torch.linalg.svdvals(torch.stack(jacobians))
    torch.testing.assert_close(found.sigma_max.double(), values[:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found.sigma_min.double(), values[:, -1], rtol=1e-4, atol=0)


@pytest.mark.slow
def test_a_flow_of_zuko_learns():
    """A few epochs on a bent Gaussian come below what the best Gaussian says of it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 2, generator=generator)
    x[:, 1] += x[:, 0] ** 2
    flow = kf.zuko_flow(2, "nsf", depth=2, hidden=(16,))
    result = kf.fit(flow, x, max_epochs=15, learning_rate=1e-2, batch_size=128)
    best_gaussian = math.log(2 * math.pi) + 1 + 0.5 * math.log(3)  # variances are 1 and 3
    assert result.validation_nll < best_gaussian - 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "rnvp"}, "'kind' should be one of 'maf'"),
        ({"kind": "cnf", "depth": 2}, "'depth' should be left out for 'cnf'"),
        ({"kind": "nsf", "transforms": 2}, "'transforms' is not .* did you mean 'depth'"),
        ({"kind": "nsf", "bin": 2}, "options of 'nsf' should be arguments of zuko.flows.NSF"),
        ({"kind": "nsf", "bins": 0}, "options of 'nsf' should be arguments of zuko.flows.NSF"),
        ({"kind": "bpf", "degree": -1}, "options of 'bpf' should be arguments of zuko.flows.BP"),
        ({"kind": "maf", "hidden": (0,)}, "'hidden' should be at least 1"),
    ],
)
def test_what_a_kind_does_not_take_is_refused(arguments, message):
    """In one sentence that names the argument."""
    with pytest.raises(ArgumentError, match=message):
        kf.zuko_flow(3, **arguments)


def test_without_zuko_it_is_said_what_to_install(monkeypatch):
    """Nothing else of the library needs it."""
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(ArgumentError, match=r"pip install 'kappaflow\[zuko\]'"):
        kf.zuko_flow(3, "maf")
