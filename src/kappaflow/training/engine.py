"""The engine of a training: Lightning Fabric for devices, ranks and a type of numbers."""

import logging
import warnings
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.ranks import ranks, ranks_here
from kappaflow.training.agreement import lost_ranks_in_words
from kappaflow.training.precision import numbers_of
from kappaflow.training.rows import AnyRows

PATIENCE = timedelta(seconds=45)  # with the gradients of another rank


class Together(DDPStrategy):
    """The ranks as torch's own data parallelism: the gradient of each is the mean over all.

    Attributes:
        some_idle: Whether parameters that could be trained have no part in the likelihood, and
            are to be looked for in each step; where there are none torch complains of the search.
    """

    some_idle = False

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        device = self.root_device
        return DistributedDataParallel(
            module,
            device_ids=None if device.type == "cpu" else [device.index],
            find_unused_parameters=self.some_idle,
        )


def engine(flow: Flow, device: str | torch.device | None, precision: str = "full") -> Fabric:
    """Returns the engine, the flow where it trains; there has to be something to train.

    Under torchrun it is that of all ranks, which have found each other when it is returned.
    """
    if not any(parameter.requires_grad for parameter in flow.parameters()):
        raise ArgumentError("'flow' should have parameters that can be trained, it has none.")
    fabric = _fabric(flow, device, precision)
    flow.to(fabric.device)
    return fabric


def meet(device: str | torch.device | None) -> None:
    """Lets the ranks find each other, where they have to agree before there is a flow."""
    if ranks() > 1:
        _together(torch.device(device or "cpu").type, device, {})


def mean_of_ranks(fabric: Fabric, value: Tensor) -> float:
    """Returns the mean over ranks of a number that each has."""
    mean = fabric.all_reduce(value.detach().clone(), reduce_op="mean")
    return mean.item()  # pyright: ignore[reportAttributeAccessIssue]


def some_idle(flow: Flow, rows: AnyRows) -> bool:
    """Returns whether parameters that could be trained have no part in the likelihood of rows."""
    few = rows.at(slice(0, 2))
    trained = [p for p in flow.parameters() if p.requires_grad]
    cuda = [flow.device] if flow.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        found = flow.train().log_prob(few.x, few.context)
    gradients = torch.autograd.grad(found.sum(), trained, allow_unused=True)
    return any(gradient is None for gradient in gradients)


def _fabric(flow: Flow, device: str | torch.device | None, precision: str) -> Fabric:
    """Returns the engine for a device: that of the flow where none is named."""
    try:
        wanted = flow.device if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        wanted = torch.device("meta")
    if wanted.type not in {"cpu", "cuda"}:
        raise ArgumentError(f'\'device\' should be "cpu" or "cuda", got {device!r}.')
    told = numbers_of(flow.dtype, precision, wanted.type)
    if ranks() > 1:
        return _together(wanted.type, device, told)
    if wanted.type == "cpu":
        return Fabric(accelerator="cpu", devices=1, **told)
    index = wanted.index or 0
    if index >= torch.cuda.device_count():
        raise ArgumentError(
            f"'device' should be one that is here, got {wanted}; "
            f"there are {torch.cuda.device_count()} CUDA devices."
        )
    return Fabric(accelerator="cuda", devices=[index], **told)


def _together(kind: str, device: str | torch.device | None, told: dict[str, Any]) -> Fabric:
    """Returns the engine of all ranks: each has a device of its own on CUDA."""
    if device is not None and torch.device(device).index is not None:
        raise ArgumentError(
            f'\'device\' should be "cpu" or "cuda" under torchrun, which counts the devices '
            f"itself, got {device!r}."
        )
    here = ranks_here()
    if kind == "cuda" and here > torch.cuda.device_count():
        raise ArgumentError(
            f"'device' should be \"cpu\", or there should be a CUDA device for each of the {here} "
            f"ranks of a machine; there are {torch.cuda.device_count()}."
        )
    if ranks() % here:
        raise ArgumentError(
            "each machine should run as many ranks: give all one --nproc-per-node."
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it prints that it starts
    # Of a size of 1 the stride says nothing, and torch speaks of it all the same.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    fabric = Fabric(
        accelerator=kind,
        devices=here,
        num_nodes=ranks() // here,
        strategy=Together(timeout=PATIENCE),
        **told,
    )
    with lost_ranks_in_words():
        fabric.launch()
    return fabric
