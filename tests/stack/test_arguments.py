"""Each wrong argument is refused in one sentence that names it."""

import re

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError
from stack.examples import half, stack_of, turns

WRONG = [
    ({"partitions": []}, "'partitions' should hold at least one partition, got none"),
    (
        {"partitions": [half(4), half(5)]},
        "'partitions' should all have the same number of features, got 4 and 5",
    ),
    (
        {"partitions": [kf.Partition(4, ())]},
        "'partition' should leave between 1 and 3 features unchanged, got 0",
    ),
    ({"hidden": "88"}, "'hidden' should be a sequence of layer widths, got '88'"),
    ({"hidden": (0,)}, "'hidden' should be at least 1, got 0"),
    ({"kind": "spline"}, "'kind' should be one of 'affine', 'additive', got 'spline'"),
    ({"scale_bound": 0}, "'scale_bound' should be a finite number above 0, got 0"),
    ({"context_features": -1}, "'context_features' should be at least 0, got -1"),
    ({"dropout": 1.0}, "'dropout' should be at least 0 and below 1, got 1.0"),
    ({"memory": "forget"}, "'memory' should be one of 'recompute', 'store', 'invert'"),
    ({"permutations": [None]}, "'permutations' should have one entry for each of the 2 couplings"),
    (
        {"permutations": [None, (1, 0)]},
        "'permutations' should have 4 features, got 2",
    ),
    ({"permutations": [None, (0, 0, 1, 2)]}, "should hold each of 0 to 3 once"),
    ({"wiring": "twins"}, "'wiring' should be one of 'plain', 'blocks', 'paired', got 'twins'"),
    (
        {"wiring": "paired", "hidden": (4, 3)},
        r"should be even widths for wiring='paired', got \(4, 3\): each of the two networks",
    ),
    ({"wiring": "blocks", "hidden": (4, 4)}, "an odd number of equal widths for wiring='blocks'"),
    (
        {"wiring": "paired", "residual": True},
        "'residual' and 'dropout' should be left out for wiring='paired': only an MLP has them",
    ),
]

OF_ANOTHER_TYPE = [
    ({"partitions": [half(4), 3]}, "'partitions' should hold partitions, got int"),
    ({"hidden": 8}, "'hidden' should be a sequence of layer widths, got 8"),
    ({"hidden": (8.0,)}, "'hidden' should be a whole number of at least 1, got 8.0"),
    ({"scale_bound": "2"}, "'scale_bound' should be a finite number above 0, got '2'"),
    ({"context_features": 1.5}, "'context_features' should be a whole number"),
    ({"permutations": [None, 5]}, "should be a list of whole numbers, got 5"),
    ({"partitions": half(4)}, "'partitions' should be a sequence of partitions.*Partition"),
    ({"permutations": 5}, "'permutations' should be a sequence.*int"),
    ({"permutations": iter([None, None])}, "'permutations' should be a sequence.*iterator"),
]


def refusal(wrong):
    """Returns what a constructor says of arguments of which one is wrong."""
    arguments = {"partitions": turns(4, 2), "hidden": (8,), **wrong}
    with pytest.raises(ArgumentError) as caught:
        kf.CouplingStack(arguments.pop("partitions"), arguments.pop("hidden"), **arguments)
    return str(caught.value)


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_argument_is_named(wrong, message):
    """What is wrong is reported in one sentence, with the argument and what was given."""
    text = refusal(wrong)
    assert re.search(message, text)
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.boundary
@pytest.mark.parametrize(("wrong", "message"), OF_ANOTHER_TYPE)
def test_an_argument_of_another_type_is_named(wrong, message):
    """So is a partition in place of a list of them, a text for a number, or a generator."""
    assert re.search(message, refusal(wrong))


def test_a_refused_width_spoils_no_later_stack():
    """Equal arguments share a shape: (9.0,) must not be what (9,) gets."""
    with pytest.raises(ArgumentError):
        kf.CouplingStack(turns(4, 2), (9.0,))
    assert kf.CouplingStack(turns(4, 2), (9,))(torch.ones(1, 4))[0].shape == (1, 4)


def test_sequences_of_all_kinds_will_do():
    """Lists, tuples, iterators of partitions and tensors as permutations are taken."""
    order = torch.tensor([3, 2, 1, 0])
    stack = kf.CouplingStack(iter(turns(4, 2)), [8], permutations=[order, None])
    assert stack.permutations == ((3, 2, 1, 0), None)
    assert len(stack) == 3  # with the permutation
    assert stack(torch.ones(1, 4))[0].shape == (1, 4)


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize(
    ("x", "given", "message"),
    [
        (torch.ones(3, 5), torch.ones(3, 2), r"'.' should have shape \(batch, 4\), got \(3, 5\)"),
        (torch.ones(3, 4, dtype=torch.int64), torch.ones(3, 2), "'.' should hold floating-point"),
        (torch.ones(3, 4), torch.ones(2, 2), "'context' should have 3 rows like '"),
        (torch.ones(3, 4), torch.ones(1, 2), "'context' should have 3 rows like '"),
        (torch.ones(3, 4), None, r"'context' should be given, of shape \(batch, 2\)"),
        (torch.ones(3, 4), torch.ones(3, 3), r"'context' should have shape \(batch, 2\)"),
    ],
)
def test_wrong_points_are_named(way, x, given, message):
    """Points and contexts of another shape, type or kind are refused."""
    stack = stack_of(4, 2, context_features=2, dtype=torch.float32)
    with pytest.raises(ArgumentError, match=message):
        (stack if way == "forward" else stack.inverse)(x, given)


def test_a_context_that_nobody_reads_is_left_alone():
    """Without context features a context is ignored, as by plain couplings."""
    stack = stack_of(4, 2)
    x = torch.ones(3, 4, dtype=torch.float64)
    assert torch.equal(stack(x, torch.ones(3, 7))[0], stack(x)[0])


def test_a_memory_mode_set_later_is_checked_too():
    """A typing error is reported at once, not at the next call."""
    stack = kf.CouplingStack([kf.Partition.half(4)], (4,))
    with pytest.raises(kf.errors.ArgumentError, match="'memory' should be one of .*, got 'Store'"):
        stack.memory = "Store"
    assert stack.memory == "recompute"
