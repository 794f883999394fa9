"""Memory modes: what is kept for the backward pass."""

import gc

import pytest
import torch

import kappaflow as kf
from cases import affine
from kappaflow.autograd.checkpoint import memory_modes_bypassed, run_layer
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
    """Returns the bytes of tensors that the graph of 16 couplings keeps, parameters left out."""
    turns = (kf.Partition.half(8), kf.Partition.half(8).swapped())
    parts = [affine(turns[i % 2], (64, 64), scale_bound=0.4, memory=memory) for i in range(16)]
    chain = jittered(kf.Chain(parts))
    own = {p.untyped_storage().data_ptr() for p in chain.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = sum(answer.sum() for answer in chain(torch.randn(512, 8)))
    total = sum(kept.values())
    del loss
    gc.collect()
    return total


@pytest.mark.slow
def test_recompute_keeps_a_fraction_of_what_store_keeps():
    """Hidden activations of 16 couplings are not kept."""
    assert saved_bytes("recompute") < saved_bytes("store") / 5


def normalising(memory):
    """Returns a coupling in training mode whose conditioner normalises by batch statistics."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.BatchNorm1d(8), torch.nn.SiLU(), torch.nn.Linear(8, 4)
    )
    return kf.AffineCoupling(kf.Partition.half(4), net, memory=memory).train()


def test_a_batch_is_counted_once_when_its_layer_runs_twice():
    """Running statistics after a training step are those of one pass, and so are gradients."""
    found = {}
    for memory in ("store", "recompute"):
        coupling = normalising(memory)
        x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
        z, log_det = coupling(x)
        (z.square().sum() - log_det.sum()).backward(retain_graph=True)
        (z.square().sum() - log_det.sum()).backward()
        found[memory] = [*coupling.buffers(), *(p.grad for p in coupling.parameters())]
    assert found["recompute"][2] == 1
    assert all(torch.equal(a, b) for a, b in zip(*found.values(), strict=True))
