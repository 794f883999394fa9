"""A call that `torch.compile` does not trace.

It is imported only while torch compiles, because the decorator loads the compiler, which takes a
second.
"""

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable
def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of a function call that is not compiled."""
    return function(*arguments)
