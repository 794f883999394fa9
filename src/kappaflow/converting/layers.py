"""The layers of a flow one by one: converted, or refused with a reason, all of them at once."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kappaflow.bijection import Bijection
from kappaflow.converting.plan import Other, Part, Refused, inverse_of
from kappaflow.converting.steps import full_names
from kappaflow.errors import ConversionError

# The methods in which the libraries define what a layer computes.
DEFINING = (
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

    Attributes:
        refused: Name and reason of each layer that has no equal.
    """

    def __init__(self, known: Mapping[str, Converter], own: Own) -> None:
        self._known, self._own, self._number = known, own, 0
        self.refused: list[tuple[str, str]] = []

    def take(self, layer: Any, *, backwards: bool = False, name: str | None = None) -> list[Part]:  # noqa: ANN401
        """Returns the parts of a layer from data to latent; none if it is refused.

        Args:
            layer: Of another library.
            backwards: Whether its forward direction is from latent to data.
            name: What it is called; its class if left out.

        Returns:
            The parts.
        """
        self._number += 1
        try:
            for kind, convert in self._own.items():
                if type(layer) is kind:
                    return [Other(functools.partial(convert, layer))]
            found = self.parts(layer)
            return inverse_of(found) if backwards else list(found)
        except Refused as refused:
            self._note(name or type(layer).__name__, str(refused))
            return []

    def parts(self, layer: Any) -> Sequence[Part]:  # noqa: ANN401
        """Returns the parts of a layer in its own forward direction, or raises `Refused`."""
        if any(map(_is_changed, layer.modules() if hasattr(layer, "modules") else ())):
            raise Refused("it has hooks, which may change what it does")
        for kind, name in zip(type(layer).__mro__, full_names(layer), strict=True):
            if name in self._known and _does_the_same(layer, kind):
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

    def _note(self, name: str, reason: str) -> None:
        self.refused.append((f"{self._number} {name}", reason))


def _is_changed(module: Any) -> bool:  # noqa: ANN401
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _does_the_same(layer: object, kind: type) -> bool:
    """Returns whether no subclass has changed what a class does in either direction."""
    return all(getattr(type(layer), name, None) is getattr(kind, name, None) for name in DEFINING)
