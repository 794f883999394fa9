"""A small training, by one of several processes that are started in different ways.

As a program it is given a folder, into which each rank writes its losses, and how it is started.
"""

import json
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch.distributed as dist

import kappaflow as kf
from kappaflow.ranks import rank
from kappaflow.training import collectives, distributed
from rank_cases import EPOCHS, flow, rows


def trained(*, other=False):
    """Returns the losses of each epoch; of other rows in each rank, if asked for."""
    x = rows() + rank() if other else rows()
    history = kf.fit(flow(), x, progress=False, **EPOCHS).history
    return [[line["train_nll"], line["validation_nll"]] for line in history]


def main(folder, way):
    """Writes the losses, or why there are none."""
    if way == "ray":
        from ray.train import ScalingConfig
        from ray.train.torch import TorchTrainer

        train = partial(main, folder, "launched")
        TorchTrainer(train, scaling_config=ScalingConfig(num_workers=2)).fit()
        return
    if way == "too late":
        collectives.CONNECT_TIMEOUT = distributed.CONNECT_TIMEOUT = timedelta(seconds=4)
    if way in {"own group", "one rank of a group"}:
        dist.init_process_group("gloo")
    if way == "one rank of a group":
        collectives.CONNECT_TIMEOUT = timedelta(seconds=4)
        if rank() == 1:
            dist.barrier()
            return
    try:
        content = trained(other=way == "other rows")
    except kf.KappaflowError as error:
        content = f"{type(error).__name__}: {error}"
    (folder / f"{rank()}.json").write_text(json.dumps(content))
    if way == "one rank of a group":
        dist.barrier()
    if "group" in way:
        dist.destroy_process_group()  # which kappaflow has left as it was


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
