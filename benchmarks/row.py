"""The row of a table: a flow of a common shape, with the same calls for every library."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

TIMED = ("speed", "memory")


@dataclass(frozen=True)
class Shape:
    """The common shape of all rows.

    Attributes:
        depth: Number of couplings, an even number.
        batch: Number of rows of the data.
        features: Number of features D; each coupling keeps and changes half of them.
        hidden: Widths of the two hidden layers of the conditioners.
    """

    depth: int = 128
    batch: int = 512
    features: int = 64
    hidden: tuple[int, int] = (128, 128)

    @property
    def kept(self) -> int:
        """Number of inputs of a conditioner."""
        return self.features // 2

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Widths of the layers of a conditioner, with input and output."""
        return (self.kept, *self.hidden, 2 * (self.features - self.kept))

    def data(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns standard normal points, the same in every process."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, self.features, generator=generator).to(dtype)


@dataclass(frozen=True)
class ImageShape:
    """The common shape of all rows of images: a Glow.

    Attributes:
        batch: Images per step.
        image: Shape of an image, (C, H, W).
        levels: Number of squeezes. After each but the last, half of the channels are factored out.
        steps: Number of steps (ActNorm, 1x1 convolution and coupling) in each level.
        hidden: Channels of the couplings' networks.
    """

    batch: int = 16
    image: tuple[int, int, int] = (3, 32, 32)
    levels: int = 3
    steps: int = 8
    hidden: int = 128

    def data(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns standard normal images, the same in every process."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, *self.image, generator=generator).to(dtype)

    def scales(self) -> Iterator[tuple[int, tuple[int, int], int]]:
        """Yields channels, sides and number of networks of each level, the finest level first.

        There is one network for each step, and one more for the learned prior.
        """
        channels, height, width = self.image
        for level in range(1, self.levels + 1):
            channels, height, width = 4 * channels, height // 2, width // 2
            yield channels, (height, width), self.steps + (level < self.levels)
            channels //= 2

    def network(self, inputs: int, outputs: int) -> nn.Module:
        """Returns convolutions 3x3, 1x1, 3x3 with ReLU between them, as plain modules."""
        return nn.Sequential(
            nn.Conv2d(inputs, self.hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(self.hidden, self.hidden, 1),
            nn.ReLU(),
            nn.Conv2d(self.hidden, outputs, 3, padding=1),
        )


@dataclass(frozen=True)
class Model:
    """A flow of any library, with the same four calls.

    Attributes:
        module: The module with its parameters.
        log_prob: Function from points (B, D) to nats (B,).
        sample: Function from a number to points.
        encode: Function from data to latent.
        decode: Function from latent to data.
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
        name: Unique name in the tables.
        group: Name of the group; rows of a group are timed in one process.
        package: Package that is imported to build it.
        description: Description of the flow.
        build: Returns the flow of a `Shape`, or of an `ImageShape`.
        measures: Tasks that include the row.
        environment: Environment variables of its processes, equal for all rows of a group.
        activation: Activation of its networks, and of its floor; equal for all rows of a group.
    """

    name: str
    group: str
    package: str
    description: str
    build: Callable[[Any], Model]
    measures: tuple[str, ...] = ("speed", "memory", "numerics")
    environment: Mapping[str, str] = field(default_factory=dict)
    activation: type[nn.Module] = nn.ReLU

    @property
    def installed(self) -> bool:
        """Whether its library is installed."""
        return importlib.util.find_spec(self.package) is not None


def conditioner(widths: tuple[int, ...], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Returns linear layers with activations between them, as torch initializes them."""
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])
