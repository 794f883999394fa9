"""A call that `torch.compile` leaves alone; imported only where one compiles.

To make such a function torch loads its compiler, which takes a second.
"""

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable
def call(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """Returns what a function returns, which is run as it is."""
    return function(*arguments)
