"""Mixed precision is for training steps, and never for a log_det."""

import warnings

import pytest
import torch

from stack.examples import MEMORY, points, result_of, same, stack_of


def narrow():
    """Returns what makes products bfloat16."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


def off(actual, expected):
    """Returns the relative distance of two tensors."""
    return ((actual - expected).norm() / expected.norm()).item()


def example(**settings):
    """Returns a float32 stack in training mode, with points and contexts."""
    stack = stack_of(6, 6, (32, 32), dtype=torch.float32, context_features=2, **settings).train()
    return stack, *points(stack, 80, dtype=torch.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("settings", [{}, {"residual": True}, {"kind": "additive"}])
def test_training_steps_are_near_those_of_float32(threads, memory, settings):
    """Under autocast a training step rounds its products, with errors like the chain's.

    Measured: 2e-3 in the value, 1e-2 to 3e-2 in the gradient, mostly units that change sides.
    """
    threads(2)
    stack, x, context = example(memory=memory, **settings)
    chain = stack.to_chain()
    expected = result_of(stack, "forward", x, context)
    with narrow():
        actual = result_of(stack, "forward", x, context)
        plain = result_of(chain, "forward", x, context)
    assert actual.value.dtype == actual.log_det.dtype == torch.float32
    assert all(g.dtype == torch.float32 for g in actual.gradients)
    assert 1e-4 < off(actual.value, expected.value) < 1e-2
    assert (actual.log_det - expected.log_det).abs().max() <= 2e-2
    gradient, plainly, exact = (
        torch.cat([g.flatten() for g in result.gradients]) for result in (actual, plain, expected)
    )
    assert off(gradient, exact) < 5e-2
    assert off(gradient, exact) < 1.5 * off(plainly, exact)


@pytest.mark.usefixtures("chunked")
def test_modes_round_alike(threads):
    """Under autocast "store" and "recompute" have the same values and gradients."""
    threads(2)
    stack, x, context = example()
    results = {}
    for memory in ("store", "recompute"):
        stack.memory = memory
        with narrow():
            results[memory] = result_of(stack, "forward", x, context)
    assert same(results["store"], results["recompute"])


@pytest.mark.parametrize("memory", MEMORY)
def test_scores_and_samples_are_float32s(memory):
    """Evaluation, calls without gradients, and the inverse are bit for bit those of float32."""
    stack, x, context = example(memory=memory)
    with torch.no_grad():
        scores, inverse = stack(x, context), stack.inverse(x, context)
    trained = result_of(stack, "inverse", x, context)
    with narrow():
        with torch.no_grad():
            pairs = [(stack(x, context), scores), (stack.inverse(x, context), inverse)]
        assert same(result_of(stack, "inverse", x, context), trained)
        stack.eval()
        pairs.append((stack(x, context), scores))
        assert same(result_of(stack, "inverse", x, context), trained)
    for actual, expected in pairs:
        assert torch.equal(actual[0], expected[0])
        assert torch.equal(actual[1], expected[1])


def test_float64_stays():
    """Points of float64 are not narrowed."""
    stack = stack_of().train()
    x, _ = points(stack, 6)
    expected = result_of(stack, "forward", x)
    with narrow():
        assert same(result_of(stack, "forward", x), expected)


def test_invert_is_as_good_as_recompute():
    """Under autocast "invert" has gradients as near as those of "recompute", warning or not.

    The inverse of a state may round to another bfloat16 than the state.
    """
    stack, x, context = example()
    exact = result_of(stack, "forward", x, context)
    with narrow(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recomputed = result_of(stack, "forward", x, context)
        stack.memory = "invert"
        actual = result_of(stack, "forward", x, context)
    pairs = zip(actual.gradients, recomputed.gradients, exact.gradients, strict=True)
    for mine, theirs, expected in pairs:
        assert (mine - expected).norm() <= 1.5 * (
            theirs - expected
        ).norm() + 1e-3 * expected.norm()


def test_second_derivatives_are_those_of_float32():
    """With `create_graph` under autocast the readable definition is derived, in float32."""
    stack, x, context = example()
    x.requires_grad_()
    with narrow():
        value, _ = stack(x, context)
        (first,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
    value, _ = stack(x, context)
    (first,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), x)
    assert (second - expected).norm() <= 5e-2 * expected.norm()


def test_types_do_not_share_buffers(pool):
    """Steps in both types take turns without a trace of each other."""
    stack, x, context = example()
    plain = result_of(stack, "forward", x, context)
    with narrow():
        rounded = result_of(stack, "forward", x, context)
    assert pool.idle() > 0
    assert same(result_of(stack, "forward", x, context), plain)
    with narrow():
        assert same(result_of(stack, "forward", x, context), rounded)
