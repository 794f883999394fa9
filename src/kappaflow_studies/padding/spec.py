"""Paddings as settings name them: a kind, a width and perhaps a scale, such as gaussian:2:0.3."""

from dataclasses import dataclass

from kappaflow.errors import ArgumentError
from kappaflow.flows import padding_of_kind
from kappaflow.flows.pad import Padding
from kappaflow.flows.pad_kinds import KINDS

NONE = "none"
WORDS = {
    NONE: "no padding",
    "gaussian": "Gaussian",
    "uniform": "uniform",
    "zero": "zeros",
    "copy": "copies",
    "learned": "learned",
}
SINGULAR = {"zero": "zero", "copy": "copy"}


@dataclass(frozen=True)
class Spec:
    """A padding as settings name it.

    Attributes:
        kind: "none", or one that `padding_of_kind` takes.
        width: How many features, or channels.
        scale: Of the noise; None for the default of the kind.
    """

    kind: str
    width: int = 0
    scale: float | None = None

    @property
    def in_words(self) -> str:
        """What a chart calls it.

        Example:
            >>> Spec("gaussian", 2, 0.3).in_words, Spec("none").in_words
            ('2 Gaussian of scale 0.3', 'no padding')
        """
        if self.kind == NONE:
            return WORDS[NONE]
        scale = "" if self.scale is None else f" of scale {self.scale:g}"
        word = SINGULAR.get(self.kind, WORDS[self.kind]) if self.width == 1 else WORDS[self.kind]
        return f"{self.width} {word}{scale}"

    def padding(self, event_shape: tuple[int, ...]) -> Padding | None:
        """Returns the padding for points of a shape, None for none."""
        if self.kind == NONE:
            return None
        return padding_of_kind(self.kind, self.width, event_shape, scale=self.scale)


def spec_of(text: str) -> Spec:
    """Returns a padding by its name in the settings.

    Args:
        text: "none", "zero:2", "gaussian:2", "gaussian:2:0.3", ...

    Returns:
        The padding.

    Raises:
        ArgumentError: It is no such name.

    Example:
        >>> spec_of("gaussian:2:0.3")
        Spec(kind='gaussian', width=2, scale=0.3)
    """
    kind, *numbers = text.split(":")
    if kind == NONE and not numbers:
        return Spec(NONE)
    try:
        width = int(numbers[0])
        scale = float(numbers[1]) if len(numbers) > 1 else None
    except (IndexError, ValueError):
        kind, width, scale = "", 0, None
    if kind not in KINDS or width < 1 or len(numbers) > 2:
        raise ArgumentError(
            f"a padding should be none or KIND:WIDTH or KIND:WIDTH:SCALE, with one of "
            f"{', '.join(KINDS)} as the kind, got {text!r}."
        )
    return Spec(kind, width, scale)
