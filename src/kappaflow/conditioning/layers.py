"""The layers of a composition, as everything that measures over depth sees them."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections.image import MultiScale
from kappaflow.stack import CouplingStack


@dataclass(frozen=True)
class Layer:
    """One bijection of a flow, with the context that reaches it.

    Attributes:
        name: Its place and its class, such as "3 AffineCoupling"; the place counts from 1 at the
            data.
        bijection: The layer itself.
        context: (B, C) as the layer sees it, or None.
    """

    name: str
    bijection: Bijection
    context: Tensor | None


def layers_of(bijection: Bijection, context: Tensor | None = None) -> tuple[Layer, ...]:
    """Returns the layers of a bijection in their order, nested chains and stacks opened.

    The layers of a stack are its plain couplings: the same function, up to rounding. Those of a
    multi-scale map act on one flat state, and have the number of their scale in their name.
    """
    found = _walk(bijection, context)
    return tuple(
        Layer(f"{i} {part.layer_name()}", part, part_context)
        for i, (part, part_context) in enumerate(found, start=1)
    )


def _walk(
    bijection: Bijection, context: Tensor | None
) -> Iterator[tuple[Bijection, Tensor | None]]:
    if isinstance(bijection, CouplingStack | MultiScale):
        bijection = bijection.plain()
    if not isinstance(bijection, Chain):
        yield bijection, context
        return
    context = bijection.embed(context)
    for part in bijection:
        yield from _walk(part, context)
