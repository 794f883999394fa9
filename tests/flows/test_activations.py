"""Activations of recipes: by name, function, class and module."""

import copy

import pytest
import torch
from torch import nn

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.flows.recipe import from_options
from kappaflow.nets.activations import ACTIVATIONS, MODULES, activation_of, has_default_arguments
from kappaflow.testing.contract import jittered

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))


def flow_of(activation, recipe=kf.real_nvp, **arguments):
    torch.manual_seed(0)
    return jittered(
        from_options(recipe, 3, depth=2, hidden=(8, 8), activation=activation, **arguments)
    )


def test_each_name_is_that_of_a_module():
    """And computes what the module computes."""
    assert tuple(MODULES.values()) == ACTIVATIONS
    assert all(has_default_arguments(kind()) for kind in MODULES)
    assert not has_default_arguments(nn.LeakyReLU(0.5))
    half = activation_of("leaky_relu", 0.5)(X)
    assert torch.equal(half, nn.LeakyReLU(0.5)(X))


@pytest.mark.parametrize("recipe", [kf.real_nvp, kf.nice, kf.spline])
def test_names_functions_classes_and_modules_are_the_same_flow(recipe, tmp_path):
    named = flow_of("silu", recipe)
    assert not torch.equal(named.log_prob(X), flow_of("relu", recipe).log_prob(X))
    for other in (nn.SiLU, nn.SiLU(), nn.functional.silu):
        assert torch.equal(flow_of(other, recipe).log_prob(X), named.log_prob(X))
    kf.save(flow_of(nn.SiLU(), recipe, partition="random"), tmp_path)
    loaded = kf.load(tmp_path)
    assert torch.equal(loaded.log_prob(X), flow_of("silu", recipe, partition="random").log_prob(X))


def test_relu_stays_a_stack():
    for relu in ("relu", nn.ReLU(), torch.relu):
        assert isinstance(list(flow_of(relu).bijection)[1], kf.CouplingStack)
    stacked, chained = flow_of("relu"), flow_of("gelu")
    assert isinstance(list(chained.bijection)[1], kf.Chain)
    assert [*stacked.state_dict()] == [*chained.state_dict()]


@kf.register("test_activations.Sine")
class Sine(nn.Module):
    """An activation of one's own, with a frequency that is learned."""

    def __init__(self, frequency=1.0):
        super().__init__()
        self.frequency = nn.Parameter(torch.tensor(frequency))

    def forward(self, x):
        return (self.frequency * x).sin()


def test_a_module_of_ones_own_is_copied_trained_and_saved(tmp_path):
    sine = Sine(2.0)
    flow = flow_of(sine)
    frequencies = [p for name, p in flow.named_parameters() if "frequency" in name]
    assert len({id(p) for p in frequencies}) == 2 and sine.frequency is not frequencies[0]
    before = copy.deepcopy([p.item() for p in frequencies])
    kf.fit(flow, torch.randn(200, 3), max_epochs=2, progress=False)
    assert all(p.item() != value for p, value in zip(frequencies, before, strict=True))
    kf.save(flow, tmp_path / "own")
    assert torch.equal(kf.load(tmp_path / "own").log_prob(X), flow.log_prob(X))
    with pytest.raises(ArgumentError, match="a PReLU cannot be written .* register its class"):
        kf.save(flow_of(nn.PReLU()), tmp_path / "other")


def test_flows_of_other_activations_keep_the_contract():
    flow = flow_of("tanh", mixing="lu", residual=True, context_features=1).double()
    kf.testing.check_flow(flow, X[:4].double(), X[:4, :1].double())


def test_what_is_no_activation_is_refused_in_one_sentence():
    with pytest.raises(ArgumentError, match="'activation' should be one of 'relu'.* got 'swish'"):
        flow_of("swish")
    for wrong in (3, lambda x: x):
        with pytest.raises(ArgumentError, match=r"'sigmoid' or a torch.nn.Module, got"):
            flow_of(wrong)


@pytest.mark.slow
def test_networks_of_zuko_take_an_activation():
    pytest.importorskip("zuko")
    for activation in ("silu", nn.SiLU, nn.SiLU()):
        flow = kf.zuko_flow(3, "maf", depth=1, hidden=(4,), activation=activation)
        assert any(isinstance(part, nn.SiLU) for part in flow.modules())
