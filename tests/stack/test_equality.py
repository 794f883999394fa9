"""A stack is the chain of its plain couplings: values, log_det and every gradient."""

import pytest
import torch

import kappaflow as kf
from kappaflow.bijections.log_scales import SCALES
from kappaflow.stack import block_pass
from stack.examples import (
    MEMORY,
    WAYS,
    assert_alike,
    half,
    partitions_of,
    points,
    result_of,
    stack_of,
)

# Name: (features, depth, rows, further arguments of `stack_of`).
SHAPES = {
    "half": (4, 5, 7, {}),
    "one row": (4, 5, 1, {}),
    "no row, context": (3, 2, 0, {"context_features": 2}),
    "one coupling": (4, 1, 7, {}),
    "two features": (2, 5, 7, {}),
    "alternating": (5, 4, 7, {"partition": "alternating"}),
    "random halves": (6, 5, 7, {"partition": "random-half"}),
    "uneven": (5, 6, 7, {"partition": "uneven"}),
    "scattered": (6, 5, 7, {"partition": "scattered"}),
    "one way": (4, 3, 7, {"partition": "one way"}),
    "permuted": (5, 5, 7, {"partition": "one way", "permuted": True}),
    "permuted, uneven, context": (
        5,
        5,
        7,
        {"partition": "uneven", "permuted": True, "context_features": 2},
    ),
    "context": (4, 4, 7, {"context_features": 3}),
    "one feature, context": (1, 3, 7, {"partition": "nothing kept", "context_features": 2}),
    "nothing kept, context": (3, 3, 7, {"partition": "nothing kept", "context_features": 2}),
    "no hidden layer, context": (4, 4, 7, {"hidden": (), "context_features": 3}),
    "no hidden layer, nothing kept": (
        2,
        3,
        7,
        {"hidden": (), "partition": "nothing kept", "context_features": 2},
    ),
    "three hidden layers": (4, 4, 7, {"hidden": (8, 6, 5)}),
    "residual": (4, 4, 7, {"hidden": (8, 8, 8), "residual": True}),
    "residual, input and context added": (
        4,
        4,
        7,
        {"hidden": (5, 5), "residual": True, "context_features": 3},
    ),
    "residual, context added": (
        2,
        3,
        7,
        {"hidden": (2, 2), "residual": True, "partition": "nothing kept", "context_features": 2},
    ),
    **{scale: (4, 5, 7, {"scale": scale}) for scale in SCALES},
    "residual blocks": (5, 4, 7, {"hidden": (6,) * 5, "wiring": "blocks"}),
    "paired": (4, 4, 300, {"hidden": (6, 4), "wiring": "paired"}),
    "no residual block": (5, 4, 7, {"hidden": (6,), "wiring": "blocks"}),
    "residual blocks, softsign, permuted, context": (
        4,
        3,
        300,
        {
            "hidden": (3,) * 3,
            "wiring": "blocks",
            "context_features": 2,
            "permuted": True,
            "scale": "softsign",
        },
    ),
    "1100 rows, context": (4, 3, 1100, {"context_features": 2, "residual": True}),
    "three blocks, permuted, context": (
        3,
        70,
        5,
        {"hidden": (5,), "permuted": True, "context_features": 1},
    ),
}
ADDITIVE = (
    "half",
    "no row, context",
    "permuted, uneven, context",
    "nothing kept, context",
    "no hidden layer, context",
    "residual, input and context added",
    "residual blocks",
    "paired",
    "1100 rows, context",
)


@pytest.fixture
def _chunks_of_256(monkeypatch):
    """Cuts into chunks of about 256 rows, however narrow the networks are."""
    monkeypatch.setattr(block_pass, "MOST_ROWS", 256)
    monkeypatch.setattr(block_pass, "LEAST_WORK", 0.0)


@pytest.mark.usefixtures("_chunks_of_256")
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "affine") for name in SHAPES), *((name, "additive") for name in ADDITIVE)],
)
def test_a_stack_is_its_chain(name, kind):
    """Each shape gives the chain's values and gradients to rounding, both ways, in each mode."""
    features, depth, rows, others = SHAPES[name]
    stack = stack_of(features, depth, kind=kind, **others)
    chain, (x, context) = stack.to_chain(), points(stack, rows)
    for way in WAYS:
        reference = result_of(chain, way, x, context)
        for memory in MEMORY:
            stack.memory = memory
            assert_alike(result_of(stack, way, x, context), reference, 1e-10)


def test_plain_writes_into_the_stack():
    """What is written into the weights of `plain()` is read by the stack's next call."""
    stack = stack_of()
    x, _ = points(stack, 3)
    before = stack(x)[0]
    with torch.no_grad():
        stack.plain().bijections[1].conditioner.layers[0].weight.mul_(3.0)
    assert not torch.equal(stack(x)[0], before)
    assert torch.allclose(stack(x)[0], stack.to_chain()(x)[0], rtol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_the_layout_of_points_does_not_matter(way):
    """Strided, transposed, expanded and broadcast points give what contiguous ones give."""
    stack = stack_of(4, 3, context_features=2)
    x, context = points(stack, 40)
    reference = result_of(stack, way, x, context)
    layouts = {
        "strided": (x.repeat_interleave(2, 0)[::2], context.repeat_interleave(3, 1)[:, ::3]),
        "transposed": (x.T.contiguous().T, context.T.contiguous().T),
    }
    for first, second in layouts.values():
        assert not first.is_contiguous()
        assert_alike(result_of(stack, way, first, second), reference, 1e-12)
    alone = x[:1].expand(5, 4), context[:1].expand(5, 2)
    value, log_det = (stack if way == "forward" else stack.inverse)(*alone)
    assert torch.allclose(value, reference.value[:1].expand(5, 4), rtol=1e-12)
    assert torch.allclose(log_det, reference.log_det[:1].expand(5), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("given", ["value", "log_det"])
def test_one_output_is_enough(memory, given):
    """A gradient that comes through the value or the log_det alone is the chain's."""
    stack = stack_of(4, 33, (5,), memory=memory)
    x, _ = points(stack, 6)
    actual = []
    for module in (stack, stack.to_chain()):
        inputs = x.clone().requires_grad_()
        outputs = dict(zip(("value", "log_det"), module(inputs), strict=True))
        outputs[given].sum().backward()  # an expanded gradient, with strides of 0
        actual.append(inputs.grad)
    assert (actual[0] - actual[1]).norm() <= 1e-11 * actual[1].norm()


@pytest.mark.parametrize("outer", MEMORY)
def test_a_chain_with_a_memory_mode_may_hold_stacks(outer):
    """A chain that recomputes or inverts its parts gets the same gradients from stacks."""
    stack = stack_of(4, 34, (5,))
    x, _ = points(stack, 6)
    reference = result_of(kf.Chain([stack]), "forward", x)
    assert_alike(result_of(kf.Chain([stack], memory=outer), "forward", x), reference, 1e-10)


@pytest.mark.parametrize("kind", ["affine", "additive"])
def test_a_new_stack_is_the_identity(kind):
    """Last layers start at zero: values pass unchanged, and the log_det is zero."""
    stack = kf.CouplingStack(partitions_of("half", 5, 6), (7,), kind=kind)
    x = torch.randn(3, 5)
    for way in (stack, stack.inverse):
        value, log_det = way(x)
        assert torch.equal(value, x)
        assert not log_det.any()


def test_a_stack_starts_as_the_chain_does():
    """From the same seed a stack draws the weights that plain couplings would have drawn."""
    torch.manual_seed(4)
    stack = kf.CouplingStack([half(4), half(4).swapped()], (8, 8))
    torch.manual_seed(4)
    plain = [kf.nets.MLP(2, 4, (8, 8)) for _ in range(2)]
    state = stack.state_dict()
    for index, network in enumerate(plain):
        for name, tensor in network.state_dict().items():
            assert torch.equal(state[f"bijections.{index}.conditioner.{name}"], tensor)


@pytest.mark.filterwarnings("ignore")  # torch.jit.trace is deprecated
@pytest.mark.parametrize("trace", ["export", "jit"])
def test_a_traced_stack_runs_its_plain_couplings(trace):
    """Programs of torch.export and torch.jit.trace work for any number of rows."""
    stack = stack_of(4, 3, context_features=2, permuted=True, dtype=torch.float32).eval()
    (x, context), few = points(stack, 7, dtype=torch.float32), slice(0, 3)
    example = x[few], context[few]
    with torch.no_grad():
        if trace == "jit":
            program = torch.jit.trace(stack, example)
        else:
            rows = {0: torch.export.Dim("rows")}
            exported = torch.export.export(
                stack, example, dynamic_shapes=(rows, rows), strict=False
            )
            program = exported.module()
        for actual, expected in zip(program(x, context), stack(x, context), strict=True):
            assert torch.allclose(actual, expected, atol=1e-5)
