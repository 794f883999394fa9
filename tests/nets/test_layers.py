"""What all networks for images promise, and the parts that they share."""

import json

import pytest
import torch
from torch.autograd import forward_ad

import kappaflow as kf
from kappaflow.linearization import AutogradLinearization
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


def forward_mode(net, x, v, context):
    """Returns J v by dual numbers, which leave a graph."""
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(net(forward_ad.make_dual(x, v), context)).tangent


def double_vjp(net, x, v, context):
    """Returns J v as the derivative of u -> J^T u."""
    x = x.clone().requires_grad_()
    answer = net(x, context)
    u = torch.zeros_like(answer, requires_grad=True)
    pulled = torch.autograd.grad(answer, x, u, create_graph=True)[0]
    return torch.autograd.grad(pulled, u, v, create_graph=True)[0]


def transformed(net, x, v, context):
    """Returns J v by torch.func."""
    return torch.func.jvp(lambda point: net(point, context), (x,), (v,))[1]


def finite_difference(function, step=1e-6):
    """Returns the derivative of a function of one number at 0."""
    with torch.no_grad():
        return (function(step) - function(-step)) / (2 * step)


@every_net
@pytest.mark.parametrize("product", [forward_mode, double_vjp, transformed])
def test_the_derivative_by_every_route_is_that_of_finite_differences(make, product):
    """Forward mode needs no vmap, and a vjp can be differentiated."""
    net, x, v, context = ready(make, context_features=CONTEXT), images(), images(), contexts()
    expected = finite_difference(lambda step: net(x + step * v, context))
    torch.testing.assert_close(product(net, x, v, context), expected, rtol=1e-6, atol=1e-8)


@every_net
@pytest.mark.parametrize("product", [forward_mode, double_vjp])
def test_products_with_the_derivative_can_be_differentiated(make, product):
    """By all parameters, as a regularizer of the condition number needs it."""
    net, x, v, u = ready(make), images(), images(), images(channels=OUTPUTS)
    weights = dict(net.named_parameters())
    direction = {name: torch.randn_like(weight) for name, weight in weights.items()}

    def moved(step):
        shifted = {n: (w + step * direction[n]).detach() for n, w in weights.items()}
        return (u * product(parametrized(net, shifted), x, v, None).detach()).sum()

    pairing = (u * product(net, x, v, None)).sum()
    slopes = torch.autograd.grad(pairing, list(weights.values()), materialize_grads=True)
    found = sum((slope * way).sum() for slope, way in zip(slopes, direction.values(), strict=True))
    with torch.enable_grad():
        expected = (moved(1e-6) - moved(-1e-6)) / 2e-6
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def parametrized(net, weights):
    """Returns a network with other parameters, as a function."""
    return lambda x, context: torch.func.functional_call(net, weights, (x, context))


@every_net
def test_several_vectors_a_point_go_through_at_once(make):
    """As the spectra ask for them, forward and back."""
    net = ready(make, inputs=OUTPUTS, context_features=CONTEXT)
    x, context = images(channels=OUTPUTS), contexts()
    linearization = AutogradLinearization(lambda *at: (net(*at), None), None, x, context)
    v, u = torch.randn(2, 2, *x.shape).double()
    for one, found in zip(v, linearization.jv(v), strict=True):
        torch.testing.assert_close(found, double_vjp(net, x, one, context))
    torch.testing.assert_close((linearization.vjp(u) * v).sum(), (u * linearization.jv(v)).sum())


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
def test_a_coupling_of_images_can_use_it(make):
    """And comes back to where it started."""
    net = ready(make, context_features=CONTEXT)
    coupling = kf.AffineCoupling(kf.Partition.half(2 * INPUTS), net, context_features=CONTEXT)
    x, context = images(channels=2 * INPUTS), contexts()
    z, log_det = coupling(x, context)
    back, log_det_back = coupling.inverse(z, context)
    torch.testing.assert_close(back, x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-13, atol=1e-13)
    assert log_det.abs().min() > 1e-3


@every_net
def test_mixed_precision_trains_it(make):
    """In bfloat16 the answer and the gradients are those of float32, to a few per cent."""
    net, x = jittered(make()), images(dtype=torch.float32)
    found = {}
    for mixed in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            answer = net(x).float()
        gradients = torch.autograd.grad(answer.square().sum(), list(net.parameters()))
        found[mixed] = torch.cat([answer.flatten(), *(slope.flatten() for slope in gradients)])
    error = (found[True] - found[False]).norm() / found[False].norm()
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
def test_outputs_that_cannot_be_are_refused(make):
    """A network has to answer something."""
    with pytest.raises(kf.errors.ArgumentError, match="'outputs' should be at least 1, got 0"):
        type(make())(2, 0)


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
