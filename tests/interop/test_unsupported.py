"""`convert` refuses what it would change, in one sentence, and takes converters of users."""

import math

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
    return library("nflows.transforms").LULinear(4)


def normflows_of(*layers):
    """Returns a flow of normflows on four features."""
    nf = pytest.importorskip("normflows")
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(4), layers)


def sequence(network, **settings):
    """Returns a sequence of FrEIA of two couplings."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    inn = SequenceINN(4)
    for number in range(2):
        options = {name: values[number] for name, values in settings.items()}
        inn.append(GLOWCouplingBlock, subnet_constructor=network, **options)
    return inn


def splines():
    """Returns a flow of zuko with splines."""
    zuko = pytest.importorskip("zuko")
    shapes = ((4,), (4,), (3,))
    layer = zuko.flows.coupling.GeneralCouplingTransform(
        4, univariate=zuko.transforms.MonotonicRQSTransform, shapes=shapes
    )
    return zuko.flows.Flow(layer, coupling_flows.zuko_flow("NICE", features=4).base)


def approximate():
    """Returns a flow whose activation has other parameters than torch's default.

    Its networks have small outputs, which do not show it in float32.
    """

    def network(inputs, outputs):
        last = nn.Linear(8, outputs)
        nn.init.normal_(last.weight, std=1e-3)
        return nn.Sequential(nn.Linear(inputs, 8), nn.GELU("tanh"), last)

    return sequence(network)


def branches():
    """Returns a graph of FrEIA with branches."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
    from FrEIA.modules import Concat, Split

    first = InputNode(4, name="in")
    split = Node(first, Split, {})
    joined = Node([split.out0, split.out1], Concat, {})
    return GraphINN([first, split, joined, OutputNode(joined, name="out")], verbose=False)


def two_conditions_of_a_graph():
    """Returns a graph of FrEIA whose couplings read two conditions of one width."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import ConditionNode, GraphINN, InputNode, Node, OutputNode
    from FrEIA.modules import GLOWCouplingBlock

    conditions = [ConditionNode(3, name=name) for name in ("one", "two")]
    nodes = [InputNode(4, name="in")]
    settings = {"subnet_constructor": coupling_flows.freia_net}
    for condition in conditions:
        nodes += [Node(nodes[-1], GLOWCouplingBlock, settings, conditions=condition)]
    return GraphINN([*nodes, *conditions, OutputNode(nodes[-1], name="out")], verbose=False)


def method_of_a_layer():
    """Returns a flow of nflows with a layer whose forward was replaced."""
    layer = lu()
    layer.forward = lambda x, context=None: (x, x.new_zeros(len(x)))
    return nflows_of(layer)


def subclass_of_a_layer():
    """Returns a flow of nflows with a layer whose subclass overrides forward."""
    transforms = pytest.importorskip("nflows.transforms")

    class Twice(transforms.ReversePermutation):
        def forward(self, inputs, context=None):
            return super().forward(2 * inputs, context)

    return nflows_of(Twice(4))


def other_density():
    """Returns a flow of normflows whose subclass overrides log_prob."""
    nf = pytest.importorskip("normflows")

    class Halved(nf.NormalizingFlow):
        def log_prob(self, x):
            return super().log_prob(2 * x)

    return Halved(nf.distributions.DiagGaussian(4), [nf.flows.Permute(4)])


def other_outputs():
    """Returns a flow of nflows whose network computes more than its layers, of a known class."""
    pytest.importorskip("nflows")
    from nflows.nn.nets import MLP
    from nflows.transforms import AffineCouplingTransform

    class Sine(MLP):
        def forward(self, inputs, context=None):
            return super().forward(inputs).sin()

    mask = torch.tensor([1, -1, 1, -1])
    return nflows_of(AffineCouplingTransform(mask, lambda a, b: Sine([a], [b], [4])))


def not_finite():
    """Returns a flow of zuko with a NaN weight."""
    flow = coupling_flows.zuko_flow("RealNVP")
    with torch.no_grad():
        next(flow.parameters())[0] = torch.nan
    return flow


def hooked(flow, name):
    """Returns a flow with a hook on a module in it, or on itself."""
    flow.get_submodule(name).register_forward_hook(lambda *_: None)
    return flow


def library(name):
    """Returns a module of a library, or skips the test."""
    return pytest.importorskip(name)


UNSUPPORTED = {
    "it transforms features by MonotonicRQSTransform, which is not affine": splines,
    "MultiscaleFlow: it has several scales": lambda: library("normflows").MultiscaleFlow(
        [library("normflows").distributions.DiagGaussian((4, 2, 2))],
        [[library("normflows").flows.Squeeze()]],
        [],
    ),
    "1 ActNorm: it is not initialized: it waits for its first batch": lambda: normflows_of(
        library("normflows").flows.ActNorm(4)
    ),
    "1 AffineCouplingBlock: its network preprocesses its input": lambda: normflows_of(
        library("normflows").flows.AffineCouplingBlock(
            library("normflows").nets.resnet.ResidualNet(2, 4, 8, preprocessing=torch.sin)
        )
    ),
    "its network has a BatchNorm1d, which kappaflow's networks do not have": lambda: sequence(
        lambda a, b: nn.Sequential(nn.Linear(a, 8), nn.BatchNorm1d(8), nn.Linear(8, b))
    ),
    "its network has the activation GELU(approximate='tanh')": approximate,
    "its network does not alternate linear layers and activations": lambda: sequence(
        lambda a, b: nn.Sequential(nn.Linear(a, 8), nn.Linear(8, b))
    ),
    "GraphINN: it is a graph with branches": branches,
    "SequenceINN: it reads more than one condition": lambda: sequence(
        coupling_flows.freia_net, cond=[0, 1], cond_shape=[(3,), (3,)]
    ),
    "GraphINN: it reads more than one condition": two_conditions_of_a_graph,
    "1 GeneralCouplingTransform: it has hooks": lambda: hooked(
        coupling_flows.zuko_flow("RealNVP"), "transform.transforms.0.hyper"
    ),
    "1 CompositeTransform: it has hooks": lambda: hooked(nflows_of(lu()), "_transform"),
    "RealNVP: it has hooks, or overrides forward of RealNVP": lambda: hooked(
        coupling_flows.zuko_flow("RealNVP"), ""
    ),
    "1 LULinear: it has hooks or replaced methods": method_of_a_layer,
    "1 Twice: kappaflow does not convert such layers": subclass_of_a_layer,
    "Halved: it has hooks, or overrides log_prob of NormalizingFlow": other_density,
    "its network computes something else than its layers": other_outputs,
    "1 GeneralCouplingTransform: its network has weights that are not finite": not_finite,
    "base BoxUniform: it is not a normal distribution": lambda: nflows_of(
        lu(),
        base=library("nflows.distributions.uniform").BoxUniform(torch.zeros(4), torch.ones(4)),
    ),
}


@pytest.mark.parametrize("reason", UNSUPPORTED)
def test_a_flow_that_would_change_its_function_is_refused(reason):
    """With the reason."""
    with pytest.raises(ConversionError) as caught:
        kf.convert(UNSUPPORTED[reason]())
    assert reason in str(caught.value)


def test_all_unsupported_layers_are_named_at_once():
    """With their number, class and reason."""
    transforms = pytest.importorskip("nflows.transforms")
    mask = torch.tensor([1, -1, 1, -1])
    flow = nflows_of(
        transforms.AffineCouplingTransform(mask, coupling_flows.nflows_mlp),
        transforms.MaskedAffineAutoregressiveTransform(4, 8),
        transforms.PiecewiseRationalQuadraticCouplingTransform(
            mask, coupling_flows.nflows_net, tails="linear"
        ),
    )
    with pytest.raises(ConversionError) as caught:
        kf.convert(flow)
    error = caught.value
    kinds = ["MaskedAffineAutoregressive", "PiecewiseRationalQuadraticCoupling"]
    assert [name for name, _ in error.layers] == [
        f"{i} {k}Transform" for i, k in enumerate(kinds, 2)
    ]
    assert str(error).startswith("this flow of nflows cannot be converted: 2 MaskedAffine")
    assert str(error).count("\n") == 0 and str(error).endswith(".")


@pytest.mark.parametrize(
    "make",
    [
        lu,
        lambda: library("FrEIA.modules").PermuteRandom([(4,)]),
        lambda: coupling_flows.zuko_flow("RealNVP").transform.inv,
        lambda: coupling_flows.zuko_flow("RealNVP")(),
        lambda: nn.Linear(2, 2),
    ],
)
def test_an_object_that_is_not_a_flow_is_refused(make):
    """The message says what a flow is."""
    with pytest.raises(ArgumentError, match="'flow' should be"):
        kf.convert(make())


def doubling(base, direction):
    """Returns a layer of a library that doubles its four features in one direction."""

    class Double(base):
        def forward(self, x, context=None):
            return x * 2**direction, x.new_full((len(x),), 4 * direction * math.log(2))

        def inverse(self, x, context=None):
            return x / 2**direction, x.new_full((len(x),), -4 * direction * math.log(2))

    return Double()


def doubled(_):
    """Returns the map x -> 2 x."""
    return kf.bijections.ElementwiseAffine(4, log_scale=[math.log(2)] * 4)


def test_converters_apply_to_layers_inside_inverses():
    """In the direction of the inverse."""
    transforms = pytest.importorskip("nflows.transforms")
    layer = doubling(transforms.Transform, 1)
    scales = transforms.PointwiseAffineTransform(torch.ones(4), torch.full((4,), 3.0))
    inverse = transforms.InverseTransform(transforms.CompositeTransform([layer, scales]))
    flow, x = nflows_of(inverse), torch.randn(5, 4)
    converted = kf.convert(flow, converters={type(layer): doubled})
    assert torch.allclose(converted.log_prob(x), flow.log_prob(x), atol=1e-5)
    with pytest.raises(ArgumentError, match="should return bijections, got NoneType for a Double"):
        kf.convert(flow, converters={type(layer): lambda _: None})
    for converters in ([type(layer)], {type(layer): 3}):
        with pytest.raises(ArgumentError, match="should map classes to functions"):
            kf.convert(flow, converters=converters)


def test_converters_of_layers_that_go_from_latent_to_data():
    """Their result maps from data to latent where the layer is not reversed."""
    nf = pytest.importorskip("normflows")
    layer, x = doubling(nf.flows.Flow, -1), torch.randn(5, 4)
    for part in (layer, nf.flows.Reverse(layer)):
        flow = normflows_of(part)
        converted = kf.convert(flow, converters={type(layer): doubled})
        assert torch.allclose(converted.log_prob(x), flow.log_prob(x), atol=1e-5)
