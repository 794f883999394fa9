"""The engine of a training: Lightning Fabric for a device and a type of numbers."""

from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow


def engine(
    flow: Flow, device: str | torch.device | None, precision: Literal["full", "bf16"] = "full"
) -> Fabric:
    """Returns the engine, the flow where it trains; there has to be something to train."""
    if not any(parameter.requires_grad for parameter in flow.parameters()):
        raise ArgumentError("'flow' should have parameters that can be trained, it has none.")
    fabric = _fabric(flow, device, precision)
    flow.to(fabric.device)
    return fabric


def _fabric(flow: Flow, device: str | torch.device | None, precision: str) -> Fabric:
    """Returns the engine for a device: that of the flow where none is named."""
    try:
        wanted = flow.device if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        wanted = torch.device("meta")
    if wanted.type not in {"cpu", "cuda"}:
        raise ArgumentError(f'\'device\' should be "cpu" or "cuda", got {device!r}.')
    if wanted.type == "cpu":
        return Fabric(accelerator="cpu", devices=1, **_precision(flow, precision, "cpu"))
    index = wanted.index or 0
    if index >= torch.cuda.device_count():
        raise ArgumentError(
            f"'device' should be one that is here, got {wanted}; "
            f"there are {torch.cuda.device_count()} CUDA devices."
        )
    return Fabric(accelerator="cuda", devices=[index], **_precision(flow, precision, "cuda"))


def _precision(flow: Flow, wanted: str, device: str) -> dict[str, Any]:
    """Returns what Fabric is to be told of the types of numbers."""
    kinds = {torch.float32: "32-true", torch.float64: "64-true"}
    if flow.dtype not in kinds:
        raise ArgumentError(
            f"'flow' should be float32 or float64 to be trained, got {flow.dtype}."
        )
    if wanted == "full":
        return {"precision": kinds[flow.dtype]}
    if flow.dtype != torch.float32:
        raise ArgumentError(f"'flow' should be float32 for precision=\"bf16\", got {flow.dtype}.")
    return {"plugins": MixedPrecision("bf16-mixed", device)}  # by its name it prints a line
