"""Embeddings of contexts in recipes: what layers see, what is saved, what is refused."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.flows import set_bounds
from kappaflow.flows.recipe import from_options

RECIPES = {
    "real_nvp": lambda **more: from_options(kf.real_nvp, 3, depth=2, hidden=(8,), **more),
    "nice": lambda **more: from_options(kf.nice, 3, depth=2, hidden=(8,), **more),
    "spline": lambda **more: from_options(kf.spline, 3, depth=2, hidden=(8,), **more),
}


def embedding():
    """Returns a network from contexts of five numbers to two, with weights that are not zero."""
    torch.manual_seed(5)
    net = kf.nets.MLP(5, 2, (8,))
    nn.init.normal_(net.layers[-1].weight)
    return net


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_layers_see_what_the_embedding_makes_of_a_context(recipe, tmp_path):
    """The same flow without one, at the embedded context; and it is saved with its weights."""
    flow = RECIPES[recipe](context_features=5, embedding=embedding())
    plain = RECIPES[recipe](context_features=2)
    x, context = torch.randn(6, 3), torch.randn(6, 5)
    for of, of_plain in zip(flow.parameters(), plain.parameters(), strict=False):
        assert of.shape == of_plain.shape
    own = {n: p for n, p in flow.state_dict().items() if "embedding" not in n}
    for name, tensor in own.items():
        if tensor.is_floating_point() and name.startswith("bijection.bijections.1"):
            nn.init.normal_(tensor, std=0.3)
    plain.load_state_dict(own, strict=False)
    expected = plain.log_prob(x, embedding()(context))
    torch.testing.assert_close(flow.log_prob(x, context), expected)
    kf.save(flow, tmp_path / "model")
    assert torch.equal(kf.load(tmp_path / "model").log_prob(x, context), flow.log_prob(x, context))


def test_an_embedding_outlives_bounds():
    """Of a flow that `fit` gives bounds: the same module with its weights, which then learns."""
    net = embedding()
    flow = kf.real_nvp(1, depth=2, hidden=(8,), context_features=5, network={"embedding": net})
    before = [p.clone() for p in net.parameters()]
    set_bounds(flow, ["positive"])
    assert flow.domain.domains[0].description == "above 0"
    own = {id(parameter) for parameter in flow.parameters()}
    assert all(id(parameter) in own for parameter in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    x, context = torch.rand(300, 1) + 0.1, torch.randn(300, 5)
    kf.fit(flow, (x, context), max_epochs=2, batch_size=64)
    assert all((a != b).any() for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding": embedding()}, "'context_features' should be given with an embedding"),
        ({"context_features": 4, "embedding": embedding()}, "should map rows of 4 numbers"),
        ({"context_features": 5, "embedding": "mlp"}, "should be a torch.nn.Module, got str"),
        ({"context_features": 5, "embedding": nn.Flatten(0)}, r"to rows \(B, width\)"),
    ],
)
def test_what_is_no_embedding_of_such_contexts_is_refused(arguments, message):
    """In one sentence."""
    with pytest.raises(ArgumentError, match=message):
        from_options(kf.real_nvp, 3, depth=2, hidden=(8,), **arguments)
