"""The derivative of a fully connected network from one recorded pass."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import kappaflow as kf
from kappaflow.nets.linearized import LinearizedMLP, is_plain
from kappaflow.testing.contract import jittered

SHAPES = {
    "two hidden layers": dict(inputs=3, outputs=4, hidden=(8, 6)),
    "no hidden layer": dict(inputs=3, outputs=2, hidden=()),
    "one input, one output": dict(inputs=1, outputs=1, hidden=(5,)),
    "context": dict(inputs=3, outputs=2, hidden=(8,), context_features=2),
    "context alone": dict(inputs=0, outputs=2, hidden=(8,), context_features=2),
    "residual": dict(inputs=3, outputs=2, hidden=(6, 6, 5, 5), residual=True),
    "residual from the input on": dict(inputs=3, outputs=2, hidden=(3, 3), residual=True),
    "residual from input and context on": dict(
        inputs=2, outputs=2, hidden=(5, 5), residual=True, context_features=3
    ),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def built(shape, dtype=torch.float64, rows=6):
    """Returns a network off its start, with inputs and contexts."""
    torch.manual_seed(3)
    net = jittered(kf.nets.MLP(**shape), seed=5).to(dtype)
    width = shape.get("context_features", 0)
    context = torch.randn(rows, width, dtype=dtype) if width else None
    return net, torch.randn(rows, shape["inputs"], dtype=dtype), context


def jacobians(net, x, context):
    """Returns the matrices (B, outputs, inputs) by autograd, a row of the batch at a time."""
    rows = [
        torch.autograd.functional.jacobian(
            lambda row, own=own: net(row[None], own)[0], x[i]
        ).reshape(net.outputs, x.shape[1])
        for i, own in enumerate([None] * len(x) if context is None else context[:, None])
    ]
    return torch.stack(rows)


@pytest.mark.slow
@shapes
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("vectors", [(), (1,), (4,)])
def test_products_are_those_of_the_dense_jacobian(shape, dtype, vectors):
    """C v and C^T u, for one vector a point and for several."""
    net, x, context = built(shape, dtype)
    actual, matrix = LinearizedMLP(net, x, context), jacobians(net, x, context)
    v = torch.randn(*vectors, *x.shape, dtype=dtype)
    u = torch.randn(*vectors, len(x), net.outputs, dtype=dtype)
    size = 50 * torch.finfo(dtype).eps
    assert torch.equal(actual.value, net(x, context))
    torch.testing.assert_close(
        actual.jv(v), torch.einsum("bij,...bj->...bi", matrix, v), rtol=size, atol=size
    )
    torch.testing.assert_close(
        actual.vjp(u), torch.einsum("bij,...bi->...bj", matrix, u), rtol=size, atol=size
    )


def test_nothing_is_kept_that_a_graph_would():
    """Without gradients the products are plain numbers."""
    net, x, _ = built(SHAPES["two hidden layers"])
    with torch.no_grad():
        assert not LinearizedMLP(net, x).jv(x).requires_grad


class Doubled(kf.nets.MLP):
    """Not what its layers say."""

    def forward(self, x, context=None):
        return 2 * super().forward(x, context)


def altered():
    """Returns networks that are not what their class and layers say, by name."""

    def make(kind=kf.nets.MLP, **more):
        return jittered(kind(2, 2, (4,), **more))

    actual = {
        "a subclass": make(Doubled),
        "another class": nn.Sequential(nn.Linear(2, 2)),
        "dropout at work": make(dropout=0.5).train(),
        "a parametrization": make(),
        "a layer of another kind": make(),
    }
    parametrizations.weight_norm(actual["a parametrization"].layers[0])
    actual["a layer of another kind"].layers[0] = nn.Sequential(nn.Linear(2, 4))
    for place in ("network", "layer"):
        for hook in ("register_forward_hook", "register_forward_pre_hook"):
            net = actual[f"{hook} of the {place}"] = make()
            getattr(net if place == "network" else net.layers[0], hook)(lambda *_: None)
        net = actual[f"a forward of the {place}'s own"] = make()
        (net if place == "network" else net.layers[-1]).forward = lambda x: x
    return actual


@pytest.mark.parametrize("name", altered())
def test_an_altered_network_is_not_taken_for_plain(name):
    """Only autograd knows what it does."""
    assert not is_plain(altered()[name])


def test_a_plain_network_is():
    """In training as well, and with dropout while that is not at work."""
    assert is_plain(kf.nets.MLP(2, 2).train())
    assert is_plain(kf.nets.MLP(2, 2, dropout=0.5).eval())
