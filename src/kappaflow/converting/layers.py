"""The layers of a flow one by one: converted, or refused with a reason, all of them at once."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from kappaflow.bijection import Bijection
from kappaflow.converting.plan import Other, Part, Refused, inverse_of
from kappaflow.converting.steps import full_names
from kappaflow.errors import ArgumentError, ConversionError

# The methods in which the libraries define what a layer, or a whole flow, computes.
DEFINING = (
    "log_prob",
    "forward",
    "inverse",
    "meta",
    "forward_no_cache",
    "inverse_no_cache",
    "_coupling_transform_forward",
    "_coupling_transform_inverse",
    "_coupling1",
    "_coupling2",
    "_affine",
    "_permute",
    "_pre_permute",
    "_assemble_W",
)
Converter = Callable[[Any], Sequence[Part]]
Own = Mapping[type, Callable[[Any], Bijection]]


class Layers:
    """Takes layers from data to latent, and remembers which have no equal.

    Args:
        known: Converters of the library's layers, by the full names of their classes. Each
            returns the parts of the layer's own forward direction.
        own: Converters of the caller's layers, by class; each returns a bijection from data to
            latent.
        backwards: Whether the forward direction of the library's layers is from latent to data.

    Attributes:
        refused: Name and reason of each layer that has no equal.
    """

    def __init__(
        self, known: Mapping[str, Converter], own: Own, *, backwards: bool = False
    ) -> None:
        self._known, self._own, self._backwards = known, own, backwards
        self._number = 0
        self.refused: list[tuple[str, str]] = []

    def take(self, layer: Any) -> list[Part]:  # noqa: ANN401
        """Returns the parts of a layer from data to latent; none if it is refused."""
        self._number += 1
        name = f"{self._number} {type(layer).__name__}"
        return self.part(name, lambda: self._turned(self.parts(layer)))

    def parts(self, layer: Any) -> Sequence[Part]:  # noqa: ANN401
        """Returns the parts of a layer in its own forward direction, or raises `Refused`."""
        if type(layer) in self._own:
            return self._turned([Other(functools.partial(_by, self._own[type(layer)], layer))])
        if any(map(is_changed, layer.modules() if hasattr(layer, "modules") else ())):
            raise Refused("it has hooks or methods of its own, which may change what it does")
        for kind, name in zip(type(layer).__mro__, full_names(layer), strict=True):
            if name in self._known and does_the_same(layer, kind, DEFINING):
                return self._known[name](layer)
        raise Refused("kappaflow has no layer that is equal to it")

    def part(self, name: str, convert: Callable[[], Sequence[Part]]) -> list[Part]:
        """Returns what `convert` returns; notes a refusal under a name that is no layer's."""
        try:
            return list(convert())
        except Refused as refused:
            self.refused.append((name, str(refused)))
            return []

    def check(self, library: str) -> None:
        """Raises `ConversionError` if something was refused."""
        if self.refused:
            raise ConversionError(library, self.refused)

    def _turned(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Returns parts of the library's forward direction from data to latent, and vice versa."""
        return inverse_of(parts) if self._backwards else parts


def is_a(layer: object, name: str) -> bool:
    """Returns whether a layer is of a class by its full name, no subclass, and as it was made."""
    return full_names(layer)[0] == name and not is_changed(layer)


def is_changed(part: object) -> bool:
    """Returns whether hooks, or methods set on it, may make a module do more than its class."""
    if not isinstance(part, nn.Module):
        return False
    own = not vars(part).keys().isdisjoint(DEFINING)
    return own or bool(part._forward_hooks or part._forward_pre_hooks)


def does_the_same(layer: object, kind: type, methods: Sequence[str]) -> bool:
    """Returns whether no subclass has changed these methods of a class."""
    return all(getattr(type(layer), name, None) is getattr(kind, name, None) for name in methods)


def _by(convert: Callable[[Any], Bijection], layer: object) -> Bijection:
    made = convert(layer)
    if not isinstance(made, Bijection):
        raise ArgumentError(
            f"'converters' should return bijections, got {type(made).__name__} for a "
            f"{type(layer).__name__}."
        )
    return made
