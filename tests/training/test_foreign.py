"""Flows of other libraries in `fit`: trained in place by their own log_prob."""

import pytest
import torch
from safetensors.torch import load_file
from tests.training.examples import Theirs
from torch import nn

import kappaflow as kf
from interop import foreign
from kappaflow.errors import ArgumentError, DataWarning, FileError

X = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([
    [1.0, 0.5],
    [0.0, 1.0],
])
QUICK = {"max_epochs": 4, "progress": False, "learning_rate": 0.05}


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


def test_a_run_folder_holds_the_weights_and_not_the_code(tmp_path):
    flow, other = Theirs(), Theirs()
    kf.fit(flow, X, out=tmp_path / "run", **QUICK)
    kf.wrap(other, X).load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))
    assert torch.equal(other.log_scale, flow.log_scale)
    with pytest.raises(FileError, match="Theirs of functions, whose code no file holds: build"):
        kf.load(tmp_path / "run")
    with pytest.raises(ArgumentError, match="'out' should be a new folder: .* class"):
        kf.fit(Wider(), X, out=tmp_path / "run", **QUICK)
    with pytest.raises(ArgumentError, match="'out' should be left out: the state of .* a dict"):
        kf.fit(Stateful(), X, out=tmp_path / "other", **QUICK)


def test_data_of_another_scale_draws_a_warning():
    """Flows of other libraries do not standardize."""
    with pytest.warns(DataWarning, match=r"column 'x1' has mean 1e\+03 .* pass \(x - mean\)"):
        kf.fit(Theirs(), X + torch.tensor([0.0, 1000.0]), max_epochs=1, progress=False)


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
