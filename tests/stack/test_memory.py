"""The memory modes of chains and stacks: the gradients of plain autograd, and what each keeps."""

import gc

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import kappaflow as kf
from kappaflow.autograd.checkpoint import MEMORY_MODES, memory_modes_bypassed
from kappaflow.bijections.log_scales import SCALES
from kappaflow.errors import ArgumentError
from kappaflow.stack import block_pass
from kappaflow.testing.contract import jittered
from stack.examples import (
    WAYS,
    Noisy,
    chain_of,
    gradients,
    largest_difference,
    points,
    rows_of,
    same_bits,
    second_order,
    stack_of,
    weighted_loss,
)

KINDS = pytest.mark.parametrize("kind", ["chain", "stack"])
MODES = pytest.mark.parametrize("memory", MEMORY_MODES)
DIRECTIONS = pytest.mark.parametrize("direction", WAYS)


def couplings(kind, memory, depth=3, *, context_features=0, dropout=0.0):
    """Returns couplings of four features; for the mode None a chain that runs plain autograd."""
    if kind == "chain":

        def network():
            if dropout:
                return Noisy()
            settings = {"context_features": context_features, "activation": "silu"}
            return kf.nets.MLP(2, 4, (8,), **settings)

        chain = chain_of(depth, memory, network, context_features=context_features)
        return jittered(chain).double()
    settings = {"context_features": context_features, "dropout": dropout}
    stack = stack_of(4, depth, (5,), memory=memory or "store", **settings).train()
    return stack if memory else kf.Chain(list(stack.to_chain()))


@MODES
@KINDS
@DIRECTIONS
def test_gradients_are_those_of_plain_autograd(direction, kind, memory):
    """With respect to points, contexts and weights, over two segments, for no row too."""
    plain, module = (couplings(kind, m, 34, context_features=2) for m in (None, memory))
    for count in (16, 0):
        x, context = rows_of(count), rows_of(count, 2, seed=1).requires_grad_()
        expected, actual = (gradients(m, x, context, direction) for m in (plain, module))
        if count:
            assert largest_difference(actual, expected) < 1e-10
        else:
            torch.testing.assert_close(actual, expected, equal_nan=True)


@pytest.mark.slow
@MODES
@KINDS
@pytest.mark.parametrize("frozen", ["x", "context", "weights", "layers"])
def test_what_is_frozen_gets_no_gradient(frozen, kind, memory):
    """The others have the gradients of plain autograd."""
    results = []
    for mode in (None, memory):
        module = couplings(kind, mode, 34, context_features=2)
        inputs = {"x": rows_of(), "context": rows_of(features=2, seed=1)}
        for name, leaf in inputs.items():
            leaf.requires_grad_(name != frozen)
        module.requires_grad_(frozen != "weights")
        for part in list(module)[::3]:
            part.requires_grad_(frozen not in {"weights", "layers"})
        weighted_loss(module, *inputs.values()).backward()
        results.append([leaf.grad for leaf in (*inputs.values(), *module.parameters())])
    assert largest_difference(*results) < 1e-10


@MODES
@KINDS
def test_a_second_backward_pass_gives_the_same(kind, memory):
    """As long as the graph is retained, with the same random numbers; a third one is an error."""
    module, x = couplings(kind, memory, 34, dropout=0.3), rows_of().requires_grad_()
    loss, inputs = weighted_loss(module, x), [x, *module.parameters()]
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    state = torch.get_rng_state()
    second = torch.autograd.grad(loss, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert largest_difference(second, first) < 1e-12
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, inputs)


@MODES
@KINDS
@pytest.mark.parametrize("frozen", [False, True])
@DIRECTIONS
def test_gradients_can_be_differentiated(direction, frozen, kind, memory):
    """Second derivatives by points, contexts and weights are those of plain autograd."""
    results = []
    for mode in (None, memory):
        module = couplings(kind, mode, 4, context_features=2).requires_grad_(not frozen)
        context = rows_of(features=2, seed=1).requires_grad_()
        results.append(second_order(module, rows_of(), context, direction))
    assert largest_difference(*results) < 1e-10


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "additive"},
        {"context_features": 2, "residual": True, "hidden": (3, 3)},
        {"partition": "uneven", "permuted": True},
        {"hidden": ()},
        *({"scale": scale} for scale in SCALES if scale != "tanh"),
        {"hidden": (4, 2), "wiring": "paired"},
        {"hidden": (3,) * 3, "wiring": "blocks", "context_features": 2},
        {"depth": 34},
    ],
    ids=str,
)
@DIRECTIONS
def test_stacks_of_each_kind_have_second_derivatives(settings, direction):
    """They come from the plain couplings."""
    stack = stack_of(**{"hidden": (5,), **settings}).train()
    plain = kf.Chain(list(stack.to_chain()))
    x, context = points(stack, 16)
    context = None if context is None else context.requires_grad_()
    results = [second_order(module, x, context, direction) for module in (plain, stack)]
    assert largest_difference(*results) < 1e-10


def test_dropout_has_no_second_derivative():
    """A graph of evaluation mode has one, also after the stack is trained again."""
    stack, x = couplings("stack", "store", dropout=0.5), rows_of().requires_grad_()
    message = r"dropout have no second derivatives.*call flow.eval\(\)"
    with pytest.raises(ArgumentError, match=message):
        torch.autograd.grad(stack(x)[0].sum(), x, create_graph=True)
    loss = stack.eval()(x)[0].square().sum()
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    stack.train()
    (actual,) = torch.autograd.grad(loss, x, create_graph=True)
    assert (actual - expected).norm() <= 1e-12 * expected.norm()
    assert stack.training


@pytest.mark.slow
@MODES
@KINDS
def test_forward_mode_and_function_transforms_work(kind, memory):
    """Dual points and weights, jvp, vjp, jacrev, hessian, vmap and gradients of each row."""
    both = [couplings(kind, m, 34) for m in (None, memory)]
    x, v = rows_of(3), rows_of(3, seed=6)

    def loss(weights, row, module):
        value, log_det = functional_call(module, weights, (row[None],))
        return value.square().sum() + log_det.sum()

    def each(module):
        with forward_ad.dual_level():
            dual = module(forward_ad.make_dual(x, v))[0]
            yield forward_ad.unpack_dual(dual).tangent
        yield torch.func.jvp(lambda y: module(y)[0], (x,), (v,))[1]
        yield torch.func.vjp(lambda y: module(y)[0], x)[1](v)[0]
        yield torch.func.jacrev(lambda y: module(y[None])[0][0])(x[0])
        yield torch.func.hessian(lambda y: module(y[None])[1][0])(x[0])
        yield torch.vmap(lambda y: module(y[None])[0][0])(x)
        yield torch.autograd.functional.jacobian(
            lambda y: module(y)[0], x, vectorize=kind == "chain"
        )
        own = {name: p.detach() for name, p in module.named_parameters()}
        yield torch.func.jvp(lambda w: loss(w, x[0], module), (own,), (own,))[1]
        by_row = torch.vmap(torch.func.grad(loss), in_dims=(None, 0, None))(own, x, module)
        yield list(by_row.values())

    for actual, expected in zip(*(list(each(module)) for module in both), strict=True):
        torch.testing.assert_close(actual, expected)


@MODES
@KINDS
def test_parameters_of_functional_calls_get_their_gradients(kind, memory):
    """Although the module has other ones again in the backward pass, and other calls others."""
    module, x = couplings(kind, memory, 34), rows_of()
    sets = [
        {name: (factor * p.detach()).requires_grad_() for name, p in module.named_parameters()}
        for factor in (1.1, -0.5)
    ]
    losses = []
    for parameters in sets:
        moved = {name: 1.0 * p for name, p in parameters.items()}
        value, log_det = functional_call(module, moved, (x,))
        assert kind == "chain" or type(value.grad_fn).__name__ == "BlockNodeBackward"
        losses.append(value.sin().mean() + log_det.mean())
    for loss, parameters in zip(losses, sets, strict=True):
        plain = couplings(kind, None, 34)
        plain.load_state_dict({name: p.detach() for name, p in parameters.items()})
        value, log_det = plain(x)
        expected = torch.autograd.grad(
            value.sin().mean() + log_det.mean(), list(plain.parameters())
        )
        actual = torch.autograd.grad(loss, list(parameters.values()))
        assert largest_difference(actual, expected) < 1e-10


@MODES
@pytest.mark.parametrize(
    ("kind", "changed"),
    [*(("stack", leaf) for leaf in ("x", "context", "weight")), ("chain", "weight")],
)
def test_a_tensor_changed_before_the_backward_pass_is_an_error(kind, changed, memory):
    """As in plain autograd."""
    module = couplings(kind, memory, context_features=2)
    weight = module[1].conditioner.layers[-1].weight
    leaves = {"x": rows_of(), "context": rows_of(features=2), "weight": weight}
    loss = weighted_loss(module, leaves["x"], leaves["context"])
    with torch.no_grad():
        leaves[changed].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@MODES
@KINDS
def test_the_value_may_be_changed_in_place(kind, memory):
    """As plain autograd allows; with "invert" it is needed, and the change is an error."""
    module, x = couplings(kind, memory), rows_of().requires_grad_()
    expected = torch.autograd.grad(module(x)[0].mul(3).sum(), x)[0]
    value = module(x)[0]
    value.mul_(3)
    if memory == "invert":
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.sum().backward()
    else:
        assert torch.equal(torch.autograd.grad(value.sum(), x)[0], expected)


@MODES
@KINDS
def test_a_checkpoint_around_a_flow_has_the_same_gradients(kind, memory):
    """In the first call, which looks for what the layers read, and in the second one."""
    expected, flow = gradients(couplings(kind, None, 6), rows_of()), couplings(kind, memory, 6)
    for _ in range(2):
        x = rows_of().requires_grad_()
        flow.zero_grad()
        checkpoint(lambda x, flow=flow: weighted_loss(flow, x), x, use_reentrant=False).backward()
        actual = [x.grad, *(parameter.grad for parameter in flow.parameters())]
        assert largest_difference(actual, expected) < 1e-12


@MODES
@KINDS
def test_a_part_that_is_used_twice_adds_up_its_gradients(kind, memory):
    """Also those of second order, and from segment to segment; a hook of its weight acts once."""

    def shared(memory):
        if kind == "stack":
            stack = couplings(kind, memory)
            parts = [stack, kf.bijections.Permutation((3, 1, 0, 2)), stack]
            return kf.Chain(parts), stack[0].conditioner.layers[0].weight
        first, second = couplings(kind, None, 2)
        parts = [first, second, *[first] * 34]
        return kf.Chain(parts, memory=memory).double(), first.conditioner.layers[0].weight

    (plain, _), (module, weight) = shared(None), shared(memory)
    expected, actual = (gradients(m, rows_of()) for m in (plain, module))
    assert largest_difference(actual, expected) < 1e-8
    assert largest_difference(*(second_order(m, rows_of()) for m in (module, plain))) < 1e-8
    handle = weight.register_hook(lambda gradient: 2 * gradient)
    hooked = gradients(module, rows_of())
    handle.remove()
    for parameter, one, two in zip(module.parameters(), actual[1:], hooked[1:], strict=True):
        torch.testing.assert_close(two, 2 * one if parameter is weight else one)
    assert same_bits(actual, gradients(module, rows_of()))


@MODES
@KINDS
def test_without_gradients_there_is_no_graph(kind, memory):
    """Neither under `no_grad` nor where nothing requires a gradient."""
    module, x = couplings(kind, memory), rows_of()
    with torch.no_grad():
        assert not any(t.requires_grad for t in module(x))
    module.requires_grad_(False)
    assert not any(t.requires_grad for t in (*module(x), *module.inverse(x)))


class Counting(nn.Module):
    """A network that counts its calls."""

    def __init__(self):
        super().__init__()
        self.net, self.calls = nn.Linear(2, 4), 0

    def forward(self, x):
        self.calls += 1
        return self.net(x)


@pytest.mark.parametrize(
    ("memory", "direction", "calls"),
    [
        ("store", "forward", 1),
        ("recompute", "forward", 2),
        ("invert", "forward", 2),
        ("invert", "inverse", 3),
    ],
)
def test_how_often_a_network_runs(memory, direction, calls):
    """The mode of a chain is that of its parts; bypassed or without gradients it has no effect."""
    parts = list(chain_of(2, None, Counting))
    parts[0].memory = "recompute"
    chain = kf.Chain([kf.Chain(parts, memory="invert")], memory=memory).double()

    def counted(*, gradients=True):
        for part in parts:
            part.conditioner.calls = 0
        loss = weighted_loss(chain, rows_of(), direction=direction)
        if gradients:
            loss.backward()
        return [part.conditioner.calls for part in parts]

    assert counted() == [calls] * 2
    with memory_modes_bypassed():
        assert counted() == [1] * 2
    with torch.no_grad():
        assert counted(gradients=False) == [1] * 2


def kept_bytes(module, x):
    """Returns the bytes of tensors that are alive because of a forward pass.

    Storages are kept while they are counted, so that no two have one address.
    """

    def alive():
        gc.collect()
        kinds = torch.Tensor, torch.nn.Parameter  # and not those of a compiler, without numbers
        tensors = [o for o in gc.get_objects() if type(o) in kinds]
        return {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}

    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    block_pass.POOL.forget()
    before = alive()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(x)
    block_pass.POOL.forget()
    storages = {**saved, **alive()}
    del output
    return sum(storage.nbytes() for address, storage in storages.items() if address not in before)


STATE = 4 * 4  # bytes of four features


@pytest.mark.slow
@pytest.mark.usefixtures("only_new_objects")
@pytest.mark.parametrize(
    ("kind", "memory", "depth", "expected"),
    [
        # A state for every 32 layers and a fingerprint for each, besides the log_det.
        ("chain", "invert", 32, 32 * 4 + STATE + 4),
        ("chain", "invert", 128, 128 * 4 + 4 * STATE + 4),
        ("stack", "invert", 64, 64 * 4 + 2 * STATE + 4),
        # A state for every 4 layers; half of a state for each layer, and two for every 32.
        ("chain", "recompute", 128, 32 * STATE + 4),
        ("stack", "recompute", 64, 64 * STATE // 2 + 4 * STATE + 4),
        # In addition the hidden layer, and the results of half of a state each.
        ("stack", "store", 64, 64 * (5 * 4 + 6 * STATE // 2) + 4 * STATE + 4),
    ],
)
def test_each_mode_keeps_the_states_that_it_needs(kind, memory, depth, expected):
    """The bytes that each further row of a batch costs."""
    module = couplings(kind, memory, depth).float()
    few, many = rows_of(64, dtype=torch.float32), rows_of(128, dtype=torch.float32)
    for x in (few, many):
        module(x)  # checks what the layers read, once
    assert (kept_bytes(module, many) - kept_bytes(module, few)) / 64 == expected
