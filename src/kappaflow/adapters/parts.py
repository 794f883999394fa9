"""What an adapter takes out of a flow of another library: layers, base, and the library's own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.errors import ArgumentError
from kappaflow.flows import Base

Answer = tuple[Tensor, Any]  # a value and a log_det, as the library returns it
Call = Callable[[Tensor, Tensor | None], Answer]
Read = Callable[[Tensor | None], Tensor | None]


def as_given(context: Tensor | None) -> Tensor | None:
    """Returns a context as it is: how it is read where nothing stands in front of a flow."""
    return context


class ForeignLayer(Bijection):
    """A layer of another library, data to latent, held to the laws of `Bijection` in form.

    The log_det may come as a number, as one tensor for all rows, as (B, 1), or one for each
    feature: it is brought to (B,). Inputs and values are copies, so that no cache of the library
    is met and nothing is changed in place, and values have the type of the inputs.

    Args:
        title: What it is called, the class of the library.
        encode: Takes x (B, *event) and the context, and returns z and log|det dz/dx|.
        decode: Takes z and the context, and returns x and log|det dx/dz|.
        shapes: Of one x, and of one z.
        context_features: Width of the context that it is given.
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
        return self._called(self.encode, x, context, "forward", self.latent_event_shape)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._called(self.decode, z, context, "inverse", self.event_shape)

    def latent_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        return self.latent_event_shape

    def data_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        return self.event_shape

    def _called(
        self,
        call: Call,
        value: Tensor,
        context: Tensor | None,
        direction: str,
        shape: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        answer = call(value.clone(), context)
        if not (isinstance(answer, tuple | list) and len(answer) == 2):
            raise ArgumentError(
                f"{self.title}: {direction} should return a value and a log_det, got "
                f"{type(answer).__name__}."
            )
        found, log_det = answer
        if not isinstance(found, Tensor) or found.shape != (len(value), *shape):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ArgumentError(
                f"{self.title}: {direction} should return a value of shape "
                f"{(len(value), *shape)}, got {got}."
            )
        found = found.to(value.dtype, copy=True)
        return found, per_row(log_det, value, f"{self.title}: log_det of {direction}")

    def extra_repr(self) -> str:
        return self.title


def per_row(numbers: object, x: Tensor, name: str) -> Tensor:
    """Returns what a library says of each row as (B,), in float32 or wider.

    Args:
        numbers: A number, a tensor of one number, (B,), (B, 1), or (B, *event): the sum counts.
        x: (B, *event).
        name: For the error.

    Returns:
        (B,).

    Raises:
        ArgumentError: It has another shape.
    """
    found = torch.as_tensor(numbers, device=x.device)
    found = found.to(torch.promote_types(found.dtype, log_det_dtype(x.dtype)))
    if found.numel() == 1:
        return found.reshape(()).expand(len(x))
    if found.dim() and len(found) == len(x):
        return found.flatten(1).sum(1) if found.dim() > 1 else found
    raise ArgumentError(f"{name} should have shape ({len(x)},), got {tuple(found.shape)}.")


class ForeignBase(Base):
    """The latent's distribution as a library has it.

    Args:
        event_shape: Of one z.
        log_prob: Takes z (B, *event) and the context, and returns (B,).
        sample: Takes a number of rows and the context (that many rows, or None), and returns z;
            draws from torch's global generator.
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
    """Makes torch's global generator draw what another one says, and then leaves it as it was."""
    if generator is None:
        yield
        return
    seed = torch.randint(2**62, (), generator=generator, device=generator.device).item()
    with torch.random.fork_rng():
        torch.manual_seed(int(seed))
        yield


@contextmanager
def drawing_as(module: nn.Module) -> Iterator[None]:
    """Makes what draws in torch's default type draw in that of a module instead."""
    before, first = torch.get_default_dtype(), next(module.parameters(), None)
    torch.set_default_dtype(before if first is None else first.dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class Parts:
    """What an adapter finds.

    Attributes:
        library: Its name.
        layers: Data side first.
        base: Of the latent.
        module: Holds the parameters, if anything does.
        log_prob: The library's own: takes x and the context, returns (B,); None if it has none.
        sample: The library's own: takes n and the context (n rows, or None), and returns x and
            the log_prob that it gives for them, None if it gives none.
        like: Tells type and device where there is no module and no points are given.
        flow: What was taken apart, where it is a part of what was given.
    """

    library: str
    layers: Sequence[ForeignLayer]
    base: Base
    module: nn.Module | None = None
    log_prob: Callable[[Tensor, Tensor | None], Tensor] | None = None
    sample: Callable[[int, Tensor | None], tuple[Tensor, Tensor | None]] | None = None
    like: Tensor | None = None
    flow: object = None


def event_shape_of(x: Tensor | None, name: str) -> tuple[int, ...]:
    """Returns the shape of one point, or asks for points."""
    if x is None:
        raise ArgumentError(
            f"'x' should be given, a few points (B, *event): {name} does not say their shape."
        )
    return tuple(x.shape[1:])
