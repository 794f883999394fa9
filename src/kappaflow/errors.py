"""What goes wrong, by who has to act: one base exception, children only where one is caught."""

from collections.abc import Sequence


class KappaflowError(Exception):
    """Base of everything this package raises on purpose; its text is one sentence for the user."""


class ArgumentError(KappaflowError, ValueError):
    """An argument has a value or a shape that cannot be used."""


class ConversionError(ArgumentError):
    """A flow of another library has layers without an equal here.

    Args:
        library: Where the flow is from.
        layers: Name and reason of each such layer.

    Attributes:
        layers: The same.
    """

    def __init__(self, library: str, layers: Sequence[tuple[str, str]]) -> None:
        self.library, self.layers = library, tuple(layers)
        named = "; ".join(f"{name}: {reason}" for name, reason in self.layers)
        super().__init__(f"this flow of {library} cannot be converted: {named}.")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.library, self.layers)


class DataError(KappaflowError, ValueError):
    """A table, or the tensor made from it, has no density that a flow could fit."""


class FileError(KappaflowError, OSError):
    """A model file or a run folder is missing, damaged, foreign or of another version."""


class WriteError(FileError):
    """A file cannot be written: no room, no permission, no such place."""


class NumericalError(KappaflowError, ArithmeticError):
    """A computation failed: a value is not finite, or an iteration did not converge."""


class BuildError(KappaflowError, RuntimeError):
    """A compiled part cannot be built here; everything works without it."""


class RankError(KappaflowError, RuntimeError):
    """Another process of a training under torchrun has ended, or does not answer."""


class DataWarning(UserWarning):
    """Something about the data that a flow can be fitted to, but that its user should know."""


class NumericalWarning(UserWarning):
    """A computation switched to another method, because rounding errors were too large."""
