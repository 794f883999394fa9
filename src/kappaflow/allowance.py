"""What building from a file may take: steps, and numbers in memory, in proportion to the file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import Signature
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from kappaflow.errors import FileError

STEPS, STEPS_PER_TENSOR = 2**14, 64  # operations, and objects made
NUMBERS, NUMBERS_PER_WEIGHT = 2**22, 16  # 16 MiB in float32, and what is dropped on the way

_ALLOWANCE: ContextVar["Allowance | None"] = ContextVar("allowance", default=None)


class Allowance(TorchDispatchMode):
    """Steps that may be taken and numbers that may be made; each is paid for before it is done.

    Args:
        steps: How many.
        numbers: How many.
    """

    def __init__(self, steps: int, numbers: int) -> None:
        super().__init__()
        self.steps, self.numbers = steps, numbers

    def spend(self, numbers: int) -> None:
        """Takes a step that makes so many numbers, or says that it is not allowed."""
        self.steps, self.numbers = self.steps - 1, self.numbers - numbers
        if self.steps < 0 or self.numbers < 0:
            raise FileError(
                "the model that it describes is out of all proportion to its weights: one of its "
                "sizes is not that of the model that was saved."
            )

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        named = kwargs or {}
        self.spend(_numbers_made(func, args, named))
        return func(*args, **named)


@contextmanager
def allowed(weights: Mapping[str, Tensor]) -> Iterator[Allowance]:
    """Lets no more be built than goes with these weights.

    Yields:
        What is allowed; registered constructors ask `charge` for it.
    """
    numbers = sum(tensor.numel() for tensor in weights.values())
    allowance = Allowance(
        STEPS + STEPS_PER_TENSOR * len(weights), NUMBERS + NUMBERS_PER_WEIGHT * numbers
    )
    token = _ALLOWANCE.set(allowance)
    try:
        with allowance:
            yield allowance
    finally:
        _ALLOWANCE.reset(token)


def charge(signature: Signature, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
    """Pays for a call with the sizes among its arguments; free where nothing is limited."""
    allowance = _ALLOWANCE.get()
    if allowance is not None:
        allowance.spend(_size(signature.bind(*args, **kwargs).arguments))


def _size(value: Any) -> int:  # noqa: ANN401
    """Returns a whole number, the sum of named ones, the largest of a list; 1 for what is none."""
    if isinstance(value, int):
        return abs(value)
    if isinstance(value, Mapping):
        return sum(_size(one) for name, one in value.items() if name != "seed")
    return len(value) + max(map(_size, value), default=0) if isinstance(value, list | tuple) else 1


def _numbers_made(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> int:  # noqa: ANN401
    """Returns how many numbers an operation puts in new memory; views and writing need none."""
    schema = func._schema
    if any(one.alias_info for one in schema.returns):
        return 0
    given = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, named))
    elsewhere = {"device": "meta", "generator": None}
    taken = {one.name for one in schema.arguments}
    others = {name: value for name, value in elsewhere.items() if name in taken}
    try:
        made = func(*given[0], **given[1] | others)
    except (NotImplementedError, RuntimeError):  # what it makes depends on values
        made = (args, named)
    return _numbers_in(made)


def _numbers_in(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(map(_numbers_in, value.values()))
    return sum(map(_numbers_in, value)) if isinstance(value, (list, tuple)) else 0
