"""Buffers of stacks: kept from step to step, freed when idle, and shared by no two passes."""

import gc
import threading
import time

import pytest
import torch

from kappaflow.stack import block_pass
from stack.examples import MEMORY, loss_of, points, result_of, same, stack_of


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
    buffers = {size: own.take("kind", size, object) for size in (1, 2)}
    other = own.take("other kind", 1, object)
    for size, item in buffers.items():
        own.give("kind", size, item)
    own.give("other kind", 1, other)
    own.give("kind", 1, own.take("kind", 1, object))
    own.give("kind", 3, own.take("kind", 3, object))
    assert own.take("kind", 1, object) is buffers[1]
    assert own.take("kind", 2, object) is not buffers[2]
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


def test_a_pass_whose_making_was_interrupted_goes_in_silence():
    """Ctrl-C can come anywhere; what `__del__` raises would be printed with a traceback."""
    from kappaflow.stack.block_pass import BlockPass

    BlockPass.__new__(BlockPass).__del__()
