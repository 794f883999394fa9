"""The state of a stack is that of the plain chain: names, errors, copies and files."""

import copy
import io
import pickle

import pytest
import torch

import kappaflow as kf
from stack.examples import (
    points,
    result_of,
    same,
    stack_of,
)

KINDS = {
    "half": {},
    "additive, context": {"kind": "additive", "context_features": 2},
    "two blocks, permuted": {"depth": 34, "permuted": True},
    "uneven, permuted, context": {
        "partition": "uneven",
        "permuted": True,
        "features": 5,
        "context_features": 1,
    },
    "no hidden layer": {"hidden": ()},
}


def made(name, **settings):
    """Returns a stack by the name of its kind."""
    return stack_of(**{"hidden": (5,), **KINDS[name], **settings})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("bijections.4.conditioner.layers.0.weight"),
            "Missing.*bijections.4.cond",
        ),
        (lambda s: s.pop("bijections.0.index"), "Missing.*bijections.0.index"),
        (
            lambda s: s.update({"bijections.99.conditioner.layers.0.weight": torch.ones(1)}),
            "Unexpected.*bijections.99.conditioner.layers.0.weight",
        ),
        (
            lambda s: s.update({"bijections.1.conditioner.layers.0.bias": torch.ones(7)}),
            r"size mismatch for bijections.1.conditioner.layers.0.bias: .*\[7\].*\[5\]",
        ),
        (
            lambda s: s.update({"bijections.0.index": s["bijections.0.index"].roll(1)}),
            "bijections.0.index differs from the permutation",
        ),
    ],
)
def test_a_wrong_state_is_refused_by_plain_names(change, message):
    """Missing, unexpected and misshapen tensors, and other permutations, are named as plain."""
    stack = made("two blocks, permuted")
    state = stack.state_dict()
    change(state)
    with pytest.raises(RuntimeError, match=message) as caught:
        stack.load_state_dict(state)
    assert "blocks." not in str(caught.value)


def test_the_type_can_be_changed():
    """`.to` and `.float` change all weights, and the results with them."""
    stack = made("two blocks, permuted", dtype=torch.float32)
    x, _ = points(stack, 5)
    doubled = stack.double()
    assert doubled is stack
    value, log_det = stack(x)
    assert value.dtype == log_det.dtype == torch.float64
    expected = stack.to_chain()(x)
    assert torch.allclose(value, expected[0], rtol=1e-11)
    value, log_det = stack.to(torch.float32)(x.float())
    assert value.dtype == log_det.dtype == torch.float32


def test_points_of_another_type_are_refused_as_by_the_chain():
    """Points of a type that is not the weights' raise what the plain chain raises."""
    stack = made("half", dtype=torch.float32)
    x, _ = points(stack, 5)
    for module in (stack, stack.to_chain()):
        with pytest.raises(RuntimeError, match=r"dtype|type"):
            module(x)


def test_narrow_types_go_through_the_chain():
    """bfloat16 points and weights work as in the plain chain, with a log_det in float32."""
    stack = made("half").to(torch.bfloat16)
    x, _ = points(stack, 5, dtype=torch.bfloat16)
    for mine, theirs in zip(stack(x), stack.to_chain()(x), strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)
    assert stack(x)[1].dtype == torch.float32


def copies(stack):
    """Yields copies made in each way that Python and torch have."""
    yield "deepcopy", copy.deepcopy(stack)
    yield "pickle", pickle.loads(pickle.dumps(stack))
    file = io.BytesIO()
    torch.save(stack, file)
    file.seek(0)
    yield "torch.save", torch.load(file, weights_only=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_copies_are_equal_and_apart(name):
    """Copies have equal results and state, and loading into one leaves the other alone."""
    stack = made(name, memory="store").train()
    x, context = points(stack, 5)
    expected = result_of(stack, "inverse", x, context)
    for way, other in copies(stack):
        assert repr(other) == repr(stack), way
        assert other.training
        assert same(result_of(other, "inverse", x, context), expected), way
        zeros = {
            n: torch.zeros_like(t) if t.is_floating_point() else t
            for n, t in other.state_dict().items()
        }
        other.load_state_dict(zeros)
        assert not any(p.any() for p in other.parameters()), way
        assert same(result_of(stack, "inverse", x, context), expected), way


def test_a_copy_made_while_a_graph_is_alive_works():
    """A stack can be copied between a forward and its backward pass, as early stopping does."""
    stack = made("half")
    x, _ = points(stack, 5)
    expected = result_of(stack, "forward", x)
    value, _ = stack(x)
    other = copy.deepcopy(stack)
    value.sum().backward()
    assert same(result_of(other, "forward", x), expected)


@pytest.mark.parametrize("partition", ["half", "alternating", "random", "random-half"])
def test_files_hold_flows_with_stacks(tmp_path, partition):
    """A saved and loaded flow has the same densities, and its file the plain names."""
    torch.manual_seed(1)
    flow = kf.real_nvp(
        5,
        depth=4,
        hidden=(6,),
        partition=partition,
        context_features=2,
        couplings={"memory": "invert"},
    )
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    kf.save(flow, tmp_path)
    loaded = kf.load(tmp_path)
    x, context = torch.randn(7, 5), torch.randn(7, 2)
    assert torch.equal(loaded.log_prob(x, context), flow.log_prob(x, context))
    assert repr(loaded) == repr(flow)
    assert not any("blocks" in name for name in flow.state_dict())


def test_files_hold_a_stack_by_itself(tmp_path):
    """A stack with permutations, and one made of plain couplings, can be parts of saved flows."""
    stack = made("uneven, permuted, context", dtype=torch.float32)
    of = kf.CouplingStack.of(stack.to_chain(), memory="store")
    chain = kf.Chain([stack, of])
    flow = kf.Flow(kf.StandardNormal(5), chain)
    kf.save(flow, tmp_path)
    x, context = torch.randn(7, 5), torch.randn(7, 1)
    loaded = kf.load(tmp_path)
    assert torch.equal(loaded.log_prob(x, context), flow.log_prob(x, context))
    assert [part.memory for part in loaded.bijection] == ["recompute", "store"]


def test_parameters_are_those_of_the_chain():
    """Names, shapes and order are those of ordinary layers, and the keys of the state."""
    for depth in (2, 32, 33):
        stack = made("half", depth=depth)
        names = {name: p.shape for name, p in stack.named_parameters()}
        assert list(names.items()) == [
            (name, p.shape) for name, p in stack.to_chain().named_parameters()
        ]
        assert list(names) == list(stack.state_dict())


def test_the_description_says_what_matters():
    """The repr says how many couplings of what, the mode, and what is not at its default."""
    text = repr(made("additive, context", residual=True, dropout=0.25, memory="invert"))
    for part in (
        "4 additive couplings of 4 features",
        "hidden=(5,)",
        "memory='invert'",
        "context_features=2",
        "residual=True",
        "dropout=0.25",
    ):
        assert part in text
    assert "scale_bound=1" in repr(made("half"))
    assert "residual" not in repr(made("half"))
