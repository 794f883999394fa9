"""The fix in a finding for another library removes the finding."""

import numpy as np
import pytest
import torch
from torch import nn

import kappaflow as kf
from diagnosis.faulty import doctor
from kappaflow import wrap
from kappaflow.diagnosis.advice import BOUNDS, CLIPS, bound_scales

CLIP = {"log_scale_min_clip": -2.0, "log_scale_max_clip": 2.0}


def subnet(factor):
    """Builds networks whose last layer is scaled up, so that scales explode."""

    def build(a, b):
        net = nn.Sequential(nn.Linear(a, 16), nn.ReLU(), nn.Linear(16, b))
        net[-1].weight.data *= factor
        return net

    return build


def freia_sequence(*, bounded):
    """Eight blocks of FrEIA in a row."""
    framework = pytest.importorskip("FrEIA.framework")
    blocks = pytest.importorskip("FrEIA.modules")
    np.random.seed(0)  # of its permutations
    flow = framework.SequenceINN(4)
    for _ in range(8):
        options = {"affine_clamping": 1.0} if bounded else {}
        flow.append(blocks.AllInOneBlock, subnet_constructor=subnet(30), **options)
    return flow, torch.randn(64, 4)


def freia_graph(*, bounded):
    """Eight couplings of FrEIA as a graph."""
    framework = pytest.importorskip("FrEIA.framework")
    blocks = pytest.importorskip("FrEIA.modules")
    nodes = [framework.InputNode(4, name="in")]
    for _ in range(8):
        options = {"subnet_constructor": subnet(4), **({"clamp": 1.0} if bounded else {})}
        nodes.append(framework.Node(nodes[-1], blocks.GLOWCouplingBlock, options))
    nodes.append(framework.OutputNode(nodes[-1]))
    return framework.GraphINN(nodes), torch.randn(64, 4)


def zuko_maf(*, bounded):
    """A MAF of zuko whose weights were multiplied by four."""
    zuko = pytest.importorskip("zuko")

    def univariate(shift, scale):
        return zuko.transforms.MonotonicAffineTransform(shift, scale, slope=0.1)

    flow = zuko.flows.MAF(4, transforms=4, **({"univariate": univariate} if bounded else {}))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(4)
    return flow, 2 * torch.randn(64, 4)


def pyro_couplings(*, bounded):
    """Ten couplings of Pyro whose weights were multiplied by six."""
    transforms = pytest.importorskip("pyro.distributions.transforms")
    layers = [
        transforms.affine_coupling(4, hidden_dims=[16], **(CLIP if bounded else {}))
        for _ in range(10)
    ]
    for layer in layers:
        for parameter in layer.parameters():
            parameter.data *= 6
    normal = torch.distributions.Normal(torch.zeros(4), torch.ones(4))
    base = torch.distributions.Independent(normal, 1)
    return torch.distributions.TransformedDistribution(base, layers), torch.randn(64, 4)


ARGUMENTS = {  # of constructors, and the codes of the findings that they remove
    freia_sequence: ("affine_clamping=1.0 to AllInOneBlock", {"KF202", "KF301"}),
    freia_graph: ("clamp=1.0 to GLOWCouplingBlock", {"KF301"}),
    zuko_maf: ("MonotonicAffineTransform(shift, scale, slope=0.1)", {"KF202", "KF301"}),
    pyro_couplings: (CLIPS, set()),
}


@pytest.mark.parametrize("make", ARGUMENTS)
def test_each_library_has_its_own_arguments_in_the_fix(make):
    """By the kind of its layers."""
    assert ARGUMENTS[make][0] in bound_scales(wrap(*make(bounded=False)))


@pytest.mark.parametrize(
    "make",
    [pytest.param(m, marks=[] if m is zuko_maf else pytest.mark.slow) for m in ARGUMENTS],
)
def test_the_arguments_in_the_fix_remove_the_finding(make):
    """Bounded scales and float64, as KF301 says; every library's text names its arguments."""
    snippet, codes = ARGUMENTS[make]
    diagnoses = []
    for bounded in (False, True):
        torch.manual_seed(0)
        flow, x = make(bounded=bounded)
        if bounded and isinstance(flow, nn.Module):
            flow, x = flow.double(), x.double()
        diagnoses.append(doctor(flow, x))
    before, after = diagnoses
    assert codes <= {finding.code for finding in before.findings}
    assert any(snippet in finding.fix for finding in before.findings)
    assert not codes & {finding.code for finding in after.findings if finding.severity != "note"}
    worst = [diagnosis.measured["condition_number_max"] for diagnosis in diagnoses]
    assert worst[1] < 1e-3 * worst[0]


def test_layers_in_a_list_of_functions_get_a_formula():
    """A library without a known argument gets the bound as code."""
    functions = (lambda x: (x, torch.zeros(len(x))), lambda z: (z, torch.zeros(len(z))))
    assert "bound * torch.tanh(raw / bound)" in bound_scales(wrap(functions, torch.zeros(2, 3)))
    assert "scale_bound" in bound_scales(kf.real_nvp(2, depth=2, hidden=(4,)))
    assert sorted(BOUNDS) == ["FrEIA", "normflows", "pyro", "zuko"]
