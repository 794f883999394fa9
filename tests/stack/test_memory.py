"""What the memory modes keep, for how long, and that no two passes share it."""

import gc
import threading
import time

import pytest
import torch

import kappaflow as kf
from kappaflow.stack import block_pass
from stack.examples import MEMORY, WAYS, loss_of, points, result_of, same, stack_of

ROWS, FEATURES = 64, 16


def live_bytes():
    """Returns the size of all tensors that Python knows, each storage once.

    Tensors without numbers, which tests of torch.export leave alive, are not counted.
    """
    tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def kept_bytes(rows, depth, memory, partition="half"):
    """Returns what is alive because of a forward pass, its result included."""
    stack = stack_of(
        FEATURES, depth, (8,), dtype=torch.float32, memory=memory, partition=partition
    )
    x, _ = points(stack, rows, dtype=torch.float32)
    stack(x)  # what is made once for all
    block_pass.POOL.forget()
    gc.collect()
    before = live_bytes()
    result = stack(x)
    block_pass.POOL.forget()
    after = live_bytes()
    del result
    return after - before


def kept_by_a_row(depth, memory, partition="half"):
    """Returns the bytes that each further row of a batch costs."""
    few, many = (kept_bytes(rows, depth, memory, partition) for rows in (ROWS, 2 * ROWS))
    assert (many - few) % ROWS == 0
    return (many - few) // ROWS


@pytest.mark.slow
@pytest.mark.usefixtures("only_new_objects")
def test_recompute_keeps_half_a_state_a_layer():
    """Beyond that: what goes in and comes out of each 32 couplings, and one log_det."""
    depth, blocks = 64, 2
    half_states = depth * FEATURES // 2 * 4
    assert kept_by_a_row(depth, "recompute") == half_states + blocks * 2 * FEATURES * 4 + 4


@pytest.mark.slow
@pytest.mark.usefixtures("only_new_objects")
def test_invert_keeps_a_number_a_layer():
    """A fingerprint a layer, what comes out of each 32 couplings, and one log_det."""
    depth, blocks = 64, 2
    assert kept_by_a_row(depth, "invert") == depth * 4 + blocks * FEATURES * 4 + 4


@pytest.mark.slow
@pytest.mark.usefixtures("only_new_objects")
def test_changing_halves_cost_a_state_in_two_layers():
    """Where the halves are drawn again for each two couplings, their features move once."""
    moved = 16 * FEATURES * 4
    most = 32 * FEATURES // 2 * 4 + moved + 2 * FEATURES * 4 + 4
    assert kept_by_a_row(32, "recompute", "random-half") <= most


@pytest.mark.slow
@pytest.mark.usefixtures("only_new_objects")
def test_store_keeps_what_the_conditioners_compute():
    """Each layer keeps its half state, hidden layer and answer, and three halves made of it."""
    most = 32 * 4 * (6 * FEATURES // 2 + 8) + 2 * FEATURES * 4 + 4
    assert kept_by_a_row(32, "store") <= most


@pytest.mark.slow
@pytest.mark.usefixtures("only_new_objects")
def test_scoring_keeps_nothing():
    """Without gradients only the value and the log_det are left, and buffers that lie idle."""
    stack = stack_of(FEATURES, 32, (8,), dtype=torch.float32)
    x, _ = points(stack, ROWS, dtype=torch.float32)
    with torch.no_grad():
        stack(x)
        block_pass.POOL.forget()
        before = live_bytes()
        result = stack(x)
        block_pass.POOL.forget()
        after = live_bytes()
    assert after - before == ROWS * (FEATURES + 1) * 4
    del result


@pytest.mark.slow
@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("way", WAYS)
def test_a_second_backward_has_the_same_gradients(threads, way, memory):
    """With `retain_graph` the states, given up by the first backward, are computed again."""
    threads(2)
    stack = stack_of(4, 34, memory=memory)
    x, _ = points(stack, 60)
    x.requires_grad_()
    inputs = [x, *stack.parameters()]
    loss = loss_of(*(stack if way == "forward" else stack.inverse)(x))
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    others = [torch.autograd.grad(loss, inputs, retain_graph=i < 2) for i in range(3)]
    for second in others:
        for mine, theirs in zip(second, first, strict=True):
            assert (mine - theirs).norm() <= 1e-11 * theirs.norm()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, inputs)


@pytest.mark.slow
@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", MEMORY)
def test_passes_do_not_share_buffers(threads, memory):
    """Three passes before the first backward, and backwards in another order, do no harm."""
    threads(2)
    stack = stack_of(4, 5, memory=memory)
    batches = [points(stack, 60, seed=i)[0] for i in range(3)]
    expected = [result_of(stack, "forward", x) for x in batches]
    inputs = [x.clone().requires_grad_() for x in batches]
    outputs = [stack(x) for x in inputs]
    with torch.no_grad():
        stack(batches[0] * 3), stack.inverse(batches[1])
    for place in (1, 2, 0):
        stack.zero_grad()
        value, log_det = outputs[place]
        assert torch.equal(value, expected[place].value)
        loss_of(value, log_det).backward()
        assert torch.equal(inputs[place].grad, expected[place].gradients[0])
        assert same(result_of(stack, "forward", batches[place]), expected[place])


@pytest.mark.parametrize("memory", MEMORY)
def test_a_stack_twice_in_one_graph(memory):
    """Passes of which one reads what the other has made have the chain's gradients."""
    stack = stack_of(4, 3, memory=memory)
    x, _ = points(stack, 6)
    found = []
    for module in (stack, stack.to_chain()):
        inputs = x.clone().requires_grad_()
        once, log_det = module(inputs)
        twice, further = module(once.sin())
        loss_of(twice, log_det + further).backward()
        found.append(inputs.grad)
    assert (found[0] - found[1]).norm() <= 1e-11 * found[1].norm()


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", MEMORY)
def test_a_dropped_graph_gives_its_buffers_back(pool, memory):
    """Passes without backward leave as many idle buffers as passes with one, however often."""
    stack = stack_of(4, 3, memory=memory)
    x, _ = points(stack, 60)
    result_of(stack, "forward", x)
    idle = []
    for _ in range(4):
        value, log_det = stack(x)
        del value, log_det
        idle.append(pool.idle())
    assert len(set(idle)) == 1
    for _ in range(3):
        result_of(stack, "forward", x)
    assert pool.idle() == idle[0]


@pytest.mark.usefixtures("chunked")
def test_a_pass_holds_its_buffers(pool):
    """What a pass has kept does not lie idle before its backward, and does behind it."""
    stack = stack_of(4, 3)
    x, _ = points(stack, 60)
    result_of(stack, "forward", x)
    idle = pool.idle()
    loss = loss_of(*stack(x))
    assert pool.idle() < idle
    loss.backward()
    assert pool.idle() == idle


def test_idle_buffers_are_given_up(pool, monkeypatch):
    """Buffers that nobody has taken for a while are let go of."""
    monkeypatch.setattr(block_pass, "IDLE_S", 0.05)
    own = block_pass.Pool()
    with own._lock:  # of the thread that lets go
        own.give("key", 7, object())
        assert own.idle() == 1
    deadline = time.monotonic() + 300
    while own.idle() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert own.idle() == 0
    with own._lock:
        own.give("key", 7, object())
        assert own.idle() == 1, "it works a second time"


def test_buffers_in_use_are_not_given_up(monkeypatch):
    """As long as somebody takes and gives, what lies idle stays."""
    monkeypatch.setattr(block_pass, "IDLE_S", 1e9)
    own = block_pass.Pool()
    first = own.take("key", 7, object)
    own.give("key", 7, first)
    own.give("key", 7, own.take("key", 7, object))
    timers = [own._sweeper]
    own._sweep()
    timers.append(own._sweeper)
    assert own.idle() == 1
    assert own.take("key", 7, object) is first
    own.give("key", 7, first)
    own._sweep()
    timers.append(own._sweeper)
    assert own.idle() == 1
    own._sweep()
    assert own.idle() == 0
    for timer in timers:
        timer.cancel()


def test_buffers_of_many_sizes_do_not_pile_up():
    """Of each kind two sizes stay: a third one takes the place of the one not used for longest."""
    own = block_pass.Pool()
    made = {size: own.take("kind", size, object) for size in (1, 2)}
    other = own.take("other kind", 1, object)
    for size, item in made.items():
        own.give("kind", size, item)
    own.give("other kind", 1, other)
    own.give("kind", 1, own.take("kind", 1, object))
    own.give("kind", 3, own.take("kind", 3, object))
    assert own.take("kind", 1, object) is made[1]
    assert own.take("kind", 2, object) is not made[2]
    assert own.take("other kind", 1, object) is other
    own._sweeper.cancel()


@pytest.mark.slow
@pytest.mark.usefixtures("only_new_objects")
def test_garbage_may_be_collected_while_a_buffer_is_taken():
    """A pass that is garbage gives its buffers back even where a collection meets a `take`.

    The lock of the pool is held then by the same thread: a plain lock would stop it for ever.
    """
    stack = stack_of(4, 2)
    x, _ = points(stack, 6)
    pool = block_pass.Pool()

    class Key:
        def __hash__(self):
            pool.give("other", 7, object())  # as the collection of a pass would
            return 1

    taker = threading.Thread(target=lambda: pool.take(Key(), 7, object), daemon=True)
    taker.start()
    taker.join(timeout=120)
    assert not taker.is_alive()
    pool._sweeper.cancel()

    class Ring:
        pass

    rings = [Ring() for _ in range(3)]
    for ring in rings:
        ring.own, ring.result = ring, stack(x)
    del rings, ring
    gc.collect()
    assert torch.isfinite(stack(x)[0]).all()


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("what", ["weights", "points", "context"])
def test_what_was_changed_in_place_is_noticed(memory, what):
    """Weights, points or contexts changed between forward and backward raise torch's own error."""
    stack = stack_of(4, 3, memory=memory, context_features=2)
    x, context = points(stack, 6)
    loss = loss_of(*stack(x, context))
    changed = {"weights": list(stack.parameters())[1], "points": x, "context": context}
    with torch.no_grad():
        changed[what].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("memory", MEMORY)
def test_the_value_may_be_changed_in_place(memory):
    """What came out belongs to the caller: it is changed in place as plain autograd allows.

    In the mode "invert" it is what the states come back from, and the change is an error.
    """
    stack = stack_of(4, 3, memory=memory)
    x, _ = points(stack, 6)
    x.requires_grad_()
    expected = torch.autograd.grad(stack(x)[0].mul(3).sum(), x)[0]
    value = stack(x)[0]
    value.mul_(3)
    if memory == "invert":
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.sum().backward()
    else:
        assert torch.equal(torch.autograd.grad(value.sum(), x)[0], expected)


@pytest.mark.parametrize("memory", MEMORY)
def test_a_step_of_an_optimizer_between_passes(memory):
    """Losses of some steps of Adam are those of the plain chain."""
    stack = stack_of(4, 4, memory=memory)
    chain = stack.to_chain()
    x, _ = points(stack, 40)
    losses = []
    for module in (stack, chain):
        adam = torch.optim.Adam(module.parameters(), lr=1e-2)
        own = []
        for _ in range(5):
            value, log_det = module(x)
            loss = (value.square().sum(1) / 2 - log_det).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            own.append(loss.item())
        losses.append(own)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("what", ["only weights", "only points", "only context", "some weights"])
def test_only_what_requires_gradients_gets_them(memory, what):
    """Frozen weights, or points without gradients, get none, and the others the chain's."""
    stack = stack_of(4, 33, (5,), memory=memory, context_features=2)
    x, context = points(stack, 6)
    expected = result_of(stack.to_chain(), "forward", x, context)
    names = [name for name, _ in stack.to_chain().named_parameters()]
    if what == "only weights":
        loss_of(*stack(x, context)).backward()
        assert x.grad is None
        assert context.grad is None
    elif what == "some weights":
        first = stack[0].conditioner.layers[0].weight
        first.requires_grad_(False)
        loss_of(*stack(x, context)).backward()
        assert first.grad is None
        assert all((p.grad is None) == (p is first) for p in stack.parameters())
        bias = stack[0].conditioner.layers[0].bias.grad
        place = names.index("bijections.0.conditioner.layers.0.bias")
        assert torch.allclose(bias, expected.gradients[2 + place], rtol=1e-9)
    else:
        stack.requires_grad_(False)
        inputs, place = (x, 0) if what == "only points" else (context, 1)
        inputs.requires_grad_()
        loss_of(*stack(x, context)).backward()
        assert all(p.grad is None for p in stack.parameters())
        assert torch.allclose(inputs.grad, expected.gradients[place], rtol=1e-9)


def test_nothing_to_differentiate_makes_no_graph():
    """Without anything that requires gradients the results have no graph."""
    stack = stack_of(4, 3)
    x, _ = points(stack, 6)
    with torch.no_grad():
        assert not any(t.requires_grad for t in stack(x))
    stack.requires_grad_(False)
    assert not any(t.requires_grad for t in stack(x))
    assert not any(t.requires_grad for t in stack.inverse(x))


@pytest.mark.slow
@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", MEMORY)
def test_inference_mode_leaves_nothing_that_spoils_training(pool, threads, memory):
    """Buffers that inference mode has made, on any thread, can be used by a training step."""
    threads(2)
    stack = stack_of(4, 3, memory=memory)
    x, _ = points(stack, 60)
    expected = result_of(stack, "forward", x)
    pool.forget()
    for way in (stack, stack.inverse):
        with torch.inference_mode():
            value, log_det = way(x)
            way(x.clone())  # points that belong to inference mode themselves
        assert not value.requires_grad
        assert not log_det.requires_grad
    with torch.inference_mode():
        assert torch.equal(stack(x)[0], expected.value)
    assert same(result_of(stack, "forward", x), expected)


@pytest.mark.parametrize("memory", MEMORY)
def test_checkpoints_around_a_stack(memory):
    """`torch.utils.checkpoint` runs a stack again like any other module."""
    stack = stack_of(4, 3, memory=memory)
    x, _ = points(stack, 6)
    expected = result_of(stack, "forward", x)
    x.requires_grad_()
    loss_of(*torch.utils.checkpoint.checkpoint(stack, x, use_reentrant=False)).backward()
    assert torch.equal(x.grad, expected.gradients[0])


def test_recipes_pass_the_mode_on():
    """A flow's memory mode is its stack's."""
    flow = kf.real_nvp(4, depth=3, hidden=(8,), couplings={"memory": "store"})
    assert [m.memory for m in flow.modules() if isinstance(m, kf.CouplingStack)] == ["store"]


def test_a_pass_whose_making_was_interrupted_goes_in_silence():
    """Ctrl-C can come anywhere; what `__del__` raises would be printed with a traceback."""
    from kappaflow.stack.block_pass import BlockPass

    BlockPass.__new__(BlockPass).__del__()
