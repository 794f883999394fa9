"""The mode "invert" watches what comes back: a warning that names the layer, gradients exact."""

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
)


def warned(module, way, *inputs):
    """Returns the result of a module, and the texts of the warnings that it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = result_of(module, way, *inputs)
    assert all(w.category is NumericalWarning for w in caught)
    return result, [str(w.message) for w in caught]


def corrupted(monkeypatch, kind, wrong):
    """Makes `invert` wrong: `wrong(call, y)` changes what the n-th call, from 0, brings back.

    In Python and at once, since a recording would be changed before it is executed.
    """
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")
    monkeypatch.setattr(Executor, "_execute", lambda self, job: job.describe(EAGER))
    invert, calls = kind.invert, []

    def mutant(self, ops, found, y):
        invert(self, ops, found, y)
        wrong(len(calls), y)
        calls.append(y.shape)

    monkeypatch.setattr(kind, "invert", mutant)
    return calls


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("way", WAYS)
def test_an_ill_conditioned_stack_warns_once(threads, way):
    """States that come back wrong are reported once, by their layer; gradients are those of store.

    Here float32 loses about a digit a layer.
    """
    threads(2)
    stack = stack_of(4, 10, dtype=torch.float32, scale_bound=6.0, memory="store")
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(4)
    x, _ = points(stack, 60, dtype=torch.float32)
    reference = result_of(stack, way, x)
    stack.memory = "invert"
    assert "recomputing" not in repr(stack)
    found, texts = warned(stack, way, x)
    (text,) = texts
    assert "AffineCoupling" in text
    assert "relative error" in text
    assert "layers 1 to 10" in text
    assert_alike(found, reference, 1e-5)
    assert "recomputing layers 1-10" in repr(stack)
    again, texts = warned(stack, way, x)
    assert texts == []
    assert_alike(again, reference, 1e-5)


@pytest.mark.parametrize("kind", ["affine", "additive"])
@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_one_layer_is_caught(monkeypatch, way, kind):
    """An inverse that is off by 1e-3 in one layer is noticed, named, and harmless."""
    stack = stack_of(4, 6, kind=kind, memory="store")
    x, _ = points(stack, 12)
    reference = result_of(stack, way, x)
    stack.memory = "invert"
    which = arithmetic.Affine if kind == "affine" else arithmetic.Additive

    def wrong(call, y):
        if call == 2:
            y.mul_(1 + 1e-3)

    calls = corrupted(monkeypatch, which, wrong)
    found, texts = warned(stack, way, x)
    assert len(calls) == 6
    (text,) = texts
    layer = 4 if way == "forward" else 3  # the third to be undone
    assert f"layer {layer} {'Affine' if kind == 'affine' else 'Additive'}Coupling" in text
    assert_alike(found, reference, 1e-12)
    assert stack.blocks[0].recomputing


def test_an_error_that_cancels_is_caught(monkeypatch):
    """An error between two layers, where both ends would be right, shows in the fingerprints.

    The two layers read nothing, so that the error goes through them unchanged.
    """
    stack = stack_of(
        3, 6, hidden=(), kind="additive", partition="nothing kept", context_features=1
    )
    x, context = points(stack, 12)
    stack.memory = "invert"

    def wrong(call, y):
        if call in {2, 3}:
            y.add_(1e-2 if call == 2 else -1e-2)

    corrupted(monkeypatch, arithmetic.Additive, wrong)
    reference = result_of(stack.to_chain(), "forward", x, context)
    found, texts = warned(stack, "forward", x, context)
    (text,) = texts
    assert "layer 4 AdditiveCoupling" in text
    assert_alike(found, reference, 1e-12)


def test_an_error_of_one_row_is_caught(monkeypatch):
    """One wrong row in a batch is enough."""
    stack = stack_of(4, 4, memory="invert")
    x, _ = points(stack, 200)
    reference = result_of(stack.to_chain(), "forward", x)

    def wrong(call, y):
        if call == 1:
            y[:, 137] += 0.01

    corrupted(monkeypatch, arithmetic.Affine, wrong)
    found, texts = warned(stack, "forward", x)
    assert len(texts) == 1
    assert_alike(found, reference, 1e-12)


def test_an_error_below_the_bound_is_not_reported(monkeypatch):
    """A state that is off by a tenth of the bound is used, and the gradients are that good."""
    stack = stack_of(4, 4, memory="invert")
    x, _ = points(stack, 50)
    reference = result_of(stack.to_chain(), "forward", x)

    def wrong(call, y):
        if call == 1:
            y.mul_(1 + LARGEST_ERROR / 10)

    corrupted(monkeypatch, arithmetic.Affine, wrong)
    found, texts = warned(stack, "forward", x)
    assert texts == []
    assert not stack.blocks[0].recomputing
    assert_close_gradients(found.gradients, reference.gradients, 100 * LARGEST_ERROR)
    with pytest.raises(AssertionError):
        assert_close_gradients(found.gradients, reference.gradients, LARGEST_ERROR / 1e3)


@pytest.mark.parametrize("bad", [0, 1, 3])
@pytest.mark.usefixtures("chunked")
def test_a_nan_that_comes_back_is_caught_in_each_chunk(monkeypatch, bad):
    """A nan from the inverse, where there was none on the way, is larger than any number.

    Chunk 0 is the one whose nan was lost when the next chunk was compared.
    """
    stack = stack_of(4, 3, memory="invert")
    x, _ = points(stack, 64)
    reference = result_of(stack.to_chain(), "forward", x)

    def wrong(call, y):
        if call == 3 * bad + 2:
            y[0, 0] = torch.nan

    corrupted(monkeypatch, arithmetic.Affine, wrong)
    found, texts = warned(stack, "forward", x)
    assert len(texts) == 1
    assert_alike(found, reference, 1e-12)


@pytest.mark.slow
def test_only_the_block_with_the_error_recomputes(monkeypatch):
    """Of 70 couplings those 32 keep their states from now on; the others go on as before."""
    stack = stack_of(4, 70, (5,), memory="invert")
    x, _ = points(stack, 6)
    reference = result_of(stack.to_chain(), "forward", x)

    def wrong(call, y):
        if call == 6 + 10:  # the last 6 are undone first
            y.mul_(1.01)

    corrupted(monkeypatch, arithmetic.Affine, wrong)
    found, texts = warned(stack, "forward", x)
    (text,) = texts
    assert "layer 54 AffineCoupling" in text
    assert "layers 33 to 64" in text
    assert [block.recomputing for block in stack.blocks] == [False, True, False]
    assert_alike(found, reference, 1e-11)


def test_both_directions_share_the_verdict():
    """Once a block recomputes it does so in both directions."""
    stack = stack_of(4, 3, memory="invert")
    stack.blocks[0].recomputing = True
    x, _ = points(stack, 6)
    reference = result_of(stack.to_chain(), "inverse", x)
    assert_alike(result_of(stack, "inverse", x), reference, 1e-11)


def test_a_pass_begun_before_the_verdict_is_exact(monkeypatch):
    """A graph made by inversion whose block has gone over to recomputing gets exact gradients."""
    stack = stack_of(4, 4, memory="invert")
    x, _ = points(stack, 12)
    reference = result_of(stack.to_chain(), "forward", x)
    older = x.clone().requires_grad_()
    value, log_det = stack(older)
    corrupted(monkeypatch, arithmetic.Affine, lambda _, y: y.mul_(1.01))
    _, texts = warned(stack, "forward", x)
    assert len(texts) == 1
    features, rows = torch.arange(1, 5), torch.linspace(0.5, 1.5, 12, dtype=torch.float64)
    ((value * features).sin().sum() + (log_det * rows).sum()).backward()
    assert (older.grad - reference.gradients[0]).norm() <= 1e-12 * older.grad.norm()


def test_a_warning_made_an_error_can_be_caught(monkeypatch):
    """Where warnings are errors the backward pass raises it, and the next one is exact."""
    stack = stack_of(4, 4, memory="invert")
    x, _ = points(stack, 12)
    corrupted(monkeypatch, arithmetic.Affine, lambda _, y: y.mul_(1.01))
    with pytest.raises(NumericalWarning, match="memory='invert'"):
        result_of(stack, "forward", x)
    reference = result_of(stack.to_chain(), "forward", x)
    assert_alike(result_of(stack, "forward", x), reference, 1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-3])
def test_a_point_near_zero_is_no_error(scale):
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
    chain = stack.to_chain()
    chain.memory = "store"
    assert_alike(result, result_of(chain, "forward", x), 1e-10)


@pytest.mark.parametrize("what", ["nan", "inf"])
def test_points_that_are_not_finite_end(what):
    """Where a row is nan or infinite its results are nan, and the call neither fails nor hangs."""
    stack = stack_of(4, 4, memory="invert")
    x, _ = points(stack, 12)
    x[5] = float(what)
    result, texts = warned(stack, "forward", x)
    others = torch.arange(12) != 5
    assert not result.value[5].isfinite().all()
    assert result.value[others].isfinite().all()
    assert result.gradients[0][others].isfinite().all()
    assert texts == [], "one bad batch says nothing of the stack"
    assert not stack.blocks[0].recomputing


def test_copies_try_anew():
    """The verdict is of this object: a copy, or one from a file, comes to its own."""
    stack = stack_of(4, 34, (5,), memory="invert")
    stack.blocks[1].recomputing = True
    for other in (copy.deepcopy(stack), pickle.loads(pickle.dumps(stack))):
        assert [block.recomputing for block in other.blocks] == [False, False]
        other.blocks[0].recomputing = True
    assert not stack.blocks[0].recomputing


def test_marks_see_errors_of_any_kind():
    """A fingerprint shows a shift, a scale, one entry and an exchange of two features."""
    torch.manual_seed(0)
    x = torch.randn(6, 50, dtype=torch.float64)
    one = x.clone()
    one[2, 7] += 0.01
    errors = {
        "none": x,
        "shift": x + 1e-3,
        "scale": x * (1 + 1e-3),
        "one entry": one,
        "exchange": x[[1, 0, 2, 3, 4, 5]],
    }
    found = {}
    for name, wrong in errors.items():
        marks = Fingerprints()
        marks.kept, marks.replayed = torch.zeros(2, 1, 50, dtype=x.dtype)
        write_fingerprint(EAGER, x, marks.kept[0])
        write_fingerprint(EAGER, wrong, marks.replayed[0])
        found[name] = marks.errors().item()
    assert found.pop("none") == 0.0
    assert min(found.values()) > LARGEST_ERROR


@pytest.mark.parametrize("way", WAYS)
def test_the_warning_leads_on(monkeypatch, way):
    """It says which layer and direction, how wrong, what follows, and what helps."""
    stack = stack_of(4, 34, (5,), memory="invert")
    corrupted(monkeypatch, arithmetic.Affine, lambda call, y: y.mul_(1.0123 if call == 1 else 1.0))
    _, texts = warned(stack, way, points(stack, 6)[0])
    (text,) = texts
    for part in ("relative error of 0.0", "exact", "recompute", "ill-conditioned", "doctor"):
        assert part in text
    assert ("the inverse of" in text) == (way == "inverse")
    expected = ("layer 33 AffineCoupling", "layers 33 to 34")
    assert all(part in text for part in (expected if way == "forward" else ("layers 1 to 32",)))


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
    found = result_of(stack, "forward", x)
    assert_close_gradients(found.gradients, reference.gradients, 1e-4)
