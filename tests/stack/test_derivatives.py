"""Derivatives that the fast node does not know: they go through the plain couplings."""

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

import kappaflow as kf
from cases import alternating
from kappaflow.bijections.log_scales import SCALES
from kappaflow.errors import ArgumentError
from stack.examples import MEMORY, WAYS, points, stack_of

TINY = {
    "affine": {"kind": "affine"},
    "additive": {"kind": "additive"},
    "context": {"context_features": 1, "residual": True, "hidden": (3, 3)},
    "permuted, uneven": {"partition": "uneven", "permuted": True},
    "no hidden layer": {"hidden": ()},
    **{scale: {"scale": scale} for scale in SCALES if scale != "tanh"},
    "paired": {"hidden": (4, 2), "wiring": "paired"},
    "residual blocks": {"hidden": (3,) * 3, "wiring": "blocks", "context_features": 1},
}


def tiny(name, **settings):
    """Returns a stack of three couplings of three features."""
    return stack_of(3, 3, **{"hidden": (3,), **TINY[name], **settings})


def function_of(stack, way):
    """Returns (x, context or nothing, weights) -> (value, log_det), and such arguments."""
    x, context = points(stack, 2)
    inputs = [x] if context is None else [x, context]
    names = [name for name, _ in stack.named_parameters()]
    given = [*inputs, *(p.detach() for p in stack.parameters())]
    module = stack if way == "forward" else kf.Inverse(stack)
    prefix = "" if way == "forward" else "bijection."

    def function(*arguments):
        weights = {prefix + n: w for n, w in zip(names, arguments[len(inputs) :], strict=True)}
        return functional_call(module, weights, arguments[: len(inputs)])

    return function, [g.clone().requires_grad_() for g in given]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "memory"), alternating(TINY, *MEMORY))
def test_gradients_are_differences(name, way, memory):
    """Gradients of value and log_det by points, context and weights are finite differences."""
    function, given = function_of(tiny(name, memory=memory), way)
    assert gradcheck(function, given, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TINY)
def test_second_derivatives_are_differences(name, way):
    """Gradients of gradients, by all inputs, are finite differences of gradients."""
    function, given = function_of(tiny(name), way)
    if name == "additive":  # its log_det is a constant
        assert gradgradcheck(lambda *a: function(*a)[0], given, fast_mode=True)
    else:
        assert gradgradcheck(function, given, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["affine", "additive"])
def test_a_penalty_on_gradients(kind, way, memory):
    """The gradient of a gradient's norm, by the weights of a deep stack, is the chain's."""
    stack = stack_of(4, 33, (5,), kind=kind, memory=memory)
    x, _ = points(stack, 6)
    found = []
    for module in (stack, stack.to_chain()):
        inputs = x.clone().requires_grad_()
        value, log_det = (module if way == "forward" else module.inverse)(inputs)
        loss = value.square().sum() + log_det.sum()
        (first,) = torch.autograd.grad(loss, inputs, create_graph=True)
        first.square().sum().backward()
        weights = [part.conditioner.layers[1].weight.grad for part in module]
        found.append([first.detach(), inputs.grad, *weights])
    for mine, theirs in zip(*found, strict=True):
        assert (mine - theirs).norm() <= 1e-10 * theirs.norm()


@pytest.mark.parametrize("memory", MEMORY)
def test_a_graph_asked_for_is_the_first_derivative_too(memory):
    """With `create_graph` the first derivatives are those without, and can be asked for again."""
    stack = stack_of(4, 4, memory=memory)
    x, _ = points(stack, 6)
    x.requires_grad_()
    value, log_det = stack(x)
    loss = value.square().sum() + log_det.sum()
    inputs = [x, *stack.parameters()]
    first = torch.autograd.grad(loss, inputs, create_graph=True)
    second = torch.autograd.grad(loss, inputs)
    for mine, theirs in zip(first, second, strict=True):
        assert mine.requires_grad
        assert (mine - theirs).norm() <= 1e-12 * theirs.norm()


def test_only_what_is_asked_for_is_derived_twice():
    """With frozen weights, or a frozen context, `create_graph` gives what is left."""
    stack = stack_of(4, 3, context_features=2).requires_grad_(False)
    x, context = points(stack, 6)
    x.requires_grad_()
    (first,) = torch.autograd.grad(stack(x, context)[0].sin().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sin().sum(), x)
    chain = stack.to_chain()
    (expected,) = torch.autograd.grad(chain(x, context)[0].sin().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(expected.sin().sum(), x)
    assert (second - expected).norm() <= 1e-11 * expected.norm()


def test_dropout_has_no_second_derivative():
    """In training mode with dropout a second derivative is refused, and evaluation has one."""
    stack = stack_of(4, 3, dropout=0.5).train()
    x, _ = points(stack, 6)
    x.requires_grad_()
    with pytest.raises(
        ArgumentError, match=r"dropout have no second derivatives.*call flow.eval\(\)"
    ):
        torch.autograd.grad(stack(x)[0].sum(), x, create_graph=True)
    stack.eval()
    assert torch.autograd.grad(stack(x)[0].sin().sum(), x, create_graph=True)[0].requires_grad


def test_a_graph_made_in_evaluation_mode_stays_there():
    """A second derivative taken after `train()` is that of the pass, which left out no units."""
    stack = stack_of(4, 3, dropout=0.5).eval()
    x, _ = points(stack, 6)
    x.requires_grad_()
    loss = stack(x)[0].square().sum()
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    stack.train()
    (found,) = torch.autograd.grad(loss, x, create_graph=True)
    assert (found - expected).norm() <= 1e-12 * expected.norm()
    assert stack.training


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["affine", "additive"])
def test_forward_mode_is_the_chains(kind, way):
    """Dual points, contexts, and any dual weight give the tangents of the plain chain."""
    stack = stack_of(4, 3, kind=kind, context_features=2)
    x, context = points(stack, 5)
    chain = stack.plain()
    function, given = function_of(stack, way)
    plain = chain if way == "forward" else chain.inverse
    with forward_ad.dual_level():
        dual_x = forward_ad.make_dual(x, x.cos())
        dual_context = forward_ad.make_dual(context, context.cos())
        for inputs in ((dual_x, context), (x, dual_context), (dual_x, dual_context)):
            mine = (stack if way == "forward" else stack.inverse)(*inputs)
            for one, other in zip(mine, plain(*inputs), strict=True):
                one, other = (forward_ad.unpack_dual(t).tangent for t in (one, other))
                assert (one is None) == (other is None)
                assert one is None or torch.allclose(one, other, rtol=1e-11)
    for place, tensor in enumerate(given):
        with forward_ad.dual_level():
            duals = [t.detach() for t in given]
            duals[place] = forward_ad.make_dual(duals[place], tensor.detach().cos())
            found = forward_ad.unpack_dual(function(*duals)[0]).tangent
        _, expected = torch.autograd.functional.jvp(
            lambda t, place=place: function(*given[:place], t, *given[place + 1 :])[0],
            tensor.detach(),
            tensor.detach().cos(),
        )
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12), place


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("memory", MEMORY)
def test_transforms_of_functions(way, memory):
    """`jvp`, `vjp`, `jacfwd`, `jacrev`, `grad` and `vmap` agree with each other."""
    stack = stack_of(4, 3, memory=memory)
    x, _ = points(stack, 5)
    whole = stack if way == "forward" else stack.inverse

    def value(points):
        return whole(points)[0]

    def one(point):
        return whole(point[None])[0][0]

    expected = torch.autograd.functional.jacobian(value, x)
    dense = torch.stack([expected[i, :, i] for i in range(5)])
    for jacobian in (jacfwd(value)(x), jacrev(value)(x)):
        assert torch.allclose(jacobian, expected, rtol=1e-10, atol=1e-12)
    for jacobian in (vmap(jacfwd(one))(x), vmap(jacrev(one))(x)):
        assert torch.allclose(jacobian, dense, rtol=1e-10, atol=1e-12)
    assert torch.allclose(vmap(one)(x), value(x), rtol=1e-12)
    direction = x.cos()
    image, tangent = jvp(value, (x,), (direction,))
    assert torch.allclose(image, value(x), rtol=1e-12)
    assert torch.allclose(tangent, torch.einsum("bij,bj->bi", dense, direction), rtol=1e-10)
    _, back = vjp(value, x)
    assert torch.allclose(back(direction)[0], torch.einsum("bij,bi->bj", dense, direction))
    log_abs = torch.linalg.slogdet(dense).logabsdet
    assert torch.allclose(whole(x)[1], log_abs, rtol=1e-9, atol=1e-12)
    slope = grad(lambda points: whole(points)[1].sum())(x)
    inputs = x.clone().requires_grad_()
    (usual,) = torch.autograd.grad(whole(inputs)[1].sum(), inputs)
    assert torch.allclose(slope, usual, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("memory", MEMORY)
def test_other_weights_in_place_of_its_own(memory):
    """`functional_call` uses the weights given, by the fast node too, and gradients reach them."""
    stack = stack_of(4, 33, (5,), memory=memory)
    x, _ = points(stack, 6)
    own = {name: p.detach().clone() for name, p in stack.named_parameters()}
    others = {name: (1.1 * t).requires_grad_() for name, t in own.items()}
    value, log_det = functional_call(stack, others, (x,))
    assert type(value.grad_fn).__name__ == "_NodeBackward"
    found = torch.autograd.grad(value.square().sum() + log_det.sum(), list(others.values()))
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(1.1)
    value, log_det = stack(x)
    loss = value.square().sum() + log_det.sum()
    expected = torch.autograd.grad(loss, list(stack.parameters()))
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)

    def by_weights(weights):
        value, log_det = functional_call(stack, weights, (x,))
        return value.square().sum() + log_det.sum()

    found = grad(by_weights)(dict(stack.named_parameters()))
    for mine, theirs in zip(found.values(), expected, strict=True):
        assert (mine - theirs).norm() <= 1e-10 * theirs.norm()


@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_each_row(way):
    """`vmap` of `grad` gives each row's gradient by the stacked weights."""
    stack = stack_of(4, 3)
    x, _ = points(stack, 3)
    weights = {name: p.detach() for name, p in stack.named_parameters()}
    prefix = "" if way == "forward" else "bijection."
    module = stack if way == "forward" else kf.Inverse(stack)

    def loss(weights, row):
        named = {prefix + name: tensor for name, tensor in weights.items()}
        value, log_det = functional_call(module, named, (row[None],))
        return value.square().sum() + log_det.sum()

    by_row = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    value, log_det = module(x)
    expected = torch.autograd.grad(value.square().sum() + log_det.sum(), list(stack.parameters()))
    for mine, theirs in zip(by_row.values(), expected, strict=True):
        assert (mine.sum(0) - theirs).norm() <= 1e-10 * theirs.norm()


@pytest.mark.parametrize("name", TINY)
def test_the_linearization_is_the_chains(name):
    """The four products of `linearize` are those of the dense Jacobian."""
    stack = tiny(name)
    x, context = points(stack, 5)
    found = stack.linearize(x, context)
    jacobian = torch.autograd.functional.jacobian(lambda t: stack(t, context)[0], x)
    dense = torch.stack([jacobian[i, :, i] for i in range(5)])
    v = x.cos()
    close = {"rtol": 1e-9, "atol": 1e-11}
    assert torch.allclose(found.value, stack(x, context)[0], **close)
    assert torch.allclose(found.jv(v), torch.einsum("bij,bj->bi", dense, v), **close)
    assert torch.allclose(found.vjp(v), torch.einsum("bij,bi->bj", dense, v), **close)
    assert torch.allclose(found.inverse_jv(found.jv(v)), v, **close)
    assert torch.allclose(found.inverse_vjp(found.vjp(v)), v, **close)


def test_gradients_flow_through_a_round_trip():
    """A loss on `inverse(forward(x))` has the gradient of the identity by x, none by weights."""
    stack = stack_of(4, 34, (5,))
    x, _ = points(stack, 6)
    x.requires_grad_()
    back = stack.inverse(stack(x)[0])[0]
    weights = torch.arange(24, dtype=torch.float64).view(6, 4)
    found = torch.autograd.grad((back * weights).sum(), [x, *stack.parameters()])
    assert (found[0] - weights).norm() <= 1e-9 * weights.norm()
    for gradient in found[1:]:
        assert gradient.norm() <= 1e-8 * weights.norm()


def test_anomaly_detection_and_hooks_work():
    """Hooks on values and on weights see gradients, also with torch's anomaly detection."""
    stack = stack_of(4, 3)
    x, _ = points(stack, 5)
    seen = []
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        value, log_det = stack(x)
        value.register_hook(seen.append)
        handle = next(stack.parameters()).register_hook(seen.append)
        (value.sum() + log_det.sum()).backward()
    assert len(seen) == 2
    handle.remove()
