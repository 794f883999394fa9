"""Parameters of flows with stacks are those of ordinary layers, for all that reads parameters."""

import contextlib
import copy

import pytest
import torch
from torch import nn

import kappaflow as kf
from kappaflow.training.optimizer import AdamW
from stack.examples import assert_alike, points, result_of, same, stack_of

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


def flow(seed=0):
    """Returns a flow off its start, whose first map is a `Standardize`."""
    torch.manual_seed(seed)
    result = kf.real_nvp(4, depth=6, hidden=(8,))
    with torch.no_grad():
        for parameter in result.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return result


def loss(module, x=X):
    """Returns the mean negative log-density."""
    return -module.log_prob(x).mean()


def is_fast(stack, x=X):
    """Returns whether a stack runs in blocks, and in the memory of its parameters."""
    weights = stack._weights(x)
    return bool(weights) and all(part.stacked is not None for part in weights)


def test_layers_are_reached_by_index():
    """Numbers from both ends, slices and loops, as in a list."""
    stack = flow().bijection[-1]
    assert stack[3] is list(stack)[3]
    assert stack[-1] is list(stack)[-1]
    assert [type(part) for part in stack] == [kf.AffineCoupling] * len(stack)
    torch.testing.assert_close(stack[3:](stack[:3](X)[0])[0], stack(X)[0])
    assert stack[:3][1] is stack[1]
    with pytest.raises(IndexError, match="between -6 and 5, got -7: this CouplingStack has 6"):
        stack[-7]


def test_a_frozen_layer_stays():
    """Training moves the other layers only, also with weight decay and inside `fit`."""
    trained = flow()
    stack = trained.bijection[1]
    stack[2].requires_grad_(False)
    before = [p.clone() for p in stack[2].parameters()]
    others = [p.clone() for p in stack[3].parameters()]
    optimizer = torch.optim.AdamW(trained.parameters(), weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss(trained).backward()
        optimizer.step()
    assert is_fast(stack)
    kf.fit(trained, X.repeat(4, 1) + 0.1 * torch.randn(80, 4), max_epochs=2)
    assert all(map(torch.equal, stack[2].parameters(), before))
    assert not any(map(torch.equal, stack[3].parameters(), others))
    assert not any(p.requires_grad for p in stack[2].parameters())


def test_writes_to_a_layer_are_seen():
    """In place, and by `data`; other memory is slower and right."""
    stack = stack_of(4, 3, hidden=(5,))
    x, _ = points(stack, 6)
    with torch.no_grad():
        stack[1].conditioner.layers[0].weight += 1
    assert is_fast(stack, x)
    assert_alike(result_of(stack, "forward", x), result_of(stack.to_chain(), "forward", x), 1e-11)
    layer = stack[1].conditioner.layers[0]
    layer.weight.data = layer.weight.data.mT.contiguous().mT  # not side by side any more
    assert stack._weights(x)
    assert not is_fast(stack, x)
    assert_alike(result_of(stack, "forward", x), result_of(stack.to_chain(), "forward", x), 1e-11)
    assert is_fast(copy.deepcopy(stack), x)


@pytest.mark.parametrize("part", ["coupling", "network", "linear"])
def test_hooks_of_a_layer_run(part):
    """While there are hooks the layers run one by one; the next call without is fast again."""
    stack = stack_of(4, 3, hidden=(5,))
    x, _ = points(stack, 6)
    expected = result_of(stack, "forward", x)
    module = {"coupling": stack[1], "network": stack[1].conditioner}.get(
        part, stack[1].conditioner.layers[0]
    )
    called = []
    handle = module.register_forward_hook(lambda *_: called.append(part))
    assert_alike(result_of(stack, "forward", x), expected, 1e-11)
    assert called == [part]
    copied = copy.deepcopy(stack)
    handle.remove()
    assert same(result_of(stack, "forward", x), expected)
    assert called == [part]
    assert not is_fast(copied, x)


def test_an_attribute_that_nothing_reads_costs_nothing():
    """A name or a tag at a layer leaves the stack fast."""
    stack = stack_of(4, 3, hidden=(5,))
    x, _ = points(stack, 6)
    stack[1].tag = "mine"
    stack[1].conditioner.layers[0].tag = "mine"
    assert is_fast(stack, x)


def test_parameters_are_side_by_side_after_moves(tmp_path):
    """Conversions, copies, loads and shared memory leave a stack fast."""
    x = X.double()
    moved = flow().double()
    assert is_fast(moved.bijection[1], x)
    assert is_fast(copy.deepcopy(moved).float().bijection[1])
    torch.save(moved, tmp_path / "flow.pt")
    loaded = torch.load(tmp_path / "flow.pt", weights_only=False)
    assert is_fast(loaded.bijection[1], x)
    assert torch.equal(loaded.log_prob(x), moved.log_prob(x))
    assert is_fast(moved.share_memory().bijection[1], x)
    first = next(moved.bijection[1].parameters())
    assert first.is_shared()
    kf.save(moved, tmp_path / "model")
    assert is_fast(kf.load(tmp_path / "model").bijection[1], x)


def test_copies_are_deep():
    """Hooks, tags, parameters and what shares them are copied together, and apart."""
    stack = stack_of(4, 3, hidden=(5,))
    x, _ = points(stack, 6)
    stack[0].tags = ["mine"]
    stack[2].requires_grad_(False)
    other, parameters = copy.deepcopy((stack, list(stack.parameters())))
    assert all(a is b for a, b in zip(other.parameters(), parameters, strict=True))
    assert [p.requires_grad for p in parameters] == [p.requires_grad for p in stack.parameters()]
    assert same(result_of(other[:2], "forward", x), result_of(stack[:2], "forward", x))
    other[0].tags.append("theirs")
    other[0].register_forward_hook(lambda *_: pytest.fail("the hook of the copy ran"))
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    assert stack[0].tags == ["mine"]
    assert is_fast(stack, x)
    assert all(p.any() for p in stack[0].parameters())
    stack(x)


def test_trainings_follow_parameters_that_move():
    """A callback that moves the parameters to other memory does not stop the training."""

    class Moved(kf.training.Callback):
        def on_epoch(self, flow, figures):
            vector = nn.utils.parameters_to_vector(flow.parameters())
            nn.utils.vector_to_parameters(vector.clone(), flow.parameters())

    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)).exp()
    fits = [kf.fit(flow(), rows, max_epochs=3, callbacks=own) for own in ([], [Moved()])]
    for a, b in zip(*(fit.flow.parameters() for fit in fits), strict=True):
        assert torch.equal(a, b)


def steps_of(flow, *, joined):
    """The parameters after three steps of the optimizer of `fit`."""
    optimizer = AdamW(flow, lr=0.01, weight_decay=0.1)
    for step in range(3):
        optimizer.zero_grad()
        with optimizer.joined() if joined else contextlib.nullcontext():
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            (-flow.log_prob(x).mean()).backward()
        optimizer.gather_gradients()
        optimizer.step()
    return [parameter.detach().clone() for parameter in flow.parameters()]


@pytest.mark.parametrize("memory", ["store", "recompute", "invert"])
def test_steps_on_stacked_tensors_are_those_on_parameters(memory):
    """Bit for bit, and a stack that is in a flow twice moves once."""
    stack = kf.real_nvp(4, depth=3, hidden=(8,), couplings={"memory": memory}).bijection[-1]
    flow = kf.Flow(
        kf.StandardNormal(4), kf.Chain([stack, kf.bijections.Permutation((3, 1, 0, 2)), stack])
    )
    results = [steps_of(copy.deepcopy(flow), joined=joined) for joined in (True, False)]
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_gradients_reach_parameters_where_somebody_looks():
    """A hook of a parameter is called, and an error in a step leaves nothing behind."""
    flow, seen = kf.real_nvp(4, depth=3, hidden=(8,)), []
    optimizer = AdamW(flow, lr=0.01, weight_decay=0.0)
    stack = flow.bijection[-1]
    with optimizer.joined():
        assert all(block.joined is not None for block in stack.blocks)
    with pytest.raises(kf.errors.ArgumentError), optimizer.joined():
        flow.log_prob(torch.ones(2, 5))
    assert all(block.joined is None for block in stack.blocks)
    next(stack[1].parameters()).register_hook(seen.append)
    with optimizer.joined():
        (-flow.log_prob(torch.ones(2, 4)).mean()).backward()
    assert len(seen) == 1


def test_parameters_get_their_gradients_back():
    """To find the layer of a gradient that is not finite."""
    flow = kf.real_nvp(4, depth=3, hidden=(8,))
    expected = copy.deepcopy(flow)
    for own in (flow, expected):
        optimizer = AdamW(own, lr=0.01, weight_decay=0.0)
        with optimizer.joined() if own is flow else contextlib.nullcontext():
            (-own.log_prob(torch.ones(2, 4)).mean()).backward()
        if own is flow:
            optimizer.scatter_gradients()
    for first, second in zip(flow.parameters(), expected.parameters(), strict=True):
        assert torch.equal(first.grad, second.grad)


def weight_norm(coupling):
    """Computes a weight of the coupling by a parametrization."""
    nn.utils.parametrizations.weight_norm(coupling.conditioner.layers[0])


def leaky(coupling):
    """Changes the activation of the coupling's network."""
    coupling.conditioner.activation = "leaky_relu"
    coupling.conditioner._activate = nn.functional.leaky_relu


def halved(coupling):
    """Replaces a method of the coupling's network."""
    net = coupling.conditioner
    net.forward = lambda h: 0.5 * type(net).forward(net, h)


@pytest.mark.parametrize(
    "change",
    [
        lambda stack: setattr(stack[1], "scale_bound", 0.5),
        lambda stack: setattr(stack[1], "conditioner", nn.Linear(2, 4, dtype=torch.float64)),
        lambda stack: stack[1].conditioner.layers.append(nn.Linear(4, 4, dtype=torch.float64)),
        lambda stack: stack.bijections.__setitem__(1, kf.Inverse(stack[1])),
        lambda stack: halved(stack[1]),
        lambda stack: weight_norm(stack[1]),
        lambda stack: leaky(stack[1]),
        lambda stack: stack[1].eval(),
    ],
)
def test_changes_of_a_layer_have_an_effect(change):
    """A stack with a changed layer computes what its layers compute one after the other."""
    stack = stack_of(4, 3, hidden=(5,), dropout=0.5).train()
    x, _ = points(stack, 6)
    assert is_fast(stack, x)
    change(stack)
    assert not is_fast(stack, x)
    assert ("\n" in repr(stack)) == stack[1].training  # lists the layers, of which one was edited
    for module in (stack, stack.double()):
        torch.manual_seed(0)
        z, log_det = module(x)
        torch.manual_seed(0)
        expected, expected_log_det = kf.Chain(list(module))(x)
        torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(log_det, expected_log_det, rtol=1e-12, atol=1e-12)
