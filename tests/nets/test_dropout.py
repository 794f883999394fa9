"""Dropout by bytes: the share, the mean, the stream, and when it is silent."""

import pytest
import torch

import kappaflow as kf
from kappaflow.nets.mlp import dropout


@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_the_share_left_out_is_the_one_asked_for_to_a_256th(share):
    """Over a million entries, within five standard errors of the rounded share."""
    x = torch.ones(1000, 1000)
    torch.manual_seed(0)
    kept = (dropout(x, share, training=True) != 0).double().mean().item()
    rounded = 1 - round(256 * share) / 256
    assert abs(kept - rounded) < 5 * (rounded * (1 - rounded) / x.numel()) ** 0.5


def test_the_mean_is_kept():
    """What stays is scaled up by exactly what was taken away."""
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 1000, dtype=torch.float64), 0.25, training=True)
    assert set(dropped.unique().tolist()) == {0.0, 4 / 3}
    assert abs(dropped.mean().item() - 1) < 5 * (1 / 3 / 1e6) ** 0.5


def test_neighbors_are_left_out_independently():
    """Entries that share a random word do not agree more often than chance has it."""
    torch.manual_seed(0)
    zero = (dropout(torch.ones(200_000, 8), 0.5, training=True) == 0).double()
    correlation = torch.corrcoef(zero.T) - torch.eye(8)
    assert correlation.abs().max() < 5 / 200_000**0.5


@pytest.mark.parametrize(("share", "training"), [(0.0, True), (0.3, False)])
def test_it_is_silent_in_evaluation_and_at_share_zero(share, training):
    """The very tensor comes back, and no random number is spent."""
    x, state = torch.ones(3, 5), torch.get_rng_state()
    assert dropout(x, share, training=training) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_shape_and_type_are_kept(dtype):
    """Sizes that are no multiple of eight too."""
    dropped = dropout(torch.ones(3, 5, dtype=dtype), 0.5, training=True)
    assert dropped.shape == (3, 5) and dropped.dtype == dtype


@pytest.mark.boundary
@pytest.mark.parametrize("share", [1.0, -0.1, "half", True])
def test_a_share_that_leaves_nothing_is_refused(share):
    """From 0 to below 1."""
    with pytest.raises(kf.errors.ArgumentError, match="'dropout'"):
        kf.nets.MLP(2, 2, (4,), dropout=share)


@pytest.mark.parametrize("share", [1e-9, 0.001, 1 / 512])
def test_a_share_that_would_round_to_none_is_refused(share):
    """Nothing is left out silently less often than asked for: the message says how it rounds."""
    with pytest.raises(
        kf.errors.ArgumentError, match="0 or above 1/512, got .* multiples of 1/256"
    ):
        kf.nets.MLP(2, 2, (4,), dropout=share)


@pytest.mark.parametrize("share", [0.0, 0.002, 1 / 256])
def test_no_share_and_the_least_share_are_taken(share):
    """What rounds to 1/256 is a share."""
    dropped = dropout(
        torch.ones(1000, 1000), kf.nets.MLP(2, 2, dropout=share).dropout, training=True
    )
    assert bool((dropped == 0).any()) == (share > 0)
