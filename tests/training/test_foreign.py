"""Flows of other libraries in `fit`: trained in place by their own log_prob."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import kappaflow as kf
from interop import foreign
from kappaflow.errors import ArgumentError, DataWarning, FileError

X = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([
    [1.0, 0.5],
    [0.0, 1.0],
])
QUICK = {"max_epochs": 4, "progress": False, "learning_rate": 0.05}


class Theirs(nn.Module):
    """A flow of no library: a triangular map and its own log_prob, which counts its calls."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(2))
        self.slope = nn.Parameter(torch.zeros(()))
        self.calls = 0

    def encode(self, x):
        z = torch.stack((x[:, 0], x[:, 1] + self.slope * x[:, 0]), 1) * self.log_scale.exp()
        return z, self.log_scale.sum().expand(len(x))

    def decode(self, z):
        y = z * (-self.log_scale).exp()
        x = torch.stack((y[:, 0], y[:, 1] - self.slope * y[:, 0]), 1)
        return x, -self.log_scale.sum().expand(len(z))

    def log_prob(self, x):
        self.calls += x.requires_grad or torch.is_grad_enabled()
        z, log_det = self.encode(x)
        return -0.5 * z.square().sum(1) - math.log(2 * math.pi) + log_det


class Interrupt(kf.training.Callback):
    """Stops a training after an epoch, as Ctrl-C does."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch(self, flow, figures):
        if figures["epoch"] == self.epoch:
            raise KeyboardInterrupt


def losses(result):
    return [line["train_nll"] for line in result.history]


def test_a_flow_is_trained_by_its_own_log_prob():
    """It is the one that was given, and its best weights are in it."""
    flow = Theirs()
    start = flow.log_prob(X).mean().item()
    flow.calls = 0
    result = kf.fit(flow, X, **QUICK)
    assert flow.calls == 4 * 3  # epochs of three steps
    assert flow.log_prob(X).mean().item() > start + 0.03
    assert result.flow.original == (flow,) and not flow.training
    assert result.validation_nll == result.history[result.best_epoch - 1]["validation_nll"]
    assert result.history[-1]["condition_number_median"] > 1
    calls = flow.calls
    result.flow.log_prob(X)
    assert flow.calls == calls  # by the layers, as the doctor compares it with the library


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path):
    out = tmp_path / "run"
    expected = kf.fit(Theirs(), X, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        kf.fit(Theirs(), X, out=out, callbacks=[Interrupt(2)], **QUICK)
    flow = Theirs()
    result = kf.fit(flow, X, out=out, **QUICK)
    assert losses(result) == losses(expected)
    finished = Theirs()
    kf.fit(finished, X, out=out, **QUICK)
    assert torch.equal(finished.log_scale, flow.log_scale)
    other = Theirs()
    kf.wrap(other, X).load_state_dict(load_file(out / "model.safetensors"))
    assert torch.equal(other.log_scale, flow.log_scale)
    with pytest.raises(FileError, match="Theirs of functions, whose code no file holds: build"):
        kf.load(out)


class Wider(Theirs):
    """Another flow, with another parameter."""

    def __init__(self):
        super().__init__()
        self.more = nn.Parameter(torch.zeros(3))


class Stateful(Theirs):
    """Its state holds something that is not a tensor."""

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def test_a_run_of_another_flow_is_not_resumed(tmp_path):
    kf.fit(Theirs(), X, out=tmp_path / "run", **QUICK)
    with pytest.raises(ArgumentError, match="'out' should be a new folder: .* class"):
        kf.fit(Wider(), X, out=tmp_path / "run", **QUICK)
    with pytest.raises(ArgumentError, match="'out' should be left out: the state of .* a dict"):
        kf.fit(Stateful(), X, out=tmp_path / "other", **QUICK)


def test_data_of_another_scale_draws_a_warning():
    """Flows of other libraries do not standardize."""
    with pytest.warns(DataWarning, match=r"column 'x1' has mean 1e\+03 .* pass \(x - mean\)"):
        kf.fit(Theirs(), X + torch.tensor([0.0, 1000.0]), max_epochs=1, progress=False)


def test_what_is_not_a_flow_is_refused_in_one_sentence():
    with pytest.raises(ArgumentError, match="'flow' should be a Flow, a flow of zuko, .* Linear"):
        kf.fit(nn.Linear(2, 2), X)
    with pytest.raises(ArgumentError, match="should be a table in memory for a flow of another"):
        kf.fit(Theirs(), "digits")


LIBRARIES = {
    "zuko": lambda: foreign.zuko_flow("NSF"),
    "zuko with a context": lambda: foreign.zuko_flow("MAF", foreign.CONTEXT),
    "nflows": lambda: foreign.nflows_flow("RealNVP"),
    "normflows": lambda: foreign.normflows_flow("RealNVP"),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated")
@pytest.mark.parametrize("name", LIBRARIES)
def test_flows_of_libraries_are_trained_and_their_weights_come_back(name, tmp_path):
    pytest.importorskip(name.partition(" ")[0])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, foreign.FEATURES, generator=generator).double()
    context = torch.randn(300, foreign.CONTEXT, generator=generator).double()
    data = (x, context) if "context" in name else x
    flow, again = LIBRARIES[name](), LIBRARIES[name]()
    result = kf.fit(flow, data, out=tmp_path, **QUICK)
    assert result.validation_nll < result.history[0]["validation_nll"]
    kf.fit(again, data, out=tmp_path, **QUICK)
    states = flow.state_dict(), again.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.boundary
def test_a_context_that_a_flow_does_not_expect_is_refused_in_a_sentence():
    """Not by the error of a matrix product in the library."""
    zuko = pytest.importorskip("zuko")
    for flow, data in (
        (zuko.flows.MAF(2, context=1, transforms=1), torch.randn(90, 2)),
        (zuko.flows.MAF(2, transforms=1), (torch.randn(90, 2), torch.randn(90, 1))),
    ):
        with pytest.raises(kf.errors.ArgumentError, match=r"pass x, or \(x, context\)"):
            kf.fit(flow, data, max_epochs=1, progress=False)
