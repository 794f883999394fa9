"""Memory modes: what is kept for the backward pass."""

import gc

import torch

import kappaflow as kf
from kappaflow.memory import memory_modes_bypassed, run_layer
from kappaflow.testing.contract import jittered


def calls_in_backward(memory, *, bypassed=False):
    """Returns how often the layer runs, forward and backward together."""
    calls = []

    def layer(x):
        calls.append(1)
        return x.sin() * x

    x = torch.randn(3, requires_grad=True)
    if bypassed:
        with memory_modes_bypassed():
            run_layer(memory, layer, x).sum().backward()
    else:
        run_layer(memory, layer, x).sum().backward()
    return len(calls)


def test_recompute_runs_a_layer_again_and_store_does_not():
    """Once forward; once more in the backward pass where it was not kept."""
    assert calls_in_backward("store") == 1
    assert calls_in_backward("recompute") == 2


def test_modes_are_bypassed_on_request():
    """Linearizations run plain autograd, whatever the mode."""
    assert calls_in_backward("recompute", bypassed=True) == 1


def test_nothing_is_recomputed_without_gradients():
    """Scoring pays for neither mode."""
    with torch.no_grad():
        assert run_layer("recompute", torch.sin, torch.zeros(2)).grad_fn is None


def saved_bytes(memory):
    """Returns the bytes of tensors that the graph of one log_prob keeps, parameters left out."""
    flow = jittered(kf.real_nvp(8, depth=16, hidden=(64, 64), memory=memory))
    own = {p.untyped_storage().data_ptr() for p in flow.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = flow.log_prob(torch.randn(512, 8)).sum()
    total = sum(kept.values())
    del loss
    gc.collect()
    return total


def test_recompute_keeps_a_fraction_of_what_store_keeps():
    """Hidden activations of 16 couplings are not kept."""
    assert saved_bytes("recompute") < saved_bytes("store") / 5
