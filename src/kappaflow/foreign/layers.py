"""Layers and bases of other libraries as a `Bijection` and a `Base`, for `wrap`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.errors import ArgumentError
from kappaflow.flows import Base

Call = Callable[[Tensor, Tensor | None], tuple[Tensor, Any]]  # from x, context to value, log_det
ContextReader = Callable[[Tensor | None], Tensor | None]


def unchanged_context(context: Tensor | None) -> Tensor | None:
    """Returns the context unchanged, for flows without an embedding network."""
    return context


class ForeignLayer(Bijection):
    """A layer of another library as a `Bijection` from data to latent.

    `encode` maps x, (B, *event), and the context to z and log|det dz/dx|, and `decode` back. The
    library may return the log_det as a number, as one tensor for all rows, as (B, 1), or with one
    value per feature. It is converted to (B,). Inputs and outputs are copied, so caches of the
    library are not used and nothing is changed in place. Outputs have the dtype of the inputs. The
    title is the class name in the library, for reports; `shapes` are the event shapes of x and z.
    """

    def __init__(
        self,
        title: str,
        encode: Call,
        decode: Call,
        shapes: tuple[Sequence[int], Sequence[int]],
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.title = title
        self.encode, self.decode = encode, decode
        self.event_shape, self.latent_event_shape = tuple(shapes[0]), tuple(shapes[1])
        self.context_features = context_features

    def layer_name(self) -> str:
        return self.title

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._call(self.encode, x, context, "forward", self.latent_event_shape)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._call(self.decode, z, context, "inverse", self.event_shape)

    def latent_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        return self.latent_event_shape

    def data_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        return self.event_shape

    def _call(
        self,
        call: Call,
        value: Tensor,
        context: Tensor | None,
        direction: str,
        shape: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        result = call(value.clone(), context)
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise ArgumentError(
                f"{self.title}: {direction} should return a value and a log_det, got "
                f"{type(result).__name__}."
            )
        output, log_det = result
        if not isinstance(output, Tensor) or output.shape != (len(value), *shape):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ArgumentError(
                f"{self.title}: {direction} should return a value of shape "
                f"{(len(value), *shape)}, got {got}."
            )
        output = output.to(value.dtype, copy=True)
        return output, per_row(log_det, value, f"{self.title}: log_det of {direction}")

    def extra_repr(self) -> str:
        return self.title


def per_row(numbers: object, x: Tensor, name: str) -> Tensor:
    """Returns one value per row as a tensor (B,) in float32 or wider."""
    values = torch.as_tensor(numbers, device=x.device)
    values = values.to(torch.promote_types(values.dtype, log_det_dtype(x.dtype)))
    if values.numel() == 1:
        return values.reshape(()).expand(len(x))
    if values.dim() and len(values) == len(x):
        return values.flatten(1).sum(1) if values.dim() > 1 else values
    raise ArgumentError(f"{name} should have shape ({len(x)},), got {tuple(values.shape)}.")


class ForeignBase(Base):
    """The base distribution of a flow of another library, from its log_prob and its sampler.

    `sample` draws n latents, given a context of n rows or None, with torch's global generator.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        log_prob: Callable[[Tensor, Tensor | None], Tensor],
        sample: Callable[[int, Tensor | None], Tensor],
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self._log_prob, self._sample = log_prob, sample

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return per_row(self._log_prob(z.clone(), context), z, "log_prob of the base")

    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        with seeded(generator):
            z = self._sample(n, context)
        return z.reshape(n, *self.event_shape).to(dtype=dtype, device=device)


@contextmanager
def seeded(generator: torch.Generator | None) -> Iterator[None]:
    """Seeds torch's global generator from another one, and restores it afterwards."""
    if generator is None:
        yield
        return
    seed = torch.randint(2**62, (), generator=generator, device=generator.device).item()
    with torch.random.fork_rng():
        torch.manual_seed(int(seed))
        yield


@contextmanager
def default_dtype_of(module: nn.Module) -> Iterator[None]:
    """Uses the dtype of a module as torch's default, for samplers that create tensors in it."""
    before, first = torch.get_default_dtype(), next(module.parameters(), None)
    torch.set_default_dtype(before if first is None else first.dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class Parts:
    """The parts of a flow of another library, as an adapter returns them."""

    library: str
    layers: Sequence[ForeignLayer]  # the layers from data to latent
    base: Base
    module: nn.Module | None = None  # the module with the parameters, or None
    # The library's log_prob, a function from x and the context to (B,), or None
    log_prob: Callable[[Tensor, Tensor | None], Tensor] | None = None
    # The library's sampler, or None. It is a function from n and the context (n rows, or None) to
    # samples and their log_prob, which may be None.
    sample: Callable[[int, Tensor | None], tuple[Tensor, Tensor | None]] | None = None
    # A tensor with the dtype and device, if there is no module and no rows are given
    like: Tensor | None = None
    flow: object = None  # the flow inside the given object, if they differ


def is_overridden(method: str, owner: object, libraries: Sequence[str]) -> bool:
    """Returns whether a user's class, or the object itself, replaces a method of libraries."""
    home = next((kind for kind in type(owner).__mro__ if method in vars(kind)), None)
    defined_outside = home is not None and home.__module__.partition(".")[0] not in libraries
    return defined_outside or method in vars(owner)


def event_shape_of(x: Tensor | None, name: str) -> tuple[int, ...]:
    """Returns the shape of one row, or raises an error that asks for rows."""
    if x is None:
        raise ArgumentError(
            f"'x' should be given as a few rows, (B, *event): {name} does not know their shape."
        )
    return tuple(x.shape[1:])


def flattened(layer: Any, inner: Callable[[Any], Sequence[Any] | None]) -> list[Any]:
    """Returns a layer, or the layers of nested compositions, which `inner` lists."""
    parts = inner(layer)
    if parts is None:
        return [layer]
    return [nested for part in parts for nested in flattened(part, inner)]
