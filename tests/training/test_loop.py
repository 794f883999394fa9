"""The state of a training: when it ends, what a restored one continues with, and its ranks."""

from dataclasses import replace

import pytest
import torch

import kappaflow as kf
from kappaflow.data.batches import Batch
from kappaflow.training import Settings
from kappaflow.training.distributed import Engine
from kappaflow.training.loop import Training
from kappaflow.training.maximum_likelihood import MaximumLikelihood


def training(rows=10, **settings):
    """Returns a training of a small flow that has not begun."""
    torch.manual_seed(0)
    flow, x = kf.real_nvp(2, depth=2, hidden=(4,)), torch.randn(rows, 2)
    options, engine = Settings(**settings), Engine(x.device)
    objective = MaximumLikelihood(flow, Batch(x, None), Batch(x, None), options, engine)
    return Training(objective, options, engine)


@pytest.mark.parametrize(("epoch", "expected"), [(54, None), (55, "patience")])
def test_patience_begins_after_a_model_search(epoch, expected):
    """A search may end long after its best epoch, and the winner still trains."""
    winner = training(patience=5)
    progress = {"epoch": epoch, "best_epoch": 2, "start_epoch": 50}
    winner.restore(winner.state(), winner.plain_progress() | progress, [])
    assert winner._finished() == expected


def test_a_restored_training_continues_with_its_dual_variable():
    """The penalty and the checkpoint share one."""
    stored = training(condition_budget=3.0)
    stored.progress.dual.lasting = 7.0
    resumed = training(condition_budget=3.0)
    resumed.restore(stored.state(), stored.plain_progress(), [])
    assert resumed.objective.budget.dual is resumed.progress.dual
    assert resumed.objective.budget.dual.lasting == 7.0


@pytest.mark.parametrize("rows", [10, 2])
def test_uneven_shares_of_ranks_add_up_to_the_mean_of_the_batch(rows):
    """Three ranks with 4, 3 and 3 rows, or with 1, 1 and none."""
    own, index = training(rows).objective, torch.arange(rows)
    means = []
    for rank in range(3):
        own.engine = replace(own.engine, rank=rank, world_size=3)
        share = own.share(index, is_whole=True)
        means.append(share.weight * share.batch.mean(share.batch.x[:, 0]))
    torch.testing.assert_close(sum(means) / 3, own.train.x[:, 0].mean())
