"""What a row of the tables is: a flow of a common shape, behind the same few calls."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

TIMED = ("speed", "memory")


@dataclass(frozen=True)
class Shape:
    """What all rows have in common.

    Attributes:
        depth: Number of couplings, an even number.
        batch: Rows of the data.
        features: D; each coupling keeps and changes half of them.
        hidden: Widths of the conditioners' two hidden layers.
    """

    depth: int = 128
    batch: int = 512
    features: int = 64
    hidden: tuple[int, int] = (128, 128)

    @property
    def kept(self) -> int:
        """Inputs of a conditioner."""
        return self.features // 2

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Of a conditioner's layers, input and output included."""
        return (self.kept, *self.hidden, 2 * (self.features - self.kept))

    def data(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns standard normal points, the same in every process."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, self.features, generator=generator).to(dtype)


@dataclass(frozen=True)
class Model:
    """A flow of any library, behind the same four calls.

    Attributes:
        module: Its parameters.
        log_prob: From points (B, D) to nats (B,).
        sample: From a number to points.
        encode: From data to latent.
        decode: From latent to data.
    """

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """A line of the tables.

    Attributes:
        name: In the tables; unique.
        group: Rows of a group are timed in one process.
        package: What is imported to build it.
        description: What exactly is built.
        build: Returns the flow.
        measures: Tasks that take it in.
        environment: Variables of the processes that measure it; the same for all of a group.
    """

    name: str
    group: str
    package: str
    description: str
    build: Callable[[Shape], Model]
    measures: tuple[str, ...] = ("speed", "memory", "numerics")
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        """Whether its library is here."""
        return importlib.util.find_spec(self.package) is not None


def conditioner(widths: tuple[int, ...], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Returns linear layers with activations between them, as torch initialises them."""
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])
