"""Glows trained on the digits of scikit-learn, all for the same processor time.

Pixels have 17 values. All rows take the same (x + e) / 17 - 1/2 with e uniform on [0, 1), so the
bits per dimension are those of the whole numbers x; the flows have no standardization. Optimizer,
batches and noise are the same. The learning rate falls to zero over the time budget, not over a
number of steps. At intervals, outside the budget, the bits of the validation images are measured;
the test images are evaluated with the best of these weights.
"""

import copy
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.row import ImageShape, Model, Row

SHAPE = ImageShape(batch=64, image=(1, 8, 8), levels=2, steps=8, hidden=64)
VALUES = 17
HELD_OUT = 240, 360  # validation and test images, of 1,797
LEARNING_RATE = 2e-3
LARGEST_GRADIENT = 50.0  # norm at which gradients are clipped
LOOKS = 20  # number of validations
DRAWS = 4, 20  # samples of the noise for each validation image and each test image
Parts = tuple[Tensor, Tensor, Tensor]


def digits_of(row: Row, seed: int, seconds: float, shape: ImageShape = SHAPE) -> dict[str, Any]:
    """Returns the results of a row on held-out images after an amount of processor time."""
    train, validation, test = digits()
    torch.manual_seed(seed)
    model = row.build(shape)
    training = Training(model, batches(train, shape.batch, seed))
    best, state = math.inf, copy.deepcopy(model.module.state_dict())
    for look in range(1, LOOKS + 1):
        training.go_on(seconds * look / LOOKS, seconds)
        bits = bits_per_dimension(model, validation, draws=DRAWS[0])
        if bits < best:
            best, state = bits, copy.deepcopy(model.module.state_dict())
    final = bits_per_dimension(model, test, draws=DRAWS[1])
    model.module.load_state_dict(state)
    return {
        "parameters": sum(p.numel() for p in model.module.parameters() if p.requires_grad),
        "steps": training.steps,
        "processor_s": training.spent,
        "validation": best,
        "final_test": final,
        "train": bits_per_dimension(model, train, draws=1),
        "test": bits_per_dimension(model, test, draws=DRAWS[1]),
    }


def digits() -> Parts:
    """Returns training, validation and test images, (N, 1, 8, 8) each."""
    from sklearn.datasets import load_digits

    rows, _ = load_digits(return_X_y=True)
    pixels = torch.as_tensor(rows).float().reshape(-1, 1, 8, 8)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    validation, test = HELD_OUT
    sizes = [len(pixels) - validation - test, validation, test]
    train, validation, test = pixels[order].split(sizes)
    return train, validation, test


@torch.no_grad()
def bits_per_dimension(model: Model, pixels: Tensor, *, draws: int) -> float:
    """Returns the mean over images and samples of the noise, which is the same for every flow."""
    generator = torch.Generator().manual_seed(1)
    model.module.eval()
    found = [_bits(model, filled(pixels, generator)).mean().item() for _ in range(draws)]
    model.module.train()
    return sum(found) / draws


def filled(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Returns pixels between -1/2 and 1/2, each uniform on the interval of its value."""
    return (pixels + torch.rand(pixels.shape, generator=generator)) / VALUES - 0.5


def _bits(model: Model, x: Tensor) -> Tensor:
    """Returns -log2 p of the whole numbers for x (B, C, H, W), per pixel, (B,)."""
    return math.log2(VALUES) - model.log_prob(x) / (x[0].numel() * math.log(2))


class Training:
    """A training with Adam that counts its processor time.

    Args:
        model: A new flow. It is called on one batch, which initializes what starts from data.
        batches: Batches without end.

    Attributes:
        steps: Number of steps so far.
        spent: Processor time of these steps in seconds.
    """

    def __init__(self, model: Model, batches: Iterator[Tensor]) -> None:
        self.steps, self.spent = 0, 0.0
        self._model, self._batches = model, batches
        self._parameters = [p for p in model.module.parameters() if p.requires_grad]
        self._adam = torch.optim.Adam(self._parameters, lr=LEARNING_RATE)
        with torch.no_grad():
            model.log_prob(next(batches))

    def go_on(self, until: float, budget: float) -> None:
        """Trains until an amount of time is spent; the rate falls to 0 over the whole budget."""
        while self.spent < until:
            self.one_step(LEARNING_RATE * (1 - self.spent / budget))

    def one_step(self, rate: float) -> None:
        """Trains on one batch, with a given learning rate."""
        self._adam.param_groups[0]["lr"] = rate
        start = time.process_time()
        self._descend(next(self._batches))
        self.spent += time.process_time() - start
        self.steps += 1

    def _descend(self, x: Tensor) -> None:
        self._adam.zero_grad()
        nats = _bits(self._model, x).mean() * (x[0].numel() * math.log(2))
        nats.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, LARGEST_GRADIENT)
        self._adam.step()


def batches(pixels: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Yields batches without end; each pass contains every image once."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(pixels), generator=generator)
        for rows in order.split(size):
            if len(rows) == size:
                yield filled(pixels[rows], generator)
