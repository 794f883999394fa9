"""Times dropout and the matrix product that it follows."""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import nn

from benchmarks.turns import in_turn, timed
from kappaflow.nets.mlp import dropout as byte_dropout


def dropout(*, rows: int = 512, width: int = 128, repetitions: int = 300) -> None:
    """Print median times, interleaved, on one thread: product, torch's dropout, ours.

    Parameters
    ----------
    rows
        Rows of the input.
    width
        Units of the layer.
    repetitions
        Number of repetitions; the median is printed.
    """
    torch.set_num_threads(1)
    x, weight = torch.randn(rows, width), torch.randn(width, width)
    candidates: dict[str, Callable[[], object]] = {
        "product": lambda: x @ weight,
        "torch": lambda: nn.functional.dropout(x, 0.1, training=True),
        "kappaflow": lambda: byte_dropout(x, 0.1, training=True),
    }
    times = in_turn({name: partial(timed, c) for name, c in candidates.items()}, repetitions)
    product = median(times["product"])
    for name, taken in times.items():
        share = median(taken) / product
        print(f"{name:<10} {median(taken) * 1e6:6.0f} us  {share:.2f} of a product")
