"""Compositions: the width of the context that they declare."""

import pytest
import torch

import kappaflow as kf
from cases import affine, embedded
from kappaflow import registry

half = kf.Partition.half


@pytest.mark.parametrize(
    ("make", "width"),
    [
        (lambda: kf.bijections.Permutation((1, 0)), 0),
        (lambda: kf.Chain([]), 0),
        (lambda: kf.Chain([kf.bijections.Permutation((1, 0, 2)), affine(half(3))]), 0),
        (lambda: kf.Chain([affine(half(3)), affine(half(3), context=2)]), 2),
        (lambda: kf.Chain([kf.Chain([affine(half(3), context=2)]), kf.Chain([])]), 2),
        (lambda: kf.Inverse(affine(half(3), context=2)), 2),
        (lambda: kf.Inverse(kf.bijections.Permutation((1, 0))), 0),
        (embedded, 5),
        (lambda: kf.Inverse(kf.Chain([embedded()])), 5),
        (lambda: embedded()[1:], 5),
    ],
)
def test_a_composition_reads_the_context_of_its_parts_or_of_its_embedding(make, width):
    """The widest of the parts decides, and where there is an embedding the width given for it."""
    assert make().context_features == width


def test_any_module_can_be_an_embedding():
    """Nothing is guessed from a network's attributes: the width in front of it is given."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 2))
    chain = kf.Chain([affine(half(3), context=2)], embedding=net, context_features=7)
    assert chain.context_features == 7
    assert chain(torch.zeros(4, 3), torch.zeros(4, 7))[0].shape == (4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"embedding": torch.nn.Linear(3, 2)},
            "'context_features' should be given with an embedding: it is the width of the",
        ),
        (
            {"context_features": 3},
            "'context_features' should be left out without an embedding, got 3",
        ),
        (
            {"embedding": torch.nn.Linear(3, 2), "context_features": 0},
            "'context_features' should be at least 1, got 0",
        ),
        (
            {"embedding": torch.nn.Linear(3, 2), "context_features": 2.5},
            "'context_features' should be a whole number",
        ),
    ],
)
def test_a_width_that_does_not_fit_the_embedding_is_refused(arguments, message):
    """With an embedding the width is needed, and without one there is nothing to say."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.Chain([affine(half(3), context=2)], **arguments)


@pytest.mark.parametrize("make", [embedded, lambda: kf.Chain([affine(half(3), context=2)])])
def test_the_width_survives_describing_and_building(make):
    """A model file says it where an embedding needs it."""
    chain = make()
    built = registry.build(registry.describe(chain))
    assert built.context_features == chain.context_features
    assert registry.describe(built) == registry.describe(chain)


def test_parts_of_a_chain_are_reached_by_index():
    """Numbers from both ends and slices, as in a list; the error names nested parts."""
    inner = kf.Chain([kf.bijections.Permutation((1, 0))] * 2)
    chain = kf.Chain([kf.bijections.Permutation((1, 0)), inner])
    assert chain[0] is chain.bijections[0]
    assert chain[-1] is inner
    assert chain[1:][0] is inner
    message = r"between -2 and 1, got 2: this Chain has 2 parts. Part 1 is a Chain of 2 parts"
    with pytest.raises(IndexError, match=message):
        chain[2]
