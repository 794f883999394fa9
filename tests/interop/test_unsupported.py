"""`convert` refuses modified layers and objects that are not flows, in one sentence."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from interop import coupling_flows
from kappaflow.errors import ArgumentError, ConversionError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch deprecations


def nflows_of(*layers, base=None):
    """Returns a flow of nflows on four features."""
    pytest.importorskip("nflows")
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import CompositeTransform

    return Flow(CompositeTransform(layers), StandardNormal([4]) if base is None else base)


def lu():
    """Returns a linear layer of nflows."""
    pytest.importorskip("nflows")
    from nflows.transforms import LULinear

    return LULinear(4)


def sequence(network, **settings):
    """Returns a sequence of FrEIA of two couplings."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    inn = SequenceINN(4)
    for number in range(2):
        given = {name: values[number] for name, values in settings.items()}
        inn.append(GLOWCouplingBlock, subnet_constructor=network, **given)
    return inn


def approximate():
    """Returns a flow whose activation has other parameters than torch's default.

    Its networks have small outputs, which do not show it in float32.
    """

    def network(inputs, outputs):
        last = nn.Linear(8, outputs)
        nn.init.normal_(last.weight, std=1e-3)
        return nn.Sequential(nn.Linear(inputs, 8), nn.GELU("tanh"), last)

    return sequence(network)


def two_conditions():
    """Returns a sequence of FrEIA whose couplings read two conditions of one width."""
    return sequence(coupling_flows.freia_net, cond=[0, 1], cond_shape=[(3,), (3,)])


def two_conditions_of_a_graph():
    """Returns a graph of FrEIA whose couplings read two conditions of one width."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import ConditionNode, GraphINN, InputNode, Node, OutputNode
    from FrEIA.modules import GLOWCouplingBlock

    given = [ConditionNode(3, name=name) for name in ("one", "two")]
    nodes = [InputNode(4, name="in")]
    settings = {"subnet_constructor": coupling_flows.freia_net}
    nodes += [Node(nodes[-1], GLOWCouplingBlock, settings, conditions=given[0])]
    nodes += [Node(nodes[-1], GLOWCouplingBlock, settings, conditions=given[1])]
    return GraphINN([*nodes, *given, OutputNode(nodes[-1], name="out")], verbose=False)


def hook_around_layers():
    """Returns a flow of nflows with a hook on the composition of its layers."""
    flow = nflows_of(lu())
    flow._transform.register_forward_hook(lambda *given: (2 * given[2][0], given[2][1]))
    return flow


def hook_around_the_flow():
    """Returns a flow of zuko with a hook on itself."""
    flow = coupling_flows.zuko_flow("RealNVP")
    flow.register_forward_hook(lambda *_: None)
    return flow


def method_of_a_layer():
    """Returns a flow of nflows with a layer whose forward was replaced."""
    layer = lu()
    layer.forward = lambda x, context=None: (x, x.new_zeros(len(x)))
    return nflows_of(layer)


def other_density():
    """Returns a flow of normflows whose subclass overrides log_prob."""
    nf = pytest.importorskip("normflows")

    class Halved(nf.NormalizingFlow):
        def log_prob(self, x):
            return super().log_prob(2 * x)

    return Halved(nf.distributions.DiagGaussian(4), [nf.flows.Permute(4)])


def not_finite():
    """Returns a flow of zuko with a NaN weight."""
    flow = coupling_flows.zuko_flow("RealNVP")
    with torch.no_grad():
        next(flow.parameters())[0] = torch.nan
    return flow


def uniform_base():
    """Returns a flow of nflows on a box."""
    pytest.importorskip("nflows")
    from nflows.distributions.uniform import BoxUniform

    return nflows_of(lu(), base=BoxUniform(torch.zeros(4), torch.ones(4)))


UNSUPPORTED = {
    approximate: "1 GLOWCouplingBlock: its network has the activation GELU(approximate='tanh')",
    two_conditions: "SequenceINN: it reads more than one condition",
    two_conditions_of_a_graph: "GraphINN: it reads more than one condition",
    hook_around_layers: "1 CompositeTransform: it has hooks",
    hook_around_the_flow: "RealNVP: it has hooks, or overrides forward of RealNVP",
    method_of_a_layer: "1 LULinear: it has hooks or replaced methods",
    other_density: "Halved: it has hooks, or overrides log_prob of NormalizingFlow",
    not_finite: "1 GeneralCouplingTransform: its network has weights that are not finite",
    uniform_base: "base BoxUniform: it is not a normal distribution",
}


@pytest.mark.parametrize("make", UNSUPPORTED, ids=lambda make: make.__name__)
def test_a_flow_that_would_change_its_function_is_refused(make):
    """With the reason."""
    with pytest.raises(ConversionError) as caught:
        kf.convert(make())
    assert UNSUPPORTED[make] in str(caught.value)


def freia_layer():
    """Returns a layer of FrEIA."""
    pytest.importorskip("FrEIA")
    from FrEIA.modules import PermuteRandom

    return PermuteRandom([(4,)])


def zuko_layer():
    """Returns an inverted layer of zuko."""
    return coupling_flows.zuko_flow("RealNVP").transform.inv


@pytest.mark.parametrize("make", [lu, freia_layer, zuko_layer], ids=lambda make: make.__name__)
def test_a_layer_is_not_a_flow(make):
    """The message says what a flow is."""
    with pytest.raises(ArgumentError, match="'flow' should be"):
        kf.convert(make())


def test_converters_apply_to_layers_inside_inverses():
    """In the direction of the inverse."""
    pytest.importorskip("nflows")
    from nflows import transforms as T

    class Double(T.Transform):
        def forward(self, inputs, context=None):
            return 2 * inputs, inputs.new_full((len(inputs),), 4 * 0.6931471805599453)

        def inverse(self, inputs, context=None):
            return inputs / 2, inputs.new_full((len(inputs),), -4 * 0.6931471805599453)

    scales = T.PointwiseAffineTransform(torch.ones(4), torch.full((4,), 3.0))
    layers = T.CompositeTransform([Double(), scales])
    flow, x = nflows_of(T.InverseTransform(layers)), torch.randn(5, 4)
    own = {
        Double: lambda _: kf.bijections.ElementwiseAffine(4, log_scale=[0.6931471805599453] * 4)
    }
    ours = kf.convert(flow, converters=own)
    assert torch.allclose(ours.log_prob(x), flow.log_prob(x), atol=1e-5)
    with pytest.raises(ArgumentError, match="should return bijections, got NoneType for a Double"):
        kf.convert(flow, converters={Double: lambda _: None})
    with pytest.raises(ArgumentError, match="should map classes to functions"):
        kf.convert(flow, converters=[Double])


def test_converters_of_layers_that_go_from_latent_to_data():
    """Their result maps from data to latent where the layer is not reversed."""
    nf = pytest.importorskip("normflows")

    class Double(nf.flows.Flow):
        def forward(self, z):
            return 2 * z, z.new_full((len(z),), 4 * 0.6931471805599453)

        def inverse(self, z):
            return z / 2, z.new_full((len(z),), -4 * 0.6931471805599453)

    own = {
        Double: lambda _: kf.bijections.ElementwiseAffine(4, log_scale=[-0.6931471805599453] * 4)
    }
    x = torch.randn(5, 4)
    for layer in (Double(), nf.flows.Reverse(Double())):
        flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [layer])
        ours = kf.convert(flow, converters=own)
        assert torch.allclose(ours.log_prob(x), flow.log_prob(x), atol=1e-5)
