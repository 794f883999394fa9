"""`convert`: the same function as the original, and a `Flow` like any other."""

import numpy as np
import pytest
import torch
from torch import nn

import kappaflow as kf
from cases import alternating
from interop import coupling_flows

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


def random_flow(name, seed=0):
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


@pytest.mark.parametrize(("name", "seed"), alternating(ALL, 0, 1))
@torch.no_grad()
def test_a_converted_flow_is_the_same_function(name, seed):
    """log_prob and both directions agree, and the original is unchanged."""
    original, conditional = random_flow(name, seed)
    before = copied_state(original)
    flow = kf.convert(original)
    torch.testing.assert_close(original.state_dict(), before, rtol=0, atol=0)
    assert type(flow) is kf.Flow and flow.dtype == torch.float64 and not flow.training
    x, context = rows(flow, conditional)
    wrapped = kf.wrap(original, x, context)
    log_prob, own = flow.log_prob(x, context), wrapped.own_log_prob(x, context)
    assert torch.allclose(log_prob, wrapped.log_prob(x, context), 0, 1e-10)
    assert own is None or torch.allclose(log_prob, own, 0, 1e-10)
    z, log_det = flow.bijection(x, context)
    back, inverse = flow.bijection.inverse(z, context)
    assert torch.allclose(back, x, 0, 1e-10) and torch.allclose(inverse, -log_det, 0, 1e-10)
    mean, deviation = moments(name, original)
    assert torch.allclose(z * deviation + mean, wrapped.bijection(x, context)[0], 0, 1e-10)
    if name != "nflows linear maps":  # its NaiveLinear calls what torch has removed
        theirs = wrapped.bijection.inverse(z * deviation + mean, context)[0]
        assert torch.allclose(back, theirs, 0, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", STACKS)
def test_couplings_run_as_stacks(name):
    """Norms and scalings between couplings are folded into their networks."""
    flow = kf.convert(random_flow(name)[0])
    stacks = [part for part in flow.modules() if isinstance(part, kf.CouplingStack)]
    assert len(stacks) == STACKS[name]
    inside = {layer for stack in stacks for layer in stack}
    assert {part for part in flow.modules() if isinstance(part, kf.AffineCoupling)} <= inside
    assert sum(isinstance(part, kf.bijections.ElementwiseAffine) for part in flow.modules()) <= 1


@pytest.mark.parametrize("name", ALL)
def test_a_converted_flow_is_trained_saved_and_loaded(name, tmp_path):
    """Training lowers the loss, the file keeps the function, the original is unchanged."""
    original, conditional = random_flow(name)
    before = copied_state(original)
    flow = kf.convert(original)
    x, context = rows(flow, conditional, 32)
    optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], 1e-3)
    losses = []
    for _ in range(4):
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
    torch.testing.assert_close(original.state_dict(), before, rtol=0, atol=0)


def test_dtype_and_mode_are_kept():
    """A float32 flow in training mode stays one."""
    original = coupling_flows.zuko_flow("RealNVP").float().train()
    flow = kf.convert(original)
    assert flow.dtype == torch.float32 and flow.training
    x = torch.randn(5, coupling_flows.FEATURES)
    assert torch.allclose(flow.log_prob(x), original().log_prob(x), atol=1e-4)


def test_standardizing_transforms_are_the_standardization_of_the_flow():
    """They come first and are fitted, so conditioning is measured after them."""
    flow = kf.convert(random_flow("nflows linear maps")[0])
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
    flow = kf.convert(original)
    assert original.training and flow.training
    x, _ = rows(flow, False)
    wrapped = kf.wrap(original.eval(), x)
    assert torch.allclose(flow.log_prob(x), wrapped.log_prob(x), 0, 1e-10)
