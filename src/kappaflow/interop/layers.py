"""The layers of a flow, each converted, or reported as unsupported with a reason."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection
from kappaflow.bijections import Linear
from kappaflow.errors import ArgumentError, ConversionError
from kappaflow.interop.blueprint import FlowPart, OtherPart, Unsupported, inverse_of

# The methods in which the libraries define what a layer or a flow computes.
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
Converter = Callable[[Any], Sequence[FlowPart]]
Converters = Mapping[type, Callable[[Any], Bijection]]


class Layers:
    """Converts layers from data to latent, and collects those that are not supported.

    `known` has converters of the library's layers, by the full names of their classes; each
    returns the parts of the forward direction. `converters` are the user's, by class; each returns
    a bijection from data to latent. If `inverted`, the library's layers map forward from latent to
    data.
    """

    def __init__(
        self, known: Mapping[str, Converter], converters: Converters, *, inverted: bool = False
    ) -> None:
        self._known, self._converters, self._inverted = known, converters, inverted
        self._number = 0
        self.unsupported: list[tuple[str, str]] = []

    def convert(self, layer: Any) -> list[FlowPart]:
        """Returns the parts of a layer from data to latent; none if it is not supported."""
        self._number += 1
        name = f"{self._number} {type(layer).__name__}"
        return self.attempt(name, lambda: self._from_data(self.forward_parts(layer)))

    def forward_parts(self, layer: Any) -> Sequence[FlowPart]:
        """Returns the parts of a layer in the library's forward direction."""
        if type(layer) in self._converters:
            return self._from_data([
                OtherPart(functools.partial(_apply, self._converters[type(layer)], layer))
            ])
        if any(map(is_modified, layer.modules() if hasattr(layer, "modules") else ())):
            raise Unsupported("it has hooks or replaced methods, which may change its output")
        for kind, name in zip(type(layer).__mro__, full_names(layer), strict=True):
            if name in self._known and keeps_methods(layer, kind, DEFINING):
                return self._known[name](layer)
        raise Unsupported("kappaflow does not convert such layers")

    def inverse_parts(self, layers: Sequence[Any]) -> list[FlowPart]:
        """Returns the parts of the inverse of layers, in the library's forward direction."""
        return inverse_of([part for layer in layers for part in self.forward_parts(layer)])

    def attempt(self, name: str, convert: Callable[[], Sequence[FlowPart]]) -> list[FlowPart]:
        """Returns the result of `convert`; if unsupported, records the reason and returns []."""
        try:
            return list(convert())
        except Unsupported as unsupported:
            self.unsupported.append((name, str(unsupported)))
            return []

    def raise_if_unsupported(self, library: str) -> None:
        """Raises `ConversionError` if any layer is not supported."""
        if self.unsupported:
            raise ConversionError(library, self.unsupported)

    def _from_data(self, parts: Sequence[FlowPart]) -> Sequence[FlowPart]:
        """Returns parts of the library's forward direction as parts from data to latent."""
        return inverse_of(parts) if self._inverted else parts


def dense(matrix: Tensor, shift: Tensor | None = None, *, trained: bool = True) -> OtherPart:
    """Returns the map z = M x + shift."""
    matrix = matrix.detach().clone()
    shift = None if shift is None else shift.detach().clone()
    if not torch.isfinite(matrix).all():
        raise Unsupported("its matrix has values that are not finite")
    values = torch.linalg.svdvals(matrix.double())
    if values[-1] <= len(matrix) * torch.finfo(matrix.dtype).eps * values[0]:
        raise Unsupported("its matrix is singular to the precision of its dtype")
    return OtherPart(lambda: Linear.of(matrix, shift).requires_grad_(trained))


def flattened(layer: Any, inner: Callable[[Any], Sequence[Any] | None]) -> list[Any]:
    """Returns a layer, or the layers of nested compositions, which `inner` lists."""
    parts = inner(layer)
    if parts is None:
        return [layer]
    return [nested for part in parts for nested in flattened(part, inner)]


def full_names(module: object) -> list[str]:
    """Returns the full names of an object's class and its bases."""
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__]


def is_exactly(layer: object, name: str) -> bool:
    """Returns whether a layer is an unmodified instance of a class, and of no subclass."""
    return full_names(layer)[0] == name and not is_modified(layer)


def is_modified(part: object) -> bool:
    """Returns whether a module has hooks or replaced methods."""
    if not isinstance(part, nn.Module):
        return False
    replaced = not vars(part).keys().isdisjoint(DEFINING)
    return replaced or bool(part._forward_hooks or part._forward_pre_hooks)


def keeps_methods(layer: object, kind: type, methods: Sequence[str]) -> bool:
    """Returns whether no subclass overrides these methods of `kind`."""
    return all(getattr(type(layer), name, None) is getattr(kind, name, None) for name in methods)


def _apply(convert: Callable[[Any], Bijection], layer: object) -> Bijection:
    bijection = convert(layer)
    if not isinstance(bijection, Bijection):
        raise ArgumentError(
            f"'converters' should return bijections, got {type(bijection).__name__} for a "
            f"{type(layer).__name__}."
        )
    return bijection
