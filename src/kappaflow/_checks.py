"""Checks of arguments, used by several modules."""

from collections.abc import Sequence
from math import isfinite, nan
from typing import SupportsIndex, TypeVar

import torch
from torch import Tensor

from kappaflow.errors import ArgumentError

T = TypeVar("T")


def positive_int(name: str, value: object, why: str = "") -> int:
    """Returns `value` as an int of at least 1, or raises ArgumentError."""
    return _int_from(name, value, 1, why)


def natural_int(name: str, value: object, why: str = "") -> int:
    """Returns `value` as an int of at least 0, or raises ArgumentError."""
    return _int_from(name, value, 0, why)


def layer_widths(hidden: object) -> tuple[int, ...]:
    """Returns the widths of hidden layers as ints of at least 1, or raises ArgumentError."""
    if isinstance(hidden, SupportsIndex) and not isinstance(hidden, bool | Tensor):
        raise ArgumentError(
            f"'hidden' should be a sequence of layer widths, got {hidden!r}: hidden=({hidden!r}, "
            f"{hidden!r}) are two hidden layers of {hidden!r} units."
        )
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise ArgumentError(f"'hidden' should be a sequence of layer widths, got {hidden!r}.")
    return tuple(positive_int("hidden", width) for width in hidden)


def _int_from(name: str, value: object, least: int, why: str) -> int:
    reason = f": {why}" if why else "."
    try:
        number = value.__index__()  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, TypeError):
        number = None
    if number is None or isinstance(value, bool):
        shown = repr(value) if isinstance(value, str | float | bool) else type(value).__name__
        raise ArgumentError(
            f"'{name}' should be a whole number of at least {least}, got {shown}{reason}"
        )
    if number < least:
        raise ArgumentError(f"'{name}' should be at least {least}, got {number}{reason}")
    return number


def finite_float(name: str, value: object, what: str = "a finite number") -> float:
    """Returns `value` as a finite float, or raises ArgumentError."""
    try:
        number = float(value) if isinstance(value, (int, float)) else nan
    except OverflowError:  # of an int
        number = nan
    if isinstance(value, bool) or not isfinite(number):
        raise ArgumentError(f"'{name}' should be {what}, got {value!r}.")
    return number


def positive_float(name: str, value: object) -> float:
    """Returns `value` as a finite float above 0, or raises ArgumentError."""
    what = "a finite number above 0"
    number = finite_float(name, value, what)
    if number <= 0:
        raise ArgumentError(f"'{name}' should be {what}, got {value!r}.")
    return number


def real_numbers(name: str, value: object) -> Tensor:
    """Returns `value` as a new floating tensor of finite numbers, or raises ArgumentError."""
    try:
        numbers = torch.as_tensor(value).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"'{name}' should hold numbers, got {value!r}.") from None
    if numbers.is_complex():
        raise ArgumentError(f"'{name}' should hold real numbers, got {numbers.dtype}.")
    if not numbers.is_floating_point():
        numbers = numbers.to(torch.get_default_dtype())
    if not torch.isfinite(numbers).all():
        raise ArgumentError(f"'{name}' should hold finite numbers, got inf or nan.")
    return numbers


def share(name: str, value: object) -> float:
    """Returns `value` as a float from 0 to below 1, or raises ArgumentError."""
    what = "at least 0 and below 1"
    number = finite_float(name, value, what)
    if not 0 <= number < 1:
        raise ArgumentError(f"'{name}' should be {what}, got {value!r}.")
    return number


def one_of(name: str, value: T, choices: tuple[T, ...]) -> T:
    """Returns `value` if it is among `choices`, or lists them."""
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ArgumentError(f"'{name}' should be one of {listed}, got {value!r}.")
    return value


def batch(name: str, x: object, event_shape: tuple[int, ...] | None = None) -> Tensor:
    """Returns `x` if it is a floating tensor of shape (B, *event), or raises ArgumentError."""
    if not isinstance(x, Tensor):
        raise ArgumentError(f"'{name}' should be a tensor, got {type(x).__name__}.")
    if not x.is_floating_point():
        raise ArgumentError(
            f"'{name}' should hold floating-point numbers, got {x.dtype}: "
            "call .float() on it first."
        )
    if x.dim() < 2 or (event_shape is not None and x.shape[1:] != torch.Size(event_shape)):
        expected = "event" if event_shape is None else ", ".join(map(str, event_shape))
        raise ArgumentError(
            f"'{name}' should have shape (batch, {expected}), got {tuple(x.shape)}."
        )
    return x


def feature_batch(name: str, x: object, features: int) -> Tensor:
    """Returns `x` if it is a floating tensor (B, features, *places), or raises ArgumentError."""
    return batch(name, x, (features, *batch(name, x).shape[2:]))


def image_shape(name: str, value: object) -> tuple[int, int, int]:
    """Returns `value` as (channels, height, width), or raises ArgumentError."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
        raise ArgumentError(
            f"'{name}' should be (channels, height, width) of the images, got {value!r}."
        )
    channels, height, width = (positive_int(name, size) for size in value)
    return channels, height, width
