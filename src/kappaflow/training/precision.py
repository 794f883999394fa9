"""Types of numbers in a training: what Fabric is told of them, and the scale of gradients.

float16 ends at 65,504 and begins at 6e-8, which many gradients lie below. The loss is multiplied
by a scale, and the gradients are divided by it before a step; where one of them became infinite
there is no step, and the scale is halved.
"""

from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import DoublePrecision, MixedPrecision

from kappaflow.errors import ArgumentError

NARROW: dict[str, Literal["bf16-mixed", "16-mixed"]] = {"bf16": "bf16-mixed", "fp16": "16-mixed"}


class _AsGiven:
    """Leaves points and log_probs as they are, which Fabric rounds on their way through ranks."""

    def convert_input(self, data: Any) -> Any:  # noqa: ANN401
        return data

    def convert_output(self, data: Any) -> Any:  # noqa: ANN401
        return data


class _Double(_AsGiven, DoublePrecision):
    pass


class _Mixed(_AsGiven, MixedPrecision):
    def unscale_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides by the scale; Fabric leaves that to the step of a fused optimizer."""
        if self.scaler is not None:  # it knows the optimizer that Fabric has wrapped
            self.scaler.unscale_(getattr(optimizer, "optimizer", optimizer))


def numbers_of(dtype: torch.dtype, wanted: str, device: str) -> dict[str, Any]:
    """Returns what Fabric is to be told of the types of numbers.

    Args:
        dtype: Of the flow.
        wanted: "full", "bf16" or "fp16".
        device: "cpu" or "cuda".

    Returns:
        Keywords of `Fabric`.
    """
    check_trained(dtype)
    if wanted == "full":
        if dtype == torch.float64:
            return {"plugins": _Double()}
        return {"precision": "32-true"}
    if dtype != torch.float32:
        raise ArgumentError(f"'flow' should be float32 for precision=\"{wanted}\", got {dtype}.")
    return {"plugins": _Mixed(NARROW[wanted], device)}  # by its name it prints a line


def check_trained(dtype: torch.dtype) -> None:
    """Refuses a type whose steps would be lost in its rounding."""
    if dtype not in {torch.float32, torch.float64}:
        raise ArgumentError(f"'flow' should be float32 or float64 to be trained, got {dtype}.")


def scale_state(fabric: Fabric) -> dict[str, int | float]:
    """Returns the scale of gradients and when it will grow, to go on with; nothing without one."""
    return fabric.strategy.precision.state_dict()


def restore_scale(fabric: Fabric, state: dict[str, int | float]) -> None:
    """Takes over what `scale_state` returned."""
    if state:
        fabric.strategy.precision.load_state_dict(state)


def lowered_scale(fabric: Fabric) -> float | None:
    """Halves the scale at which a gradient was not finite.

    Returns:
        That scale; None where there is none, or where it is 1 or less: then it was not the scale.
    """
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is None:
        return None
    scale = scaler.get_scale()
    scaler.update()
    return scale if scale > 1 else None
