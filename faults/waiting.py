"""Two ranks, of which the first works alone for longer than any timeout."""

import time

import torch.distributed as dist

from kappaflow.errors import RankError
from kappaflow.training.collectives import from_rank_zero

WORKS_S = 600.0


def wait() -> None:
    """Prints when the ranks are connected, and how it ends."""
    dist.init_process_group("gloo")
    from_rank_zero(lambda: None)
    print("waits", flush=True)
    try:
        from_rank_zero(lambda: time.sleep(WORKS_S))
    except RankError as error:
        print(error, flush=True)


if __name__ == "__main__":
    wait()
