"""The mode "invert" of stacks compares recovered states, warns, and then recomputes."""

import copy
import pickle
import warnings

import pytest
import torch

import kappaflow as kf
from kappaflow.autograd.fingerprints import LARGEST_ERROR
from kappaflow.errors import NumericalWarning
from kappaflow.stack import arithmetic
from kappaflow.stack.chunk import Fingerprints, write_fingerprint
from kappaflow.stack.operations import EAGER
from kappaflow.stack.tape import Executor
from stack.examples import (
    WAYS,
    assert_alike,
    assert_close_gradients,
    points,
    result_of,
    stack_of,
    weighted_loss,
)


def warned(module, way, *inputs):
    """Returns the result of a module, and the texts of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = result_of(module, way, *inputs)
    assert all(w.category is NumericalWarning for w in caught)
    return result, [str(w.message) for w in caught]


@pytest.fixture
def corrupt(monkeypatch):
    """Returns a function that makes `invert` wrong: `wrong(call, y)` changes its n-th result.

    In Python and at once, since a recording would be changed before it is executed.
    """

    def apply(wrong, kind="affine"):
        monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")
        monkeypatch.setattr(Executor, "_execute", lambda self, job: job.describe(EAGER))
        arithmetic_class = getattr(arithmetic, kind.capitalize())
        invert, calls = arithmetic_class.invert, []

        def mutant(self, ops, state, y):
            invert(self, ops, state, y)
            wrong(len(calls), y)
            calls.append(y.shape)

        monkeypatch.setattr(arithmetic_class, "invert", mutant)

    return apply


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("way", WAYS)
def test_an_ill_conditioned_stack_warns_once(threads, way):
    """In float32 with a digit lost per layer; gradients are those of "store"."""
    threads(2)
    stack = stack_of(4, 10, dtype=torch.float32, scale_bound=6.0, memory="store")
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(4)
    x, _ = points(stack, 60, dtype=torch.float32)
    reference = result_of(stack, way, x)
    stack.memory = "invert"
    assert "recomputing" not in repr(stack)
    for expected in (1, 0):
        result, texts = warned(stack, way, x)
        assert len(texts) == expected
        assert_alike(result, reference, 1e-5)
        assert "recomputing layers 1-10" in repr(stack)


def scaled(at, by=1 + 1e-3):
    """Returns what multiplies the result of one call."""
    return lambda call, y: y.mul_(by) if call == at else None


def shifted(call, y):
    """Adds an error that the next but one layer takes away."""
    if call in {2, 3}:
        y.add_(1e-2 if call == 2 else -1e-2)


def one_row(call, y):
    """Changes one row of one layer."""
    if call == 1:
        y[:, 7] += 0.01


def nan_in_chunk(number):
    """Returns what makes a row of one of several chunks nan."""

    def wrong(call, y):
        if call == 6 * number + 2:
            y[0, 0] = torch.nan

    return wrong


UNREAD = {"hidden": (), "partition": "nothing kept", "context_features": 1}


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize(
    ("wrong", "rows", "way", "settings", "text"),
    [
        (scaled(2), 12, "forward", {}, "the input of layer 4 AffineCoupling"),
        (scaled(2), 12, "inverse", {}, "the inverse of layer 3 AffineCoupling"),
        (scaled(2), 12, "forward", {"kind": "additive"}, "layer 4 AdditiveCoupling"),
        (scaled(2), 12, "inverse", {"kind": "additive"}, "layer 3 AdditiveCoupling"),
        (shifted, 12, "forward", {"kind": "additive", **UNREAD}, "layer 4 AdditiveCoupling"),
        (one_row, 12, "forward", {}, "layer 5 AffineCoupling"),
        *((nan_in_chunk(n), 64, "forward", {}, "layer 4 AffineCoupling") for n in (0, 1, 3)),
    ],
)
def test_a_wrong_state_is_named_and_harmless(corrupt, wrong, rows, way, settings, text):
    """Also an error that cancels, of one row, or nan in any chunk; the warning says what to do."""
    stack = stack_of(4, 6, memory="invert", **settings)
    x, context = points(stack, rows)
    reference = result_of(stack.to_chain(), way, x, context)
    corrupt(wrong, settings.get("kind", "affine"))
    result, (message,) = warned(stack, way, x, context)
    for part in (text, "relative error of", "exact", "recompute", "ill-conditioned", "doctor"):
        assert part in message
    assert_alike(result, reference, 1e-11)
    assert stack.blocks[0].recomputing


def test_an_error_below_the_bound_is_not_reported(corrupt):
    """A state that is off by a tenth of the bound is used, and the gradients are that good."""
    stack = stack_of(4, 4, memory="invert")
    x, _ = points(stack, 50)
    reference = result_of(stack.to_chain(), "forward", x)
    corrupt(scaled(1, 1 + LARGEST_ERROR / 10))
    result, texts = warned(stack, "forward", x)
    assert texts == []
    assert not stack.blocks[0].recomputing
    assert_close_gradients(result.gradients, reference.gradients, 100 * LARGEST_ERROR)
    with pytest.raises(AssertionError):
        assert_close_gradients(result.gradients, reference.gradients, LARGEST_ERROR / 1e3)


@pytest.mark.slow
def test_only_the_block_with_the_error_recomputes(corrupt):
    """Of 70 couplings those 32 store their states from now on, in both directions."""
    stack = stack_of(4, 70, (5,), memory="invert")
    x, _ = points(stack, 6)
    corrupt(scaled(6 + 10, 1.01))  # the last 6 are undone first
    result, (text,) = warned(stack, "forward", x)
    assert "layer 54 AffineCoupling" in text
    assert "layers 33 to 64" in text
    assert [block.recomputing for block in stack.blocks] == [False, True, False]
    assert_alike(result, result_of(stack.to_chain(), "forward", x), 1e-11)
    result, texts = warned(stack, "inverse", x)
    assert texts == []
    assert_alike(result, result_of(stack.to_chain(), "inverse", x), 1e-11)


def test_a_pass_begun_before_the_warning_is_exact(corrupt):
    """So is the step after a warning that was raised as an error."""
    stack = stack_of(4, 4, memory="invert")
    x, _ = points(stack, 12)
    reference = result_of(stack.to_chain(), "forward", x)
    older, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    losses = weighted_loss(stack, older), weighted_loss(stack.to_chain(), plain)
    corrupt(lambda _, y: y.mul_(1.01))
    with pytest.raises(NumericalWarning, match="memory='invert'"):
        result_of(stack, "forward", x)
    for loss in losses:
        loss.backward()
    assert (older.grad - plain.grad).norm() <= 1e-12 * plain.grad.norm()
    assert_alike(result_of(stack, "forward", x), reference, 1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-6])
def test_a_point_near_zero_is_not_an_error(scale):
    """A row of zeros, or of small numbers, is measured by the size of the others."""
    stack = stack_of(4, 4, dtype=torch.float32, memory="invert")
    x, _ = points(stack, 16, dtype=torch.float32)
    x[3] *= scale
    _, texts = warned(stack, "forward", x)
    assert texts == []


def test_points_that_are_all_zero_have_exact_gradients():
    """A batch of zeros gives errors no scale: it may recompute, and its gradients are right."""
    stack = stack_of(4, 4, memory="invert")
    x = torch.zeros(5, 4, dtype=torch.float64)
    result, _ = warned(stack, "forward", x)
    assert_alike(result, result_of(kf.Chain(list(stack.to_chain())), "forward", x), 1e-10)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_points_that_are_not_finite_say_nothing_about_the_stack(value):
    """Where a row is nan or infinite its results are nan, and the call neither fails nor hangs."""
    stack = stack_of(4, 4, memory="invert")
    x, _ = points(stack, 12)
    x[5] = float(value)
    result, texts = warned(stack, "forward", x)
    others = torch.arange(12) != 5
    assert not result.value[5].isfinite().all()
    assert result.value[others].isfinite().all()
    assert result.gradients[0][others].isfinite().all()
    assert texts == []
    assert not stack.blocks[0].recomputing


def test_copies_start_without_the_record():
    """A copy, or a stack from a file, inverts again."""
    stack = stack_of(4, 34, (5,), memory="invert")
    stack.blocks[1].recomputing = True
    for other in (copy.deepcopy(stack), pickle.loads(pickle.dumps(stack))):
        assert [block.recomputing for block in other.blocks] == [False, False]
        other.blocks[0].recomputing = True
    assert not stack.blocks[0].recomputing


@pytest.mark.parametrize("error", ["none", "shift", "scale", "one entry", "exchange"])
def test_fingerprints_see_errors_of_any_kind(error):
    """Also an exchange of two features."""
    x = torch.randn(6, 50, dtype=torch.float64)
    entry = x.clone()
    entry[2, 7] += 0.01
    wrong = {
        "none": x,
        "shift": x + 1e-3,
        "scale": x * (1 + 1e-3),
        "one entry": entry,
        "exchange": x[[1, 0, 2, 3, 4, 5]],
    }[error]
    fingerprints = Fingerprints()
    fingerprints.kept, fingerprints.replayed = torch.zeros(2, 1, 50, dtype=x.dtype)
    write_fingerprint(EAGER, x, fingerprints.kept[0])
    write_fingerprint(EAGER, wrong, fingerprints.replayed[0])
    size = fingerprints.errors().item()
    assert size == 0 if error == "none" else size > LARGEST_ERROR


def test_invert_costs_no_accuracy_where_it_is_silent():
    """At the depth and bound of the recipes' defaults float32 gradients are good to 1e-4."""
    flow = kf.real_nvp(4, depth=16, hidden=(16,), couplings={"memory": "invert"})
    stack = next(m for m in flow.modules() if isinstance(m, kf.CouplingStack))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, _ = points(stack, 64, dtype=torch.float32)
    reference = result_of(stack.to_chain().double(), "forward", x.double())
    result = result_of(stack, "forward", x)
    assert_close_gradients(result.gradients, reference.gradients, 1e-4)
