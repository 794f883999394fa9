"""Permutations are index moves."""

import copy
import pickle

import pytest
import torch

import kappaflow as kf


def test_a_random_permutation_depends_on_its_seed_only():
    """The same seed gives the same permutation, another seed another one."""
    first = kf.bijections.Permutation.random(20, seed=1).index
    torch.manual_seed(99)
    assert torch.equal(first, kf.bijections.Permutation.random(20, seed=1).index)
    assert not torch.equal(first, kf.bijections.Permutation.random(20, seed=2).index)


def test_values_are_moved_bit_for_bit():
    """Even nan and infinity arrive where the index says, and come back."""
    x = torch.tensor([[1.0, float("nan"), float("inf")]])
    permutation = kf.bijections.Permutation((2, 0, 1))
    z, log_det = permutation(x)
    assert z[0, 0] == float("inf")
    assert z[0, 1] == 1
    assert log_det.item() == 0
    torch.testing.assert_close(permutation.inverse(z)[0], x, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("index", [(0, 0), (1, 2), (0, 2), (-1, 0)])
def test_an_index_that_is_no_permutation_is_refused(index):
    """Each of 0 to n - 1 should stand in it once."""
    with pytest.raises(kf.errors.ArgumentError, match="each of 0 to 1 once"):
        kf.bijections.Permutation(index)


@pytest.mark.parametrize("index", [[[0, 1], [1, 0]], 3, [0.5, 1.0], [True, False], "abc"])
def test_what_is_no_list_of_whole_numbers_is_refused(index):
    """A matrix, a number, fractions, truth values and text are no index."""
    with pytest.raises(kf.errors.ArgumentError, match="'index' should"):
        kf.bijections.Permutation(index)


def test_a_loaded_state_that_is_no_permutation_is_refused():
    """A damaged index is found when it is loaded, not when it is used."""
    with pytest.raises(kf.errors.ArgumentError, match="each of 0 to 2 once"):
        kf.bijections.Permutation((0, 1, 2)).load_state_dict({"index": torch.tensor([0, 1, 1])})


def pickled(module):
    """Returns what another process would get."""
    return pickle.loads(pickle.dumps(module))


@pytest.mark.parametrize("copied", [pickled, copy.deepcopy])
def test_a_copy_checks_what_it_loads_too(copied):
    """The check of a loaded index travels with pickles and copies."""
    twin = copied(kf.bijections.Permutation((2, 0, 1)))
    assert twin.index.tolist() == [2, 0, 1]
    with pytest.raises(kf.errors.ArgumentError, match="each of 0 to 2 once"):
        twin.load_state_dict({"index": torch.tensor([0, 1, 1])})
