"""The device, the processes and the precision of a training.

A launcher such as `torchrun` starts one process, a rank, for each processor.
`DistributedDataParallel` averages the gradients over the ranks, with nccl on CUDA and with gloo on
the CPU, or with the process group that the program has initialised.

float16 holds magnitudes from 6e-8 to 65,504, and many gradients are smaller. The loss is therefore
multiplied by a scale, and the gradients are divided by it before each step. If a gradient
overflows, the step is skipped and the scale is halved.
"""

import atexit
import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from kappaflow.data.batches import Batches
from kappaflow.errors import ArgumentError, RankError
from kappaflow.flows import Flow
from kappaflow.ranks import launch, own_group, rank, ranks
from kappaflow.training.collectives import (
    CONNECT_TIMEOUT,
    disconnect,
    lost_ranks_as_errors,
    meet,
)
from kappaflow.training.optimizer import AdamW
from kappaflow.training.own_optimizer import OwnOptimizer

GRADIENT_TIMEOUT = timedelta(seconds=45)  # how long a rank waits for the gradients of another
NARROW_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Engine:
    """The device and precision of a training; computes gradients and takes steps."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    narrow_type: torch.dtype | None = None  # of matrix products in steps; None for the flow's own
    # Scales the loss in float16, and does nothing for other dtypes.
    scaler: GradScaler = field(default_factory=lambda: GradScaler("cpu", enabled=False))

    def autocast(self) -> AbstractContextManager:
        """Returns a context that runs matrix products in the narrow type, if one is set."""
        if self.narrow_type is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.narrow_type)

    def parallel(self, module: nn.Module, *, some_unused: bool) -> nn.Module:
        """Returns a module whose gradients are averaged over the ranks, if there are several."""
        if self.world_size == 1:
            return module
        # torch also compares the strides of dimensions of size 1, which do not matter.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return DistributedDataParallel(
            module,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            find_unused_parameters=some_unused,
        )

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        """Returns the mean of a scalar over the ranks, without its graph."""
        mean = value.detach().clone()
        if self.world_size > 1:
            dist.all_reduce(mean)  # a sum: gloo has no mean
            mean /= self.world_size
        return mean

    def clipped_step(
        self, optimizer: AdamW | OwnOptimizer, loss: Tensor, value: Tensor, *, clip_norm: float
    ) -> tuple[float, float]:
        """Returns `value` and the gradient's norm, after a clipped step if both are finite."""
        # `value` decides on all ranks. Both are read from the device at once.
        self.scaler.scale(loss).backward()
        optimizer.gather_gradients()
        self.scaler.unscale_(optimizer)  # pyright: ignore[reportArgumentType]
        trained = [p for p in optimizer.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in trained])  # pyright: ignore[reportArgumentType]
        read, read_norm = torch.stack((value.to(norm), norm)).tolist()
        if not math.isfinite(read):
            optimizer.zero_grad()  # they say nothing of a layer
            self.scaler.update(self.scaler.get_scale())  # the scale is not the cause
        elif math.isfinite(read_norm):
            torch.nn.utils.clip_grads_with_norm_(trained, clip_norm, norm)
            self.scaler.step(optimizer)  # pyright: ignore[reportArgumentType]
            self.scaler.update()
        else:
            optimizer.scatter_gradients()
        return read, read_norm

    def lower_scale(self) -> float | None:
        """Returns the scale of the loss, which is halved, or None if it was not the cause."""
        scale = self.scaler.get_scale()
        self.scaler.update()
        return scale if scale > 1 else None

    def scaler_state(self) -> dict[str, int | float]:
        """Returns the state of the scaler for a checkpoint; {} without a scaler."""
        return self.scaler.state_dict()

    def restore_scaler(self, state: dict[str, int | float]) -> None:
        if state:
            self.scaler.load_state_dict(state)


def make_engine(flow: Flow, device: str | torch.device | None, precision: str = "full") -> Engine:
    """Returns the engine of a training, with the flow on its device and all ranks connected."""
    if not any(parameter.requires_grad for parameter in flow.parameters()):
        raise ArgumentError("'flow' should have trainable parameters, it has none.")
    check_trainable(flow.dtype)
    if precision != "full" and flow.dtype != torch.float32:
        raise ArgumentError(
            f"'flow' should be float32 for precision=\"{precision}\", got {flow.dtype}."
        )
    own_device = connect_ranks(
        flow.device if device is None else device, chosen=device is not None
    )
    flow.to(own_device)
    scaler = GradScaler(own_device.type, enabled=precision == "fp16")
    return Engine(own_device, rank(), ranks(), NARROW_TYPES.get(precision), scaler)


def connect_ranks(device: str | torch.device, *, chosen: bool = True) -> torch.device:
    """Returns the device of this rank, after connecting the ranks of a launch.

    A process group that is initialised is used as it is. Without a `chosen` device, an own CUDA
    device takes the place of another one.
    """
    wanted = _cpu_or_cuda(device)
    if own_group() is None and launch().problem:
        raise ArgumentError(launch().problem)
    if ranks() == 1:
        return existing_device(wanted)
    if own_group() is not None:
        return _device_in_group(wanted, chosen=chosen)
    if chosen and wanted.index not in {None, launch().rank_here}:
        raise ArgumentError(
            '\'device\' should be "cpu" or "cuda" with several ranks, each of which gets its own '
            f"device, got {str(device)!r}."
        )
    own = torch.device("cpu") if wanted.type == "cpu" else _own_cuda_device()
    _initialise(own)
    meet()
    return own


def _device_in_group(wanted: torch.device, *, chosen: bool) -> torch.device:
    """Returns the device of this rank in the process group that is initialised."""
    needs_cuda = dist.get_backend() == "nccl"
    if needs_cuda and chosen and wanted.type == "cpu":
        raise ArgumentError(
            "'device' should be \"cuda\" here: the ranks are already connected by nccl, which "
            "does not support CPU tensors. Train on the CPU in another process."
        )
    own = wanted
    if needs_cuda or wanted.type == "cuda":
        index = torch.cuda.current_device() if wanted.index is None else wanted.index
        own = _cuda(torch.device("cuda", index), index)
    meet()
    return own


def _initialise(device: torch.device) -> None:
    """Initialises the process group of a launch; torch destroys it at the end of the process."""
    found = launch()
    place = f"{found.address}:{found.port}"
    try:
        store, _, _ = next(
            rendezvous(f"tcp://{place}", found.rank, found.size, timeout=CONNECT_TIMEOUT)
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise RankError(
            f"rank {found.rank} of {found.size} did not meet all the others at {place} within "
            f"{CONNECT_TIMEOUT.total_seconds():.0f} s ({reason}). Start all of them, with the "
            "address of rank 0 and a port that is free there."
        ) from None
    backend = {"cpu": "gloo", "cuda": "nccl"}[device.type]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with lost_ranks_as_errors():
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("kappaflow", store),  # pyright: ignore[reportPrivateImportUsage]
            rank=found.rank,
            world_size=found.size,
            timeout=GRADIENT_TIMEOUT,
            device_id=device if device.type == "cuda" else None,
        )
    atexit.register(disconnect)


def _own_cuda_device() -> torch.device:
    """Returns the CUDA device whose number is that of this rank on its machine."""
    index = launch().rank_here
    if index is None:
        raise ArgumentError(
            'LOCAL_RANK should be set for device="cuda" with several ranks: it is the number of '
            "a rank on its machine, which chooses its CUDA device."
        )
    if index >= torch.cuda.device_count():
        raise ArgumentError(
            f"'device' should be \"cpu\", or each rank of a machine needs its own CUDA device; "
            f"rank {index} of this one finds {torch.cuda.device_count()}."
        )
    return torch.device("cuda", index)


def check_trainable(dtype: torch.dtype) -> None:
    """Raises an error for a dtype in which steps would be lost to rounding."""
    if dtype not in {torch.float32, torch.float64}:
        raise ArgumentError(f"'flow' should be float32 or float64 to be trained, got {dtype}.")


def has_unused_parameters(flow: Flow, rows: Batches) -> bool:
    """Returns whether the likelihood of rows does not depend on some trainable parameters."""
    few = rows.at(slice(0, 2))
    trained = [p for p in flow.parameters() if p.requires_grad]
    cuda = [flow.device] if flow.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        log_prob = flow.train().log_prob(few.x, few.context)
    gradients = torch.autograd.grad(log_prob.sum(), trained, allow_unused=True)
    return any(gradient is None for gradient in gradients)


def existing_device(device: str | torch.device | None) -> torch.device:
    """Returns the device with a name, by default the CPU."""
    chosen = _cpu_or_cuda("cpu" if device is None else device)
    return chosen if chosen.type == "cpu" else _cuda(chosen, chosen.index or 0)


def _cpu_or_cuda(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        chosen = torch.device("meta")
    if chosen.type not in {"cpu", "cuda"}:
        raise ArgumentError(f'\'device\' should be "cpu" or "cuda", got {str(device)!r}.')
    return chosen


def _cuda(chosen: torch.device, index: int) -> torch.device:
    if index >= torch.cuda.device_count():
        raise ArgumentError(
            f"'device' should exist on this machine, got {chosen}; "
            f"there are {torch.cuda.device_count()} CUDA devices."
        )
    return torch.device("cuda", index)
