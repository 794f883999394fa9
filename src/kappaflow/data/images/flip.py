"""Augmentation by mirroring."""

from typing import TYPE_CHECKING

from kappaflow.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Generator, Tensor


def flipped(batch: "Tensor", *, generator: "Generator") -> "Tensor":
    """Returns the images, each mirrored left to right with probability 1/2.

    Args:
        batch: Images (B, channels, height, width) of any type, which stay as they are.
        generator: What decides; one number is drawn for each image, on the generator's device.

    Returns:
        New images of the same shape and type.

    Raises:
        ArgumentError: If the batch has other axes.

    Example:
        >>> import torch
        >>> batch = torch.arange(3).expand(4, 1, 1, 3)
        >>> flipped(batch, generator=torch.Generator().manual_seed(0))[:, 0, 0]
        tensor([[2, 1, 0],
                [0, 1, 2],
                [2, 1, 0],
                [2, 1, 0]])
    """
    import torch

    if batch.dim() != 4:
        raise ArgumentError(
            "'batch' should have shape (batch, channels, height, width), got "
            f"{tuple(batch.shape)}."
        )
    draws = torch.rand(len(batch), generator=generator, device=generator.device)
    mirrored = (draws < 0.5).to(batch.device)[:, None, None, None]
    return torch.where(mirrored, batch.flip(-1), batch)
