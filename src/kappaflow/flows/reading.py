"""What a recipe does with a context before the layers of its flow see it."""

from typing import Any

import torch
from torch import nn

from kappaflow._checks import natural_int
from kappaflow.errors import ArgumentError
from kappaflow.nets import StandardizeInputs


def reading(context_features: int, embedding: nn.Module | None) -> tuple[int, dict[str, Any]]:
    """Returns how wide the context is that layers see, and what a `Chain` is told of it.

    A context is standardised first, and then goes through the embedding, if there is one.

    Args:
        context_features: Width of the context as it is given; 0 for none.
        embedding: A network from (B, context_features) to (B, width); None for none.

    Returns:
        The width, and arguments of `Chain`.

    Raises:
        ArgumentError: The embedding is no network of such rows.
    """
    natural_int("context_features", context_features)
    if embedding is None and not context_features:
        return 0, {}
    width = context_features if embedding is None else _width_of(embedding, context_features)
    whole: nn.Module = StandardizeInputs(context_features)
    if embedding is not None:
        whole = nn.Sequential(whole, embedding)
    return width, {"embedding": whole, "context_features": context_features}


def _width_of(embedding: object, context_features: int) -> int:
    if not isinstance(embedding, nn.Module):
        raise ArgumentError(
            f"'embedding' should be a torch.nn.Module, got {type(embedding).__name__}."
        )
    if not context_features:
        raise ArgumentError("'context_features' should be given with an embedding.")
    training = embedding.training
    try:
        with torch.no_grad():
            found = embedding.eval()(torch.zeros(2, context_features))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(
            f"'embedding' should take rows of {context_features} numbers: {error}"
        ) from None
    finally:
        embedding.train(training)
    if not isinstance(found, torch.Tensor) or found.dim() != 2 or len(found) != 2:
        got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ArgumentError(f"'embedding' should return rows (B, width), got {got} for B = 2.")
    return found.shape[1]
