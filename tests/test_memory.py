"""Memory modes: what is kept for the backward pass."""

from contextlib import nullcontext

import pytest
import torch

import kappaflow as kf
from cases import affine
from kappaflow.autograd.checkpoint import memory_modes_bypassed
from kappaflow.testing.contract import jittered


class Counting(torch.nn.Module):
    """A conditioner that counts its calls."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = torch.nn.Linear(2, 4), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x).sin()


def calls(memory, *, bypassed=False, grad=True):
    """Returns how often a conditioner runs in the forward and the backward pass of a chain."""
    net = Counting()
    chain = kf.Chain([kf.AffineCoupling(kf.Partition.half(4), net)], memory=memory)
    with memory_modes_bypassed() if bypassed else nullcontext(), torch.set_grad_enabled(grad):
        z, log_det = chain(torch.randn(3, 4))
        if grad:
            (z.sum() + log_det.sum()).backward()
    return net.calls


def test_recompute_runs_a_layer_again_and_store_does_not():
    """Once forward; once more in the backward pass where it was not kept."""
    assert calls("store") == 1
    assert calls("recompute") == 2


def test_modes_are_bypassed_on_request():
    """Linearizations run plain autograd, whatever the mode."""
    assert calls("recompute", bypassed=True) == 1


def test_nothing_is_recomputed_without_gradients():
    """Scoring pays for neither mode."""
    assert calls("recompute", grad=False) == 1


def saved_bytes(memory):
    """Returns the bytes of tensors that the graph of 16 couplings keeps, parameters left out."""
    turns = (kf.Partition.half(8), kf.Partition.half(8).swapped())
    parts = [affine(turns[i % 2], (64, 64), scale_bound=0.4) for i in range(16)]
    chain = jittered(kf.Chain(parts, memory=memory))
    own = {p.untyped_storage().data_ptr() for p in chain.parameters()}
    pending, seen, sizes = [sum(a.sum() for a in chain(torch.randn(512, 8))).grad_fn], set(), {}
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        pending += [following for following, _ in node.next_functions]
        kept = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for tensor in [*kept, *getattr(node, "saved_tensors", ())]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
    return sum(size for place, size in sizes.items() if place not in own)


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
    coupling = kf.AffineCoupling(kf.Partition.half(4), net)
    return kf.Chain([coupling], memory=memory).train()


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


def test_a_functional_call_keeps_its_parameters_until_the_backward_pass():
    """The layers run once, also where one of them reads a tensor from outside of the chain."""

    class Reading(torch.nn.Module):
        def __init__(self, outside):
            super().__init__()
            self.linear, self.outside = torch.nn.Linear(2, 4), [outside]

        def forward(self, x):
            return (self.linear(x) * self.outside[0]).sin()

    outside = torch.tensor(1.5, requires_grad=True)
    half, gradients = kf.Partition.half(4), {}
    parts = [kf.AffineCoupling(part, Reading(outside)) for part in (half, half.swapped())]
    x = torch.randn(8, 4)
    for memory in ("store", "recompute"):
        chain = kf.Chain(parts, memory=memory)
        twice = {name: (2 * p).detach() for name, p in chain.named_parameters()}
        leaves = [outside, *(p.requires_grad_() for p in twice.values())]
        z, log_det = torch.func.functional_call(chain, twice, (x,))
        gradients[memory] = torch.autograd.grad(z.square().sum() - log_det.sum(), leaves)
    torch.testing.assert_close(gradients["recompute"], gradients["store"])
