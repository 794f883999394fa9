"""Dropout in stacks: torch's generator, the same units there and back, right on average."""

import pytest
import torch

import kappaflow as kf
from stack.examples import MEMORY, WAYS, loss_of, points, result_of, same, stack_of, turns


def dropping(features=4, depth=3, hidden=(8, 8), *, share=0.3, **settings):
    """Returns a stack in training mode whose conditioners leave out units."""
    return stack_of(features, depth, hidden, dropout=share, **settings).train()


@pytest.mark.slow
@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("residual", [False, True])
def test_gradients_are_differences(threads, way, memory, residual):
    """With the same seed, the slope of a loss along a direction is its finite difference."""
    threads(2)
    stack = dropping(memory=memory, residual=residual, context_features=1, depth=34)
    x, context = points(stack, 50)
    directions = [torch.randn_like(t) for t in (x, context, *stack.parameters())]

    def value_at(step):
        moved = [t.detach() + step * d for t, d in zip((x, context), directions, strict=False)]
        with torch.no_grad():
            for p, d in zip(stack.parameters(), directions[2:], strict=True):
                p.add_(d, alpha=step)
            torch.manual_seed(11)
            loss = loss_of(*(stack if way == "forward" else stack.inverse)(*moved)).item()
            for p, d in zip(stack.parameters(), directions[2:], strict=True):
                p.sub_(d, alpha=step)
        return loss

    inputs = [x.requires_grad_(), context.requires_grad_(), *stack.parameters()]
    torch.manual_seed(11)
    loss = loss_of(*(stack if way == "forward" else stack.inverse)(x, context))
    gradients = torch.autograd.grad(loss, inputs)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)).item()
    assert loss.item() == pytest.approx(value_at(0.0), rel=1e-13)
    step = 1e-8  # few units change sides
    difference = (value_at(step) - value_at(-step)) / (2 * step)
    # Rounding: 1e-16 times the loss, 100, over the step.
    assert slope == pytest.approx(difference, rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("way", WAYS)
def test_modes_and_threads_leave_out_the_same_units(threads, way):
    """With the same seed, and the same chunks, all modes and one or two threads do the same."""
    stack = dropping(depth=34, memory="store")
    x, _ = points(stack, 64)
    torch.manual_seed(5)
    expected = result_of(stack, way, x)
    for memory in MEMORY:
        for number in (1, 2):
            threads(number)
            stack.memory = memory
            torch.manual_seed(5)
            actual = result_of(stack, way, x)
            assert torch.equal(actual.value, expected.value)
            for mine, theirs in zip(actual.gradients, expected.gradients, strict=True):
                assert (mine - theirs).norm() <= 1e-10 * theirs.norm()
    torch.manual_seed(6)
    assert not torch.equal(result_of(stack, way, x).value, expected.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_evaluation_and_no_dropout_draw_nothing(share, way):
    """No unit is dropped, and torch's generator stays where it was."""
    stack = dropping(share=share).train(not share)
    x, _ = points(stack, 20)
    before = torch.get_rng_state()
    actual = result_of(stack, way, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(result_of(stack, way, x), actual)
    without = stack_of(4, 3, (8, 8))
    without.load_state_dict(stack.state_dict())
    assert torch.equal(result_of(without, way, x).value, actual.value)


def test_training_draws_from_the_global_generator():
    """In training each call draws again; a seed repeats it, with or without gradients."""
    stack = dropping()
    x, _ = points(stack, 20)
    first, second = stack(x)[0], stack(x)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    third = stack(x)[0]
    torch.manual_seed(3)
    with torch.no_grad():
        assert torch.equal(stack(x)[0], third)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_the_mean_is_that_of_evaluation(share):
    """Over draws the shift of one layer has the mean and the variance that dropout promises.

    A shift is a sum over hidden units, each 0 or 1 / (1 - q) of its own with probability q or
    1 - q: mean as in evaluation, variance q / (1 - q) times the sum of squares. 16384 independent
    draws show an error of the mean of 4 % of a standard deviation, and of the variance of 6 %.
    """
    draws = 16384
    stack = kf.CouplingStack(turns(4, 1), (16,), kind="additive", dropout=share).double().train()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.normal_()
    level = round(256 * share) / 256
    x = torch.tensor([[0.3, -0.8, 0.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        shift = stack(x.expand(draws, 4))[0][:, 2:]
        mean = stack.eval()(x)[0][0, 2:]
    network = stack.plain().bijections[0].conditioner
    hidden = torch.relu(network.layers[0](x[:, :2]))[0]
    terms = network.layers[1].weight * hidden
    variance = (terms.square().sum(1) * level / (1 - level)).detach()
    z = (shift.mean(0) - mean) / (variance / draws).sqrt()
    assert z.abs().max() < 4
    moment = (shift - mean).pow(4).mean(0)
    z = (shift.var(0) - variance) / ((moment - variance.square()) / draws).sqrt()
    assert z.abs().max() < 4


@pytest.mark.usefixtures("chunked")
def test_rows_and_layers_and_chunks_draw_apart():
    """Equal rows have different units left out, in a chunk, in another chunk and in each layer."""
    stack = kf.CouplingStack(turns(2, 4), (64,), kind="additive", dropout=0.5).double().train()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.normal_()
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64).expand(80, 2)
    with torch.no_grad():
        value = stack(x)[0]
    assert len(value.unique(dim=0)) == 80
    # Layers with equal weights that read the same: their shifts differ.
    way = kf.CouplingStack([kf.Partition.half(2)] * 2, (64,), kind="additive", dropout=0.5).train()
    with torch.no_grad():
        for tensor in way.parameters():
            tensor.copy_(torch.ones_like(tensor[:1]).expand_as(tensor) / 64)
        both = way(torch.ones(80, 2))[0][:, 1]
        way.load_state_dict({
            name: torch.zeros_like(t) if "bijections.1" in name else t
            for name, t in way.state_dict().items()
        })
        one = way(torch.ones(80, 2))[0][:, 1]
    ratio = (both - 1).var() / (one - 1).var()  # 2 if they are independent, 4 if they are equal
    assert 1.2 < ratio < 2.9


@pytest.mark.parametrize("memory", MEMORY)
def test_both_directions_leave_out_the_same_units_after_the_same_seed(memory):
    """Also over several blocks: in training mode, too, the inverse is that of the forward map."""
    stack = stack_of(4, 40, (8,), dropout=0.3, memory=memory).train()
    x, _ = points(stack, 9)
    torch.manual_seed(5)
    z, _ = stack(x)
    torch.manual_seed(5)
    back, _ = stack.inverse(z)
    assert (back - x).abs().max() < 1e-8
