"""The form that all images of a set are brought to: channels, height, width, and how."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, SupportsIndex

from kappaflow.errors import ArgumentError

Fit = Literal["keep", "crop", "squeeze"]


@dataclass(frozen=True)
class Form:
    """One shape for all images; `fit` says what is done to those of another size."""

    channels: int
    height: int
    width: int
    fit: Fit

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image, (channels, height, width)."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Request:
    """What a user asks of the form: None where the source decides."""

    size: tuple[int, int] | None = None
    grey: bool | None = None
    crop: bool = True

    def form(self, height: int, width: int, *, is_grey: bool) -> Form:
        """Returns the form for a source of images of this size, grey or not."""
        channels = 1 if (is_grey if self.grey is None else self.grey) else 3
        if self.size is None:
            return Form(channels, height, width, "keep")
        return Form(channels, *self.size, "crop" if self.crop else "squeeze")


def requested(size: object, grey: object, crop: object) -> Request:
    """Returns the arguments of `load_images` as a request, or says what is wrong with them."""
    if grey is not None and not isinstance(grey, bool):
        raise ArgumentError(
            f"'grey' should be True, False, or None to keep what is there, got {grey!r}."
        )
    if not isinstance(crop, bool):
        raise ArgumentError(f"'crop' should be True or False, got {crop!r}.")
    return Request(None if size is None else _sides(size), grey, crop)


def _sides(size: object) -> tuple[int, int]:
    """Returns a size as (height, width)."""
    from kappaflow._checks import positive_int

    if isinstance(size, SupportsIndex):
        side = positive_int("size", size)
        return side, side
    if isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        return positive_int("size", size[0]), positive_int("size", size[1])
    raise ArgumentError(
        f"'size' should be a number of pixels or a pair (height, width), got {size!r}."
    )
