"""Rows in chunks on threads: their number does not matter, and a repetition is exact."""

import threading

import pytest
import torch

from kappaflow.stack import block_pass
from kappaflow.stack import threads as stack_threads
from stack.examples import (
    MEMORY,
    WAYS,
    assert_alike,
    points,
    result_of,
    same,
    stack_of,
)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("way", WAYS)
def test_the_number_of_threads_does_not_matter(threads, way, memory):
    """One, two and three threads give the same to rounding, and torch keeps their number."""
    stack = stack_of(5, 6, (8, 8), memory=memory, context_features=2, partition="uneven")
    x, context = points(stack, 100)
    threads(1)
    expected = result_of(stack, way, x, context)
    for number in (2, 3):
        threads(number)
        assert_alike(result_of(stack, way, x, context), expected, 1e-12)
        assert torch.get_num_threads() == number


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", MEMORY)
def test_the_number_of_threads_may_change_on_the_way(threads, memory):
    """A forward pass on one number of threads has a backward pass on another."""
    stack = stack_of(4, 6, memory=memory)
    x, _ = points(stack, 100)
    x.requires_grad_()
    actual = []
    for forward, backward in ((1, 1), (1, 3), (3, 1), (2, 3)):
        threads(forward)
        value, log_det = stack(x)
        threads(backward)
        loss = value.square().sum() + log_det.sum()
        actual.append(torch.autograd.grad(loss, [x, *stack.parameters()]))
    for other in actual[1:]:
        for mine, theirs in zip(other, actual[0], strict=True):
            assert (mine - theirs).norm() <= 1e-11 * theirs.norm()


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", MEMORY)
def test_equal_chunks_have_equal_bits(threads, memory):
    """Where two threads cut a batch as one does, only the sums over chunks are rounded otherwise.

    64 rows are four chunks for both.
    """
    stack = stack_of(4, 6, (8, 8), memory=memory)
    x, _ = points(stack, 64)
    threads(1)
    expected = result_of(stack, "forward", x)
    threads(2)
    actual = result_of(stack, "forward", x)
    assert torch.equal(actual.value, expected.value)
    assert torch.equal(actual.log_det, expected.log_det)
    assert torch.equal(actual.gradients[0], expected.gradients[0])
    assert_alike(actual, expected, 1e-12)


@pytest.mark.usefixtures("chunked")
def test_old_numbers_in_the_buffers_do_no_harm(threads, pool):
    """A step of nan leaves nothing behind that a later step of the same shape could read."""
    threads(2)
    stack = stack_of(5, 4, partition="uneven", context_features=2)
    x, context = points(stack, 70)
    clean = result_of(stack, "forward", x, context)
    bad = result_of(stack, "forward", x * torch.nan, context * torch.nan)
    assert bad.value.isnan().any()
    assert pool.idle() > 0
    assert same(result_of(stack, "forward", x, context), clean)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 24, 25, 47, 100])
def test_each_row_is_in_one_chunk(rows):
    """However a batch is cut, each row is computed once and lands in its place."""
    stack = stack_of(4, 3, context_features=1)
    x, context = points(stack, rows)
    actual = result_of(stack, "forward", x, context)
    assert_alike(actual, result_of(stack.to_chain(), "forward", x, context), 1e-11)


@pytest.mark.parametrize("way", WAYS)
def test_a_nan_stays_in_its_row(way):
    """A row of nan makes its own value and log_det nan, and no other's."""
    stack = stack_of(4, 4)
    x, _ = points(stack, 40)
    bad = x.clone()
    bad[7] = torch.nan
    value, log_det = (stack if way == "forward" else stack.inverse)(bad)
    expected, reference_log_det = (stack if way == "forward" else stack.inverse)(x)
    others = torch.arange(40) != 7
    assert value[7].isnan().all()
    assert log_det[7].isnan()
    assert torch.equal(value[others], expected[others])
    assert torch.equal(log_det[others], reference_log_det[others])


@pytest.mark.usefixtures("chunked")
def test_an_error_in_a_thread_is_raised(threads, monkeypatch):
    """What goes wrong on another thread reaches the caller, and their number is set back."""
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")  # its threads are not Python's
    threads(2)
    stack = stack_of(4, 2)
    x, _ = points(stack, 64)
    main = threading.current_thread()
    evaluate = block_pass.ChunkKernel.forward

    def fails(*arguments, **named):
        if threading.current_thread() is not main:
            raise ArithmeticError("in a thread")
        return evaluate(*arguments, **named)

    monkeypatch.setattr(block_pass.ChunkKernel, "forward", fails)
    with pytest.raises(ArithmeticError, match="in a thread"):
        stack(x)
    assert torch.get_num_threads() == 2
    monkeypatch.undo()
    assert torch.isfinite(stack(x)[0]).all()


def test_tasks_run_where_they_should(threads):
    """The last task runs on the calling thread, the others elsewhere, each on one torch thread."""
    threads(2)
    seen = []

    def task(name):
        seen.append((name, threading.current_thread().name, torch.get_num_threads()))

    with stack_threads.single_products():
        stack_threads.run_all([lambda n=n: task(n) for n in ("first", "second", "last")])
    by_name = {name: (thread, number) for name, thread, number in seen}
    assert by_name["last"] == (threading.current_thread().name, 1)
    assert by_name["first"][0].startswith("kappaflow")
    assert {number for _, number in by_name.values()} == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.slow
@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", MEMORY)
def test_several_callers_do_not_meet(threads, memory):
    """Four Python threads that train the same stack at a time each get the right gradients."""
    threads(2)
    stack = stack_of(4, 5, memory=memory)
    batches = [points(stack, 60, seed=i)[0] for i in range(4)]

    def gradients(x):
        value, log_det = stack(x)
        loss = value.square().sum() + log_det.sum()
        return torch.autograd.grad(loss, list(stack.parameters()))

    expected = [gradients(x) for x in batches]
    actual = {}

    def work(number):
        torch.set_num_threads(2)
        for _ in range(5):
            actual.setdefault(number, []).append(gradients(batches[number]))

    callers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=600)
        assert not caller.is_alive()
    for number, results in actual.items():
        assert len(results) == 5
        for result in results:
            for mine, theirs in zip(result, expected[number], strict=True):
                assert (mine - theirs).norm() <= 1e-11 * theirs.norm()


def test_threads_are_those_of_the_caller(threads, monkeypatch):
    """A batch of many chunks uses as many threads as torch, or the environment, has set."""
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")  # its threads are not Python's
    monkeypatch.setattr(block_pass, "LEAST_WORK", 0.0)
    seen = set()
    evaluate = block_pass.ChunkKernel.forward

    def watched(*arguments, **named):
        seen.add(threading.current_thread().name)
        return evaluate(*arguments, **named)

    monkeypatch.setattr(block_pass.ChunkKernel, "forward", watched)
    stack = stack_of(4, 2)

    def used(number, rows):
        seen.clear()
        threads(number)
        stack(points(stack, rows)[0])
        return len(seen)

    assert used(1, 600) == 1
    assert used(2, 600) == 2
    assert used(2, 100) == 1
    monkeypatch.setenv("KAPPAFLOW_THREADS", "2")
    assert used(1, 600) == 2
    monkeypatch.setenv("KAPPAFLOW_THREADS", "1")
    assert used(2, 600) == 1
    monkeypatch.setenv("KAPPAFLOW_THREADS", "many")
    assert used(2, 600) == 2
