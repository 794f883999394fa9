"""Checks of the state: each finds its planted fault and is silent elsewhere."""

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import FEATURES, SEEDS, Right, findings, moved, points


class Cached(Right):
    """Caches the scale of a last layer, and clears it in train() or never."""

    def __init__(self, seed, *, lets_go):
        super().__init__(seed)
        self.log_scale = torch.nn.Parameter(torch.full((FEATURES,), 0.1))
        self.kept, self.lets_go = None, lets_go

    def train(self, mode=True):
        if self.lets_go and mode:
            self.kept = None
        return super().train(mode)

    def scale(self):
        if self.kept is None:
            self.kept = self.log_scale.exp()
        return self.kept

    def encode(self, x):
        z, log_det = super().encode(x)
        return z * self.scale(), log_det + self.log_scale.sum()

    def decode(self, z):
        x, log_det = super().decode(z / self.scale())
        return x, log_det - self.log_scale.sum()


@pytest.mark.slow
@SEEDS
def test_a_stale_cache_is_found(seed):
    """KF211; a cache that is cleared in train() gives no finding."""
    found = findings(Cached(seed, lets_go=False), points(seed))
    assert set(found) == {"KF211"} and found["KF211"].severity == "error"
    assert found["KF211"].evidence["worst"] > 1e-3
    assert findings(Cached(seed, lets_go=True), points(seed)) == {}


def test_the_layer_of_a_stale_value_is_named():
    """The second of two is named."""

    class Keeping(kf.bijections.ElementwiseAffine):
        def forward(self, x, context=None):
            if not hasattr(self, "kept"):
                self.kept = super().forward(torch.ones_like(x[:1]))[0]
            return x * self.kept, super().forward(x)[1]

    layer = Keeping(FEATURES, shift=[0.0] * FEATURES)
    flow = kf.Flow(
        kf.StandardNormal(FEATURES), kf.Chain([kf.bijections.ElementwiseAffine(FEATURES), layer])
    )
    assert findings(flow, points())["KF211"].layer == "2 Keeping"


class Shuffled(Right):
    """Permutes the features randomly; the permutation may be a buffer."""

    def __init__(self, seed, *, saved, drawn_at=None):
        super().__init__(seed)
        generator = torch.Generator().manual_seed(seed if drawn_at is None else drawn_at)
        order = torch.randperm(FEATURES, generator=generator)
        self.register_buffer("order", order, persistent=saved)

    def encode(self, x):
        return super().encode(x[:, self.order])

    def decode(self, z):
        x, log_det = super().decode(z)
        return x[:, self.order.argsort()], log_det


@pytest.mark.slow
@SEEDS
def test_state_that_is_not_saved_is_found_if_the_flow_can_be_rebuilt(seed):
    """KF212 with its size; none for a buffer or an equal permutation."""
    flow = Shuffled(seed, saved=False)
    orders = (torch.randperm(4, generator=torch.Generator().manual_seed(i)) for i in range(99))
    other = next(i for i, order in enumerate(orders) if (order != flow.order).any())
    assert findings(flow, points(seed)) == {}
    found = findings(
        flow, points(seed), make=lambda: Shuffled(seed + 1, saved=False, drawn_at=other)
    )
    assert set(found) == {"KF212"} and found["KF212"].severity == "error"
    again = Shuffled(seed, saved=False, drawn_at=other)
    worst = (
        (
            kf.wrap(again, points()).log_prob(points(seed))
            - kf.wrap(flow, points()).log_prob(points(seed))
        )
        .abs()
        .max()
    )
    assert found["KF212"].evidence["worst_nats"] == pytest.approx(worst.item(), rel=1e-4)
    saved = Shuffled(seed, saved=True)
    make = lambda: Shuffled(seed + 1, saved=True, drawn_at=other)  # noqa: E731
    assert findings(saved, points(seed), make=make) == {}


def test_a_state_that_cannot_be_loaded_is_found():
    """KF212: another number of layers."""
    found = findings(Right(0), points(), make=lambda: torch.nn.Linear(2, 2))["KF212"]
    assert "cannot load" in found.message and "Linear" in found.message


@pytest.mark.slow
def test_the_state_of_kappaflow_flows_is_complete():
    """With mixing layers, rebuilt at another seed."""
    flow = kf.real_nvp(6, depth=4, hidden=(8,), couplings={"mixing": "lu", "seed": 1})
    make = lambda: kf.real_nvp(6, depth=4, hidden=(8,), couplings={"mixing": "lu", "seed": 2})  # noqa: E731
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    assert "KF212" not in findings(flow, x, make=make)


class Starting(Right):
    """Takes its scale from the first batch or from each one."""

    def __init__(self, seed, *, once):
        super().__init__(seed)
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


@pytest.mark.slow
@SEEDS
def test_initialization_from_the_first_batch_is_noted(seed):
    """KF401 with the part; the flow itself stays uninitialized."""
    flow = Starting(seed, once=True)
    found = findings(flow, points(seed))
    assert set(found) == {"KF401"} and found["KF401"].layer == "the flow"
    assert not flow.started
    flow.encode(points(seed))
    assert findings(flow, points(seed)) == {}


@SEEDS
def test_initialization_at_each_call_is_found(seed):
    """KF402 names what changes."""
    found = findings(Starting(seed, once=False), points(seed))
    assert found["KF402"].severity == "warning"
    assert found["KF402"].evidence["changed"] == "scale"
    assert "KF211" not in found and "KF401" not in found


def test_an_uninitialized_norm_of_another_library_is_noted():
    """Norms of normflows and FrEIA are recognized by their effect, not their names."""
    nf = pytest.importorskip("normflows")
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.ActNorm(4)] * 1)
    found = findings(flow, points())
    assert found["KF401"].layer == "flows.0"
    with torch.no_grad():
        flow.log_prob(points())
    assert "KF401" not in findings(flow, points())


@pytest.mark.slow
def test_kappaflow_flows_are_diagnosed_as_a_copy():
    """A user's bijection that changes when called stays unchanged."""

    class Counting(kf.bijections.ElementwiseAffine):
        calls = 0

        def forward(self, x, context=None):
            self.calls += 1
            return super().forward(x, context)

    layer = Counting(FEATURES)
    findings(kf.Flow(kf.StandardNormal(FEATURES), layer), points())
    assert layer.calls == 0
    assert findings(moved(0), points()) == {}
