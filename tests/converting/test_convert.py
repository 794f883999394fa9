"""Flows of other libraries as flows of ours: the same function, and flows like all others."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import kappaflow as kf
from converting import theirs
from kappaflow.errors import ArgumentError, ConversionError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what torch deprecates in theirs

ALL = {
    **{name: (make, False) for name, make in theirs.FLOWS.items()},
    **{f"{name}, context": (make, True) for name, make in theirs.CONDITIONAL.items()},
    **{name: (make, False) for name, make in theirs.IMAGES.items()},
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
    """Returns a foreign flow with weights that do something, and whether it has a context."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # FrEIA's
    make, conditional = ALL[name]
    scale = 0.02 if name in theirs.IMAGES else 0.15
    return theirs.moved(make(), seed, scale), conditional


def points(flow, conditional, n=6, seed=2):
    """Returns points for a converted flow, and contexts or None."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *flow.event_shape, generator=generator, dtype=torch.float64)
    context = torch.randn(n, theirs.CONTEXT, generator=generator, dtype=torch.float64)
    return x, context if conditional else None


def hashed(module):
    """Returns the state of a module, each tensor in copies."""
    return {key: value.clone() for key, value in module.state_dict().items()}


def moments(name, original):
    """Returns mean and deviation of the base, which conversion takes into the bijection."""
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
    """Compares a converted flow with its original at each way through it."""
    original, conditional = made(name, seed)
    before = hashed(original)
    flow = kf.convert(original)
    assert {k: v.tolist() for k, v in before.items()} == {
        k: v.tolist() for k, v in original.state_dict().items()
    }
    assert type(flow) is kf.Flow and flow.dtype == torch.float64 and not flow.training
    x, context = points(flow, conditional)
    wrapped = kf.wrap(original, x, context)
    theirs_z, _ = wrapped.bijection(x, context)
    assert torch.allclose(flow.log_prob(x, context), wrapped.log_prob(x, context), 0, 1e-10)
    own = wrapped.own_log_prob(x, context)
    assert own is None or torch.allclose(flow.log_prob(x, context), own, 0, 1e-10)
    z, log_det = flow.bijection(x, context)
    back, inverse = flow.bijection.inverse(z, context)
    assert torch.allclose(back, x, 0, 1e-10) and torch.allclose(inverse, -log_det, 0, 1e-10)
    if name not in theirs.IMAGES and not conditional:
        mean, deviation = moments(name, original)
        assert torch.allclose(z * deviation + mean, theirs_z, 0, 1e-10)
        if name != "nflows linear maps":  # its NaiveLinear calls what torch has removed
            theirs_x, _ = wrapped.bijection.inverse(z * deviation + mean, context)
            assert torch.allclose(back, theirs_x, 0, 1e-10)
    elif name in {"nflows multi-scale", "FrEIA images"}:
        assert torch.allclose(z, theirs_z, 0, 1e-10)


@pytest.mark.parametrize("name", ALL)
def test_a_converted_flow_is_the_same_function(name):
    """log_prob, both directions, and nothing of the original is changed."""
    for seed in range(2):
        check(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_so_it_is_with_other_weights(name):
    """At twenty seeds."""
    for seed in range(2, 20):
        check(name, seed)


@pytest.mark.parametrize("name", STACKS)
def test_couplings_run_as_stacks(name):
    """With the norms and scales between them taken into their networks."""
    flow = kf.convert(made(name)[0])
    stacks = [part for part in flow.modules() if isinstance(part, kf.CouplingStack)]
    assert len(stacks) == STACKS[name]
    assert not any(isinstance(part, kf.AffineCoupling) for part in flow.modules())
    assert sum(isinstance(part, kf.ElementwiseAffine) for part in flow.modules()) <= 1


@pytest.mark.parametrize("name", ALL)
def test_it_is_trained_saved_and_loaded(name, tmp_path):
    """A few steps make a loss smaller; the file gives the same function; the original is still."""
    original, conditional = made(name)
    before = hashed(original)
    flow = kf.convert(original)
    x, context = points(flow, conditional, 32)
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
    again = kf.load(tmp_path / "flow")
    with torch.no_grad():
        assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))
    assert all(torch.equal(v, before[k]) for k, v in original.state_dict().items())


def test_type_and_mode_are_those_of_the_original():
    """A flow in float32 and training mode is one afterwards."""
    original = theirs.zuko_flow("RealNVP").float().train()
    flow = kf.convert(original)
    assert flow.dtype == torch.float32 and flow.training
    x = torch.randn(5, theirs.FEATURES)
    assert torch.allclose(flow.log_prob(x), original().log_prob(x), atol=1e-4)


def test_fit_goes_on_from_a_converted_flow():
    """`kf.fit` trains it as any flow."""
    flow = kf.convert(theirs.zuko_flow("RealNVP"))
    x = torch.randn(256, theirs.FEATURES) * 2
    before = -flow.log_prob(x).mean().item()
    result = kf.fit(flow, x, max_epochs=3, seed=0)
    assert -result.flow.log_prob(x).mean().item() < before


def test_standardising_transforms_are_the_units_of_the_flow():
    """They stand in front, fitted, so that conditioning is measured behind them."""
    flow = kf.convert(made("nflows linear maps")[0])
    assert len(flow.standardization) == 1


def test_what_cannot_be_converted_is_named_all_at_once():
    """By place and layer, with the reason."""
    pytest.importorskip("nflows")
    from nflows import transforms as T
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow

    class Bent(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.layer = nn.Linear(inputs, outputs)

        def forward(self, x, context=None):
            return self.layer(x).sin()

    mask = torch.tensor([1, -1, 1, -1, 1])
    parts = [
        T.AffineCouplingTransform(mask, theirs.nflows_mlp),
        T.AffineCouplingTransform(mask, Bent),
        T.MaskedAffineAutoregressiveTransform(5, 8),
        T.PiecewiseRationalQuadraticCouplingTransform(mask, theirs.nflows_net, tails="linear"),
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
    assert "its network has a Bent" in error.layers[0][1]
    assert str(error).startswith("this flow of nflows cannot be converted: 2 AffineCoupling")
    assert str(error).count("\n") == 0 and str(error).endswith(".")


def autoregressive():
    """Returns a flow of zuko that is no coupling flow."""
    return theirs.zuko_flow("MAF")


def splines():
    """Returns a flow of zuko that changes features by splines."""
    return theirs.zuko_flow("NSF", passes=2)


def unstarted():
    """Returns a flow of normflows whose norm waits for its first batch."""
    nf = pytest.importorskip("normflows")
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.ActNorm(4)])


def classes():
    """Returns a multi-scale flow of normflows with a base for each class."""
    nf = pytest.importorskip("normflows")
    base = nf.distributions.ClassCondDiagGaussian((4, 2, 2), 3)
    return nf.MultiscaleFlow([base], [[nf.flows.Squeeze()]], [])


def encoded():
    """Returns a flow of nflows whose base reads a context through a function of its user."""
    pytest.importorskip("nflows")
    from nflows.distributions.normal import ConditionalDiagonalNormal
    from nflows.flows.base import Flow
    from nflows.transforms import ReversePermutation

    return Flow(ReversePermutation(2), ConditionalDiagonalNormal([2], lambda context: 2 * context))


def hooked():
    """Returns a flow of zuko with a hook on a network."""
    flow = theirs.zuko_flow("RealNVP")
    flow.transform.transforms[0].hyper.register_forward_hook(lambda *_: None)
    return flow


def normed():
    """Returns a flow of zuko whose networks have layer norms."""
    return theirs.zuko_flow("RealNVP", normalize=True)


def gin():
    """Returns a network of FrEIA whose log-scales add up to zero."""
    return theirs.freia_flow("GINCouplingBlock")


def graph():
    """Returns a graph of FrEIA with branches."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
    from FrEIA.modules import Concat, Split

    first = InputNode(4, name="in")
    split = Node(first, Split, {})
    joined = Node([split.out0, split.out1], Concat, {})
    return GraphINN([first, split, joined, OutputNode(joined, name="out")], verbose=False)


REFUSED = {
    autoregressive: "1 MaskedAutoregressiveTransform: it is autoregressive in more than two",
    splines: "it changes features by MonotonicRQSTransform, no affine map",
    unstarted: "1 ActNorm: it has not seen its first batch",
    classes: "base ClassCondDiagGaussian: it has a distribution for each class",
    encoded: "base ConditionalDiagonalNormal: its encoder of the context is no module",
    hooked: "1 GeneralCouplingTransform: it has hooks",
    normed: "its network has a LayerNorm, which networks of ours have not",
    gin: "1 GINCouplingBlock: it subtracts from the log-scales their mean",
    graph: "GraphINN: it is a graph with branches",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_a_layer_without_an_equal_is_refused_with_a_reason(make):
    """In one sentence."""
    with pytest.raises(ConversionError) as caught:
        kf.convert(make())
    assert REFUSED[make] in str(caught.value)


def test_a_network_that_does_more_than_its_layers_say_is_refused():
    """Its answers show it, where its class does not."""
    pytest.importorskip("nflows")
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import MLP
    from nflows.transforms import AffineCouplingTransform

    class Bent(MLP):
        def forward(self, inputs, context=None):
            return super().forward(inputs).sin()

    layer = AffineCouplingTransform(torch.tensor([1, -1]), lambda a, b: Bent([a], [b], [4]))
    with pytest.raises(ConversionError, match="its network does more than its layers say"):
        kf.convert(Flow(layer, StandardNormal([2])))


def norms_and_dropout(inputs, outputs):
    """Returns a network with batch norms before and behind an activation, and dropout."""
    return nn.Sequential(
        nn.BatchNorm1d(inputs),
        nn.Linear(inputs, 8),
        nn.BatchNorm1d(8, affine=False),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, outputs, bias=False)),
    )


def test_a_network_is_read_as_it_is_in_evaluation():
    """Norms go into their neighbours, dropout is left out; statistics and mode stay."""
    pytest.importorskip("FrEIA")
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    torch.manual_seed(0)
    inn = SequenceINN(theirs.FEATURES)
    inn.append(GLOWCouplingBlock, subnet_constructor=norms_and_dropout)
    original = theirs.moved(inn).train()
    before = hashed(original)
    flow = kf.convert(original)
    assert original.training and flow.training
    assert all(torch.equal(v, before[k]) for k, v in original.state_dict().items())
    x, _ = points(flow, False)
    wrapped = kf.wrap(original.eval(), x)
    assert torch.allclose(flow.log_prob(x), wrapped.log_prob(x), 0, 1e-10)


def test_a_subclass_that_does_something_else_is_refused():
    """A class is known by what it does, not by its name alone."""
    pytest.importorskip("nflows")
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import ReversePermutation

    class Twice(ReversePermutation):
        def forward(self, inputs, context=None):
            return super().forward(2 * inputs, context)

    with pytest.raises(ConversionError, match="1 Twice: kappaflow has no layer"):
        kf.convert(Flow(Twice(3), StandardNormal([3])))


def test_a_layer_of_ones_own_is_converted_by_ones_own_function():
    """A function by class, which returns a bijection from data to latent."""
    nf = pytest.importorskip("normflows")

    class Double(nf.flows.Flow):
        def forward(self, z):
            return z * 2, torch.full((len(z),), 2 * 0.6931471805599453)

        def inverse(self, x):
            return x / 2, torch.full((len(x),), -2 * 0.6931471805599453)

    original = nf.NormalizingFlow(nf.distributions.DiagGaussian(2), [Double()])
    halves = [-0.6931471805599453] * 2
    own = {Double: lambda _: kf.ElementwiseAffine(2, log_scale=halves)}
    flow = kf.convert(original, converters=own)
    x = torch.randn(4, 2)
    assert torch.allclose(flow.log_prob(x), original.log_prob(x), atol=1e-6)
    with pytest.raises(ArgumentError, match="'converters' should hold functions by class"):
        kf.convert(original, converters={Double: 3})


def test_what_is_no_flow_of_a_library_is_said_to_be_none():
    """With the way out."""
    with pytest.raises(ArgumentError, match="should be a flow of zuko, nflows, normflows, FrEIA"):
        kf.convert(nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="should be the lazy flow of zuko"):
        kf.convert(theirs.zuko_flow("RealNVP")())


def test_an_error_can_be_copied():
    """As any exception that travels between processes."""
    error = copy.copy(ConversionError("zuko", [("1 X", "it is one")]))
    assert error.layers == (("1 X", "it is one"),) and "1 X: it is one" in str(error)
