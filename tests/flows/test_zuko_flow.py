"""Flows of zuko as ours: the same density, saved and loaded, conditional, refused where wrong."""

import sys

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.flows.zuko_flow import KINDS

zuko = pytest.importorskip("zuko")
QUICK = {"gf": {}, "cnf": {"hidden": (8,)}}


def small_flow(kind, features=3, **others):
    """Returns a small flow of a kind, in float64, with weights of its own."""
    torch.manual_seed(3)
    return kf.zuko_flow(features, kind, **QUICK.get(kind, {"hidden": (8,)}), **others).double()


def theirs(flow, name, *arguments, **others):
    """Returns a flow of zuko with the weights of one of ours."""
    original = getattr(zuko.flows, name)(*arguments, **others).double()
    own = [part.transform.state_dict() for part in flow.core]
    parts = getattr(original.transform, "transforms", [original.transform])
    for part, state in zip(parts, own, strict=True):
        part.load_state_dict(state)
    return original


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_is_that_of_zuko(kind):
    """With the same weights, in the units that rows are standardized to."""
    flow = small_flow(kind)
    name, depth = KINDS[kind]
    others = {} if depth is None else {"transforms": depth}
    others |= {} if kind == "gf" else {"hidden_features": [8]}
    x = torch.randn(40, 3, dtype=torch.float64)
    flow.bijection.bijections[0].fit(5 * x + 2)
    original = theirs(flow, name, 3, **others)
    standardized, units = flow.standardization(5 * x + 2)
    expected = original().log_prob(standardized) + units
    torch.testing.assert_close(flow.log_prob(5 * x + 2), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("cnf", "naf")])
def test_singular_values_are_those_of_the_dense_jacobian(kind):
    """Those of kinds with a searched inverse too, of which nothing is differentiated twice."""
    flow = small_flow(kind, depth=2).eval()
    x = torch.randn(4, 3, dtype=torch.float64)
    spectrum = kf.spectrum(flow.core, x)
    jacobians = [
        torch.autograd.functional.jacobian(lambda part: flow.core(part[None])[0][0], row)
        for row in x
    ]
    values = torch.linalg.svdvals(torch.stack(jacobians))
    torch.testing.assert_close(spectrum.sigma_max.double(), values[:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(spectrum.sigma_min.double(), values[:, -1], rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "rnvp"}, "'kind' should be one of 'maf'"),
        ({"kind": "cnf", "depth": 2}, "'depth' should be left out for 'cnf'"),
        ({"kind": "nsf", "transforms": 2}, "'transforms' is not .* did you mean 'depth'"),
        ({"kind": "nsf", "bin": 2}, "options of 'nsf' should be arguments of zuko.flows.NSF"),
        ({"kind": "bpf", "degree": -1}, "options of 'bpf' should be arguments of zuko.flows.BP"),
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
