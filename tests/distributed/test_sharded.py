"""Flows with `fully_shard` and distributed checkpoints, as any module."""

from pathlib import Path

import pytest
import torch.distributed as dist
from faults.ranks import by_torchrun
from faults.trainings import ended, started

from sharded_flows import check

ROOT = Path(__file__).parents[2]


def test_one_rank_shares_with_itself(tmp_path):
    """Training, state dictionaries and checkpoints are those of an ordinary flow."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        check(tmp_path)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_share_a_flow(tmp_path):
    """The same between two ranks, each with half of the rows and of the parameters."""
    program = [str(tmp_path)], [*by_torchrun(2), str(ROOT / "tests" / "sharded_flows.py")]
    status, output = ended(started(*program))
    assert not status, output
