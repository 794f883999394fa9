"""What all networks for images promise, and the parts that they share."""

import json

import pytest
import torch

import kappaflow as kf
from kappaflow.nets.layers import fast_layout
from kappaflow.testing.contract import jittered

HEIGHT, WIDTH, INPUTS, OUTPUTS, CONTEXT = 3, 5, 2, 4, 3

NETS = {
    "ConvNet": lambda inputs=INPUTS, **settings: kf.nets.ConvNet(inputs, OUTPUTS, 6, **settings),
    "ResidualConvNet": lambda inputs=INPUTS, **settings: kf.nets.ResidualConvNet(
        inputs, OUTPUTS, 6, **settings
    ),
    "VisionTransformer": lambda inputs=INPUTS, **settings: kf.images.VisionTransformer(
        inputs, OUTPUTS, **{"width": 8, "heads": 2, "places": (HEIGHT, WIDTH), **settings}
    ),
}
every_net = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


def images(rows=3, channels=INPUTS, places=(HEIGHT, WIDTH), dtype=torch.float64):
    """Returns random images."""
    return torch.randn(rows, channels, *places, dtype=dtype)


def contexts(rows=3):
    """Returns random contexts."""
    return torch.randn(rows, CONTEXT, dtype=torch.float64)


def ready(make, **settings):
    """Returns a network off its start, in float64."""
    return jittered(make(**settings)).double()


@every_net
def test_a_new_network_answers_exactly_zero(make):
    """Whatever it reads."""
    net = make(context_features=CONTEXT)
    answer = net(images(dtype=torch.float32), contexts().float())
    assert answer.shape == (3, OUTPUTS, HEIGHT, WIDTH) and answer.abs().max() == 0


@pytest.mark.slow
@every_net
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("places", [(1, 1), (1, 4), (5, 2), (3, 3)])
def test_images_of_any_height_and_width_are_taken(make, places, dtype):
    """Odd ones and single places too; the answer has the type of the image and is contiguous."""
    fixed = {"places": places} if make is NETS["VisionTransformer"] else {}
    net, x = jittered(make(**fixed)).to(dtype), images(places=places, dtype=dtype)
    answer = net(x)
    assert answer.shape == (3, OUTPUTS, *places)
    assert answer.dtype == dtype and answer.is_contiguous()
    assert net(x[:0]).shape == (0, OUTPUTS, *places)


@every_net
def test_a_row_does_not_depend_on_the_others(make):
    """Not even on ones that hold nothing but nan."""
    net, x, context = ready(make, context_features=CONTEXT), images(), contexts()
    answer = net(x, context)
    x[1:], context[1:] = torch.nan, torch.nan
    assert torch.equal(net(x, context)[0], answer[0])
    torch.testing.assert_close(net(x[:1], context[:1])[0], answer[0], rtol=1e-12, atol=1e-12)


@every_net
def test_every_image_channel_and_context_counts(make):
    """A change of any one of them changes the answer of its row."""
    net, x, context = ready(make, context_features=CONTEXT), images(), contexts()
    answer = net(x, context)
    for tensor in (x, context):
        for i in range(tensor.shape[1]):
            tensor[0, i] += 1
            assert (net(x, context)[0] - answer[0]).abs().max() > 1e-6
            tensor[0, i] -= 1


@every_net
def test_a_context_may_be_all_there_is_to_read(make):
    """With images of no channels; the answer still differs by row, and has a gradient."""
    net = ready(make, inputs=0, context_features=CONTEXT)
    context = contexts().requires_grad_()
    answer = net(images(channels=0), context)
    assert answer.shape == (3, OUTPUTS, HEIGHT, WIDTH)
    assert not torch.equal(answer[0], answer[1])
    assert torch.autograd.grad(answer.sum(), context)[0].abs().min() > 0


@every_net
def test_training_and_gradients_do_not_change_the_answer(make):
    """No state, no noise: the same bits in training, in evaluation, with a graph and without."""
    net, x = ready(make), images()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    answer = net.train()(x)
    with torch.no_grad():
        assert torch.equal(net(x), answer) and torch.equal(net.eval()(x), answer)
    assert not list(net.buffers())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@every_net
def test_a_model_file_can_name_it(make):
    """Described, written as JSON, built and given its weights, it answers the same."""
    net, x, context = ready(make, context_features=CONTEXT), images(), contexts()
    description = json.loads(json.dumps(kf.registry.describe(net)))
    again = kf.registry.build(description).double()
    assert type(again) is type(net) and kf.registry.describe(again) == kf.registry.describe(net)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x, context), net(x, context))


@every_net
def test_mixed_precision_trains_it(make):
    """In bfloat16 the answer and the gradients are those of float32, to a few per cent."""
    net, x = jittered(make()), images(dtype=torch.float32)
    actual = {}
    for mixed in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            answer = net(x).float()
        gradients = torch.autograd.grad(answer.square().sum(), list(net.parameters()))
        actual[mixed] = torch.cat([answer.flatten(), *(slope.flatten() for slope in gradients)])
    error = (actual[True] - actual[False]).norm() / actual[False].norm()
    assert 0 < error < 0.05


@every_net
def test_it_can_be_planned_on_the_meta_device(make):
    """Where nothing has a value."""
    net = make().to("meta")
    assert net(images().to("meta", torch.float32)).shape == (3, OUTPUTS, HEIGHT, WIDTH)


def test_channels_lie_side_by_side_on_a_cpu_only():
    """The values are the same, the order in memory is that of the faster convolutions."""
    x = images()
    assert fast_layout(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(fast_layout(x), x)
    assert fast_layout(x.to("meta")).is_contiguous()


@every_net
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": -1}, "'inputs' should be at least 0, got -1"),
        ({"inputs": 0}, r"'inputs \+ context_features' .* a network needs something to read"),
        ({"context_features": 2.0}, "'context_features' should be a whole number"),
    ],
)
def test_widths_that_cannot_be_are_refused(make, settings, message):
    """The message names the argument and its value."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        make(**settings)


@every_net
@pytest.mark.parametrize(
    ("x", "context", "message"),
    [
        ((3, 2, 3, 5), None, r"'context' should be given, of shape \(batch, 3\)"),
        ((3, 2, 3, 5), (3, 2), r"'context' should have shape \(batch, 3\), got \(3, 2\)"),
        ((3, 2, 3, 5), (1, 3), "'context' should have 3 rows, as 'x' has, got 1"),
        ((3, 4, 3, 5), (3, 3), r"'x' should have shape \(batch, 2, height, width\), got \(3, 4"),
        ((3, 2, 5), (3, 3), r"'x' should have shape \(batch, 2, height, width\), got \(3, 2, 5\)"),
    ],
)
def test_an_image_or_a_context_of_another_shape_is_refused(make, x, context, message):
    """Nothing is broadcast, and no context is left out, by mistake."""
    net = make(context_features=CONTEXT)
    with pytest.raises(kf.errors.ArgumentError, match=message):
        net(torch.zeros(x), None if context is None else torch.zeros(context))


@every_net
def test_a_context_that_nobody_reads_is_refused(make):
    """It would have no effect."""
    with pytest.raises(kf.errors.ArgumentError, match="'context' should be None, got a tensor"):
        make()(images(dtype=torch.float32), contexts().float())
