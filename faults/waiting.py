"""Two ranks of which the first works alone, for longer than anything is waited for."""

import time

import torch.distributed as dist

from kappaflow.errors import RankError
from kappaflow.training.agreement import of_first

WORKS_S = 600.0


def wait() -> None:
    """Says when the ranks know each other, and how it ends."""
    dist.init_process_group("gloo")
    of_first(lambda: None)
    print("waits", flush=True)
    try:
        of_first(lambda: time.sleep(WORKS_S))
    except RankError as error:
        print(error, flush=True)


if __name__ == "__main__":
    wait()
