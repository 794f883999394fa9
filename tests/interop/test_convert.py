"""`convert`: the same function as the original, and a `Flow` like any other."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import kappaflow as kf
from interop import coupling_flows
from kappaflow.errors import ArgumentError, ConversionError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch deprecations

ALL = {
    **{name: (make, False) for name, make in coupling_flows.FLOWS.items()},
    **{f"{name}, context": (make, True) for name, make in coupling_flows.CONDITIONAL.items()},
}
STACKS = {
    "zuko RealNVP": 1,
    "nflows residual": 1,
    "nflows MLP": 1,
    "nflows norms": 1,
    "normflows masked": 2,
    "FrEIA AllInOne": 1,
    "FrEIA GLOW": 1,
    "FrEIA RNVP": 1,
}


def made(name, seed=0):
    """Returns a foreign flow with random weights, and whether it has a context."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # FrEIA's
    make, conditional = ALL[name]
    return coupling_flows.perturbed(make(), seed), conditional


def rows(flow, conditional, n=6, seed=2):
    """Returns rows for a converted flow, and contexts or None."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *flow.event_shape, generator=generator, dtype=torch.float64)
    context = torch.randn(n, coupling_flows.CONTEXT, generator=generator, dtype=torch.float64)
    return x, context if conditional else None


def copied_state(module):
    """Returns a copy of the state of a module."""
    return {key: value.clone() for key, value in module.state_dict().items()}


def moments(name, original):
    """Returns the mean and deviation of the base, which conversion moves into the bijection."""
    if name == "zuko mixed":
        base = original.base(None).base_dist
        return base.loc, base.scale
    base = getattr(original, "_distribution", getattr(original, "q0", None))
    if hasattr(base, "mean_"):
        return base.mean_, base.log_std_.exp()
    if hasattr(base, "loc"):
        return base.loc, base.log_scale.exp()
    return torch.zeros(()), torch.ones(())


@torch.no_grad()
def check(name, seed):
    """Compares log_prob, forward and inverse of a converted flow with its original."""
    original, conditional = made(name, seed)
    before = copied_state(original)
    flow = kf.convert(original)
    assert {k: v.tolist() for k, v in before.items()} == {
        k: v.tolist() for k, v in original.state_dict().items()
    }
    assert type(flow) is kf.Flow and flow.dtype == torch.float64 and not flow.training
    x, context = rows(flow, conditional)
    wrapped = kf.wrap(original, x, context)
    theirs_z, _ = wrapped.bijection(x, context)
    assert torch.allclose(flow.log_prob(x, context), wrapped.log_prob(x, context), 0, 1e-10)
    own = wrapped.own_log_prob(x, context)
    assert own is None or torch.allclose(flow.log_prob(x, context), own, 0, 1e-10)
    z, log_det = flow.bijection(x, context)
    back, inverse = flow.bijection.inverse(z, context)
    assert torch.allclose(back, x, 0, 1e-10) and torch.allclose(inverse, -log_det, 0, 1e-10)
    if not conditional:
        mean, deviation = moments(name, original)
        assert torch.allclose(z * deviation + mean, theirs_z, 0, 1e-10)
        if name != "nflows linear maps":  # its NaiveLinear calls what torch has removed
            theirs_x, _ = wrapped.bijection.inverse(z * deviation + mean, context)
            assert torch.allclose(back, theirs_x, 0, 1e-10)


@pytest.mark.parametrize("name", ALL)
def test_a_converted_flow_is_the_same_function(name):
    """log_prob and both directions agree, and the original is unchanged."""
    for seed in range(2):
        check(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_converted_flow_is_the_same_function_for_other_weights(name):
    """At more seeds."""
    for seed in range(2, 6):
        check(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", STACKS)
def test_couplings_run_as_stacks(name):
    """Norms and scalings between couplings are folded into their networks."""
    flow = kf.convert(made(name)[0])
    stacks = [part for part in flow.modules() if isinstance(part, kf.CouplingStack)]
    assert len(stacks) == STACKS[name]
    inside = {layer for stack in stacks for layer in stack}
    assert {part for part in flow.modules() if isinstance(part, kf.AffineCoupling)} <= inside
    assert sum(isinstance(part, kf.bijections.ElementwiseAffine) for part in flow.modules()) <= 1


@pytest.mark.parametrize("name", ALL)
def test_a_converted_flow_is_trained_saved_and_loaded(name, tmp_path):
    """Training lowers the loss, the file keeps the function, the original is unchanged."""
    original, conditional = made(name)
    before = copied_state(original)
    flow = kf.convert(original)
    x, context = rows(flow, conditional, 32)
    optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], 1e-3)
    losses = []
    for _ in range(8):
        loss = -flow.log_prob(x, context).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1e-3
    kf.save(flow, tmp_path / "flow")
    loaded = kf.load(tmp_path / "flow")
    with torch.no_grad():
        assert torch.equal(loaded.log_prob(x, context), flow.log_prob(x, context))
    assert all(torch.equal(v, before[k]) for k, v in original.state_dict().items())


def test_dtype_and_mode_are_kept():
    """A float32 flow in training mode stays one."""
    original = coupling_flows.zuko_flow("RealNVP").float().train()
    flow = kf.convert(original)
    assert flow.dtype == torch.float32 and flow.training
    x = torch.randn(5, coupling_flows.FEATURES)
    assert torch.allclose(flow.log_prob(x), original().log_prob(x), atol=1e-4)


@pytest.mark.slow
def test_fit_continues_from_a_converted_flow():
    """`kf.fit` trains it like any flow."""
    flow = kf.convert(coupling_flows.zuko_flow("RealNVP"))
    x = torch.randn(256, coupling_flows.FEATURES) * 2
    before = -flow.log_prob(x).mean().item()
    result = kf.fit(flow, x, max_epochs=3, seed=0)
    assert -result.flow.log_prob(x).mean().item() < before


def test_standardizing_transforms_are_the_standardization_of_the_flow():
    """They come first and are fitted, so conditioning is measured after them."""
    flow = kf.convert(made("nflows linear maps")[0])
    assert len(flow.standardization) == 1


def test_permutations_in_a_row_are_joined_in_their_order():
    """Two that do not commute: in the other order log_prob would change."""
    pytest.importorskip("nflows")
    from nflows import transforms as T
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow

    parts = [T.Permutation(torch.tensor(index), dim=1) for index in ((1, 2, 0), (1, 0, 2))]
    coupling = T.AffineCouplingTransform(torch.tensor([1, -1, 1]), coupling_flows.nflows_mlp)
    original = Flow(T.CompositeTransform([*parts, coupling]), StandardNormal([3]))
    flow = kf.convert(coupling_flows.perturbed(original, seed=0))
    x, _ = rows(flow, conditional=False)
    assert torch.allclose(flow.log_prob(x), original.log_prob(x), 0, 1e-12)


def test_all_unsupported_layers_are_named_at_once():
    """With their number, class and reason."""
    pytest.importorskip("nflows")
    from nflows import transforms as T
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow

    class Sine(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.layer = nn.Linear(inputs, outputs)

        def forward(self, x, context=None):
            return self.layer(x).sin()

    mask = torch.tensor([1, -1, 1, -1, 1])
    parts = [
        T.AffineCouplingTransform(mask, coupling_flows.nflows_mlp),
        T.AffineCouplingTransform(mask, Sine),
        T.MaskedAffineAutoregressiveTransform(5, 8),
        T.PiecewiseRationalQuadraticCouplingTransform(
            mask, coupling_flows.nflows_net, tails="linear"
        ),
    ]
    flow = Flow(T.CompositeTransform(parts), StandardNormal([5]))
    with pytest.raises(ConversionError) as caught:
        kf.convert(flow)
    error = caught.value
    assert [name for name, _ in error.layers] == [
        "2 AffineCouplingTransform",
        "3 MaskedAffineAutoregressiveTransform",
        "4 PiecewiseRationalQuadraticCouplingTransform",
    ]
    assert "its network has a Sine" in error.layers[0][1]
    assert str(error).startswith("this flow of nflows cannot be converted: 2 AffineCoupling")
    assert str(error).count("\n") == 0 and str(error).endswith(".")


def autoregressive():
    """Returns a flow of zuko that is not a coupling flow."""
    return coupling_flows.zuko_flow("MAF")


def splines():
    """Returns a flow of zuko with splines."""
    zuko = pytest.importorskip("zuko")
    shapes = ((4,), (4,), (3,))
    layer = zuko.flows.coupling.GeneralCouplingTransform(
        4, univariate=zuko.transforms.MonotonicRQSTransform, shapes=shapes
    )
    return zuko.flows.Flow(layer, coupling_flows.zuko_flow("NICE", features=4).base)


def scales():
    """Returns a multi-scale flow of normflows."""
    nf = pytest.importorskip("normflows")
    base = nf.distributions.DiagGaussian((4, 2, 2))
    return nf.MultiscaleFlow([base], [[nf.flows.Squeeze()]], [])


def uninitialized():
    """Returns a flow of normflows whose norm waits for its first batch."""
    nf = pytest.importorskip("normflows")
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.ActNorm(4)])


def hooked():
    """Returns a flow of zuko with a hook on a network."""
    flow = coupling_flows.zuko_flow("RealNVP")
    flow.transform.transforms[0].hyper.register_forward_hook(lambda *_: None)
    return flow


def normed():
    """Returns a flow of zuko whose networks have layer norms."""
    return coupling_flows.zuko_flow("RealNVP", normalize=True)


def normed_in_batches():
    """Returns a sequence of FrEIA whose networks have batch norms."""
    pytest.importorskip("FrEIA")

    def network(inputs, outputs):
        return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Linear(8, outputs))

    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    inn = SequenceINN(4)
    inn.append(GLOWCouplingBlock, subnet_constructor=network)
    return inn


def preprocessed():
    """Returns a coupling of normflows whose network transforms its input first."""
    nf = pytest.importorskip("normflows")
    net = nf.nets.resnet.ResidualNet(2, 4, 8, preprocessing=torch.sin)
    return nf.NormalizingFlow(
        nf.distributions.DiagGaussian(4), [nf.flows.AffineCouplingBlock(net)]
    )


def gin():
    """Returns a network of FrEIA whose log-scales sum to zero."""
    return coupling_flows.freia_flow("GINCouplingBlock")


def graph():
    """Returns a graph of FrEIA with branches."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
    from FrEIA.modules import Concat, Split

    first = InputNode(4, name="in")
    split = Node(first, Split, {})
    joined = Node([split.out0, split.out1], Concat, {})
    return GraphINN([first, split, joined, OutputNode(joined, name="out")], verbose=False)


UNSUPPORTED = {
    autoregressive: "1 MaskedAutoregressiveTransform: kappaflow has no equivalent layer",
    splines: "it transforms features by MonotonicRQSTransform, which is not affine",
    scales: "MultiscaleFlow: it has several scales",
    uninitialized: "1 ActNorm: it is not initialized: it waits for its first batch",
    hooked: "1 GeneralCouplingTransform: it has hooks",
    normed: "its network has a LayerNorm, which kappaflow's networks do not have",
    preprocessed: "1 AffineCouplingBlock: its network preprocesses its input",
    gin: "1 GINCouplingBlock: kappaflow has no equivalent layer",
    normed_in_batches: "its network has a BatchNorm1d, which kappaflow's networks do not have",
    graph: "GraphINN: it is a graph with branches",
}


@pytest.mark.parametrize("make", UNSUPPORTED, ids=lambda make: make.__name__)
def test_an_unsupported_layer_is_refused_with_a_reason(make):
    """The message contains it."""
    with pytest.raises(ConversionError) as caught:
        kf.convert(make())
    assert UNSUPPORTED[make] in str(caught.value)


def test_a_network_that_computes_more_than_its_layers_is_refused():
    """Its outputs show it; its class does not."""
    pytest.importorskip("nflows")
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import MLP
    from nflows.transforms import AffineCouplingTransform

    class Sine(MLP):
        def forward(self, inputs, context=None):
            return super().forward(inputs).sin()

    layer = AffineCouplingTransform(torch.tensor([1, -1]), lambda a, b: Sine([a], [b], [4]))
    with pytest.raises(
        ConversionError, match="its network computes something else than its layers"
    ):
        kf.convert(Flow(layer, StandardNormal([2])))


def test_a_network_is_read_in_evaluation_mode():
    """Dropout is left out; the original's mode stays."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    torch.manual_seed(0)

    def network(inputs, outputs):
        return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, outputs))

    inn = SequenceINN(coupling_flows.FEATURES)
    inn.append(GLOWCouplingBlock, subnet_constructor=network)
    original = coupling_flows.perturbed(inn).train()
    before = copied_state(original)
    flow = kf.convert(original)
    assert original.training and flow.training
    assert all(torch.equal(v, before[k]) for k, v in original.state_dict().items())
    x, _ = rows(flow, False)
    wrapped = kf.wrap(original.eval(), x)
    assert torch.allclose(flow.log_prob(x), wrapped.log_prob(x), 0, 1e-10)


def test_a_subclass_with_another_forward_is_refused():
    """A layer is recognized by its methods, not only by its class."""
    pytest.importorskip("nflows")
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import ReversePermutation

    class Twice(ReversePermutation):
        def forward(self, inputs, context=None):
            return super().forward(2 * inputs, context)

    with pytest.raises(ConversionError, match="1 Twice: kappaflow has no equivalent layer"):
        kf.convert(Flow(Twice(3), StandardNormal([3])))


def test_users_convert_their_own_layers():
    """A function per class returns a bijection from data to latent."""
    nf = pytest.importorskip("normflows")

    class Double(nf.flows.Flow):
        def forward(self, z):
            return z * 2, torch.full((len(z),), 2 * 0.6931471805599453)

        def inverse(self, x):
            return x / 2, torch.full((len(x),), -2 * 0.6931471805599453)

    original = nf.NormalizingFlow(nf.distributions.DiagGaussian(2), [Double()])
    halves = [-0.6931471805599453] * 2
    own = {Double: lambda _: kf.bijections.ElementwiseAffine(2, log_scale=halves)}
    flow = kf.convert(original, converters=own)
    x = torch.randn(4, 2)
    assert torch.allclose(flow.log_prob(x), original.log_prob(x), atol=1e-6)
    with pytest.raises(ArgumentError, match="'converters' should map classes to functions"):
        kf.convert(original, converters={Double: 3})


def test_an_object_that_is_not_a_flow_is_refused():
    """The message names the supported libraries."""
    with pytest.raises(ArgumentError, match="should be a flow of zuko, nflows, normflows, FrEIA"):
        kf.convert(nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="should be the lazy flow of zuko"):
        kf.convert(coupling_flows.zuko_flow("RealNVP")())


def test_an_error_can_be_copied():
    """Like any exception that passes between processes."""
    error = copy.copy(ConversionError("zuko", [("1 X", "it is one")]))
    assert error.layers == (("1 X", "it is one"),) and "1 X: it is one" in str(error)
