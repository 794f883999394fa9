"""Steps that run as one node: the same function as layer by layer, and when they do not."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import kappaflow as kf
from kappaflow.autograd.checkpoint import memory_modes_bypassed
from kappaflow.bijections.image_chain import ImageChain, StepNode, Triangles
from kappaflow.testing.contract import jittered, reference_jacobian, require_close

CONTEXT = 2


def steps(channels=4, *, form="lu", norm=True, context=0, memory="store", kind=ImageChain):
    """Returns a chain of two steps off their start, and a squeeze between them."""
    torch.manual_seed(0)
    layers = []
    for n in (channels, 4 * channels):
        half = kf.Partition.half(n)
        net = kf.nets.ConvNet(
            len(half.kept), 2 * len(half.changed), 5, context_features=context, memory=memory
        )
        coupling = kf.AffineCoupling(half, net, context_features=context)
        layers += [kf.bijections.ActNorm(n)] if norm else []
        layers += [kf.bijections.InvertibleConv1x1(n, form=form), coupling]
        layers += [kf.bijections.Squeeze()] if n == channels else []
    chain = jittered(kind(layers))
    for part in chain:
        if norm and isinstance(part, kf.bijections.ActNorm):
            part.initialized.fill_(True)
    return chain


def images(channels=4, context=0, dtype=torch.float64):
    """Returns images and contexts that want gradients."""
    torch.manual_seed(1)
    x = torch.randn(3, channels, 4, 6, dtype=dtype, requires_grad=True)
    return (x, torch.randn(3, context, dtype=dtype, requires_grad=True)) if context else (x,)


@pytest.fixture
def runs(monkeypatch):
    """Counts the steps that run as one."""
    count, apply = [], StepNode.apply
    monkeypatch.setattr(StepNode, "apply", lambda *inputs: count.append(1) or apply(*inputs))
    return count


def everything(chain, points):
    """Returns value, log_det, and gradients by points, contexts and parameters."""
    z, log_det = chain(*points)
    loss = z.square().sum() + (log_det * torch.arange(1.0, 1 + len(log_det))).sum()
    inputs = [*points, *(p for p in chain.parameters() if p.requires_grad)]
    return [z, log_det, *torch.autograd.grad(loss, inputs)]


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("context", [0, CONTEXT])
@pytest.mark.parametrize(
    ("channels", "form", "norm"), [(4, "lu", True), (3, "svd", True), (4, "plain", False)]
)
def test_it_is_the_chain_of_its_layers(runs, memory, context, channels, form, norm):
    """Value, log_det and all gradients, in float64."""
    settings = {"form": form, "norm": norm, "context": context, "memory": memory}
    chain = steps(channels, **settings).double()
    points = images(channels, context)
    actual = everything(chain, points)
    assert len(runs) == 2
    plain = steps(channels, kind=kf.Chain, **settings).double()
    for first, second in zip(actual, everything(plain, points), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-11, atol=1e-11)


def test_without_gradients_it_runs_so_too(runs):
    """As scores and their rows do; and it comes back to where it started."""
    chain, (x,) = steps().double(), images()
    with torch.no_grad():
        z, log_det = chain(x)
        back, log_det_back = chain.inverse(z)
    assert len(runs) == 2
    torch.testing.assert_close(back, x.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_det_back, -log_det)


@pytest.mark.parametrize(
    ("form", "norm", "solved"), [("lu", True, 2), ("lu", False, 0), ("svd", True, 0)]
)
def test_the_way_back_is_that_of_the_layers(monkeypatch, form, norm, solved):
    """With and without gradients; without them triangles are solved with, where there are some."""
    count, solve = [], Triangles.solve
    monkeypatch.setattr(Triangles, "solve", lambda *inputs: count.append(1) or solve(*inputs))
    chain, plain = (steps(form=form, norm=norm, kind=k).double() for k in (ImageChain, kf.Chain))
    z = chain(*images())[0].detach()
    reference = plain.inverse(z)
    assert not count
    with torch.no_grad():
        for actual in (chain.inverse(z), chain.eval().inverse(z)):
            for first, second in zip(actual, reference, strict=True):
                torch.testing.assert_close(first, second.detach(), rtol=1e-11, atol=1e-11)
    assert len(count) == 2 * solved
    for first, second in zip(chain.inverse(z), reference, strict=True):
        assert torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_second_derivatives_are_right(memory):
    """Through the backward pass, by finite differences."""
    chain = steps(2, context=CONTEXT, memory=memory).double()
    points = [t[:2, ..., :2, :2] if t.dim() == 4 else t[:2] for t in images(2, CONTEXT)]
    points = [t.detach().requires_grad_() for t in points]
    assert torch.autograd.gradgradcheck(lambda *inputs: chain(*inputs), points)


def test_transforms_and_forward_mode_see_the_layers(runs):
    """The Jacobian by `torch.func` is the one that gradients tell."""
    chain, (x,) = steps(2).double(), images(2)
    point = x[:1, :, :2, :2].detach()
    jacobian = torch.func.jacrev(lambda x: chain(x)[0])(point).reshape(8, 8)
    assert not runs
    _, log_det = chain(point)
    assert len(runs) == 2
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[0].detach())


@pytest.mark.parametrize("index", [0, 1])
def test_layers_of_another_type_compute_in_theirs(index):
    """A norm, and a mixing, in float64 among others in float32."""
    chain, plain = steps(), steps(kind=kf.Chain)
    x = images(dtype=torch.float32)[0]
    for module in (chain, plain):
        module.bijections[index].double()
    at = reference_jacobian("forward", plain, x.detach(), None)
    value, log_det = chain(x)
    assert (value.dtype, log_det.dtype) == (at.value.dtype, at.log_det.dtype)
    require_close("the value", value, at.value, at.value_tolerance)
    require_close("the log_det", log_det, at.log_det, at.log_det_tolerance)


def hooked(chain):
    """Puts a hook on the network of the first step."""
    chain.bijections[2].conditioner.register_forward_hook(lambda *_: None)


def patterned(chain):
    """Makes the first step one of alternating channels."""
    chain.bijections[2].partition = kf.Partition.alternating(4)


def wrapped_around(chain):
    """Has the first network see images whose edges meet."""
    chain.bijections[2].conditioner.last.padding_mode = "circular"


def without_bias(chain):
    """Takes a bias out of the first network."""
    chain.bijections[2].conditioner.middle.bias = None


def hooked_inside(chain):
    """Puts a hook on the map of the first mixing."""
    chain.bijections[1].linear.register_forward_hook(lambda *_: None)


def half_rounded(chain):
    """Lays the first network out in another type."""
    chain.bijections[2].conditioner.middle.float()
    chain.bijections[2].conditioner.forward = lambda x: x.repeat(1, 2, 1, 1)


@pytest.mark.parametrize(
    "change", [hooked, hooked_inside, patterned, wrapped_around, without_bias, half_rounded]
)
def test_a_step_that_is_not_as_made_runs_layer_by_layer(runs, change):
    """The other one still runs as one."""
    chain = steps().double()
    change(chain)
    z, _ = chain(*images())
    assert len(runs) == 1
    torch.testing.assert_close(chain.inverse(z)[0], images()[0], rtol=1e-9, atol=1e-9)


def test_hooks_of_layers_are_called():
    """Of each kind of layer of a step."""
    chain, called = steps().double(), []
    for part in chain:
        part.register_forward_hook(lambda part, *_: called.append(type(part).__name__))
    chain(*images())
    assert called == [type(part).__name__ for part in chain]


@pytest.mark.parametrize("name", ["1.linear", "2.conditioner.middle", "2.conditioner.first"])
def test_hooks_of_gradients_are_called(name):
    """Of what a mixing and a network consist of."""
    chain, called = steps().double(), []
    part = chain.bijections.get_submodule(name)
    part.register_full_backward_hook(lambda *_: called.append(name))
    chain(*images())[0].sum().backward()
    assert called == [name]


def test_its_answer_may_be_changed_in_place():
    """As that of any layer, and without harm to the gradients."""
    chain, (x,) = steps().double(), images()
    (expected,) = torch.autograd.grad((2 * chain(x)[0]).square().sum(), x)
    (actual,) = torch.autograd.grad(chain(x)[0].mul_(2).square().sum(), x)
    torch.testing.assert_close(actual, expected)


def test_the_first_batch_starts_what_waits_for_it(runs):
    """Each from what reaches it, as layer by layer; not in evaluation mode."""
    chains = [steps(kind=kind).double() for kind in (ImageChain, kf.Chain)]
    for chain in chains:
        for part in chain:
            if isinstance(part, kf.bijections.ActNorm):
                part.initialized.fill_(False)
    waiting = [chain.eval()(*images())[0] for chain in chains]
    started = [chain.train()(*images())[0] for chain in chains]
    assert len(runs) == 4
    for first, second in (waiting, started):
        torch.testing.assert_close(first, second)
    assert not torch.allclose(waiting[0], started[0])
    assert all(part.initialized for part in chains[0] if isinstance(part, kf.bijections.ActNorm))


def test_a_first_batch_may_come_through_a_checkpoint(runs):
    """As the layers do one by one; and as one already, so that a checkpoint finds the same."""
    chain, plain = steps().double(), steps(kind=kf.Chain).double()
    for part in (*chain, *plain):
        if isinstance(part, kf.bijections.ActNorm):
            part.initialized.fill_(False)
    checkpoint(chain, *images(), use_reentrant=False)[0].sum().backward()
    assert len(runs) == 4
    plain(*images())
    for name, value in chain.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-10, atol=1e-10)
    assert all(part.initialized for part in chain if isinstance(part, kf.bijections.ActNorm))


def test_autocast_and_memory_modes_see_the_layers(runs):
    """Neither is what the node computes."""
    chain, (x,) = steps(), images(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chain(x)
    with memory_modes_bypassed():
        chain(x)
    chain.memory = "invert"
    chain(x)
    assert not runs


@pytest.mark.parametrize(("memory", "hidden"), [("store", 2 * 5), ("recompute", 0)])
def test_what_is_kept_is_the_input_the_answer_and_hidden_layers(memory, hidden):
    """24 places of 3 images: 4 channels in, 4 of the answer, twice 5 hidden ones."""
    torch.manual_seed(0)
    half = kf.Partition.half(4)
    coupling = kf.AffineCoupling(half, kf.nets.ConvNet(2, 4, 5, memory=memory))
    chain = ImageChain([kf.bijections.InvertibleConv1x1(4, form="plain"), coupling]).double()
    own, actual = {p.data_ptr() for p in chain.parameters()}, {}

    def pack(tensor):
        if tensor.data_ptr() not in own and tensor.numel() > 16:
            actual[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 8
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        chain(*images())
    assert sum(actual.values()) == 3 * 24 * (4 + 4 + hidden)


def test_gradients_of_each_image_by_vmap_are_those_of_one_at_a_time():
    """Without the layout that batches of `vmap` do not know."""
    chain, (x,) = steps().double(), images()

    def square(x):
        return chain(x[None])[0].square().sum()

    actual = torch.func.vmap(torch.func.grad(square))(x.detach())
    (expected,) = torch.autograd.grad(chain(x)[0].square().sum(), x)
    torch.testing.assert_close(actual, expected)
