"""Checks of the state, where the truth table plants no such fault."""

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import FEATURES, Right, alone, findings, moved, points


class Clearing(Right):
    """Keeps the scale of its first call until train() is called."""

    def __init__(self):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.full((FEATURES,), 0.1))
        self.kept = None

    def train(self, mode=True):
        self.kept = None if mode else self.kept
        return super().train(mode)

    def scale(self):
        self.kept = self.log_scale.exp() if self.kept is None else self.kept
        return self.kept

    def encode(self, x):
        z, log_det = super().encode(x)
        return z * self.scale(), log_det + self.log_scale.sum()

    def decode(self, z):
        x, log_det = super().decode(z / self.scale())
        return x, log_det - self.log_scale.sum()


def test_what_is_cleared_or_never_moves_is_not_stale():
    """A cache that train() clears, and a flow whose parameters are all frozen."""
    assert findings(Clearing()) == {}
    assert "KF211" not in findings(moved().requires_grad_(False))


def test_the_layer_of_a_stale_value_is_named():
    """The second of two is named."""

    class Keeping(kf.bijections.ElementwiseAffine):
        def forward(self, x, context=None):
            if not hasattr(self, "kept"):
                self.kept = super().forward(torch.ones_like(x[:1]))[0]
            return x * self.kept, super().forward(x)[1]

    finding = findings(alone(kf.bijections.ElementwiseAffine(FEATURES), Keeping(FEATURES)))
    assert finding["KF211"].layer == "2 Keeping"
    assert finding["KF211"].severity == "error" and finding["KF211"].evidence["worst"] > 1e-3


class Shuffled(Right):
    """Permutes the features; the permutation may be stored."""

    def __init__(self, *order, stored):
        super().__init__()
        self.register_buffer("order", torch.tensor(order), persistent=stored)

    def encode(self, x):
        return super().encode(x[:, self.order])

    def decode(self, z):
        x, log_det = super().decode(z)
        return x[:, self.order.argsort()], log_det


def test_state_that_is_not_saved_is_found_if_the_flow_can_be_rebuilt():
    """KF212 with its size; none without a function, for a buffer, or for kappaflow's layers."""
    flow, other = (Shuffled(*order, stored=False) for order in ((0, 1, 2, 3), (1, 2, 3, 0)))
    assert findings(flow) == {}
    by_code = findings(flow, make=lambda: other)
    assert set(by_code) == {"KF212"} and by_code["KF212"].severity == "error"
    a, b = (kf.wrap(each, points()).log_prob(points()) for each in (flow, other))
    worst = (a - b).abs().max().item()
    assert by_code["KF212"].evidence["worst_nats"] == pytest.approx(worst, rel=1e-4)
    saved = Shuffled(0, 1, 2, 3, stored=True)
    assert findings(saved, make=lambda: Shuffled(1, 2, 3, 0, stored=True)) == {}
    mixing = [{"mixing": "lu", "seed": seed} for seed in (1, 2)]
    flow, other = (
        kf.real_nvp(FEATURES, depth=4, hidden=(8,), couplings=options) for options in mixing
    )
    assert "KF212" not in findings(flow, make=lambda: other)


def test_a_state_that_cannot_be_loaded_is_found():
    """KF212: another number of layers."""
    finding = findings(Right(), make=lambda: torch.nn.Linear(2, 2))["KF212"]
    assert "cannot load" in finding.message and "Linear" in finding.message


class Starting(Right):
    """Takes its scale from the first batch or from each one."""

    def __init__(self, *, once):
        super().__init__()
        self.register_buffer("scale", torch.ones(FEATURES))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.once = once

    def start(self, x):
        if not self.started or not self.once:
            self.scale.copy_(self.scale * 0.5 + x.std(0) if not self.once else x.std(0))
            self.started.fill_(self.once)

    def encode(self, x):
        self.start(x)
        z, log_det = super().encode(x / self.scale)
        return z, log_det - self.scale.log().sum()

    def decode(self, z):
        x, log_det = super().decode(z)
        return x * self.scale, log_det + self.scale.log().sum()


def test_initialization_from_the_first_batch_is_noted():
    """KF401 with the part; the flow itself stays uninitialized."""
    flow = Starting(once=True)
    by_code = findings(flow)
    assert set(by_code) == {"KF401"} and by_code["KF401"].layer == "the flow"
    assert not flow.started
    flow.encode(points())
    assert findings(flow) == {}


def test_initialization_at_each_call_is_found():
    """KF402 names what changes."""
    by_code = findings(Starting(once=False))
    assert by_code["KF402"].severity == "warning"
    assert by_code["KF402"].evidence["changed"] == "scale"
    assert "KF211" not in by_code and "KF401" not in by_code


def test_an_uninitialized_norm_of_another_library_is_noted():
    """Norms are recognized by their effect; the calls that the fix names initialize them."""
    nf = pytest.importorskip("normflows")
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.ActNorm(4)])
    finding = findings(flow)["KF401"]
    assert finding.layer == "flows.0"
    assert "flow.train(); flow.log_prob(x); flow.eval()" in finding.fix
    flow.train()
    flow.log_prob(points())
    flow.eval()
    assert "KF401" not in findings(flow)


@pytest.mark.slow
def test_kappaflow_flows_are_diagnosed_as_a_copy():
    """A user's bijection that changes when called stays unchanged."""

    class Counting(kf.bijections.ElementwiseAffine):
        calls = 0

        def forward(self, x, context=None):
            self.calls += 1
            return super().forward(x, context)

    layer = Counting(FEATURES)
    findings(alone(layer))
    assert layer.calls == 0
