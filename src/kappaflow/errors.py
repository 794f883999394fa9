"""The exceptions and warnings of the package."""


class KappaflowError(Exception):
    """Base class of all errors of this package; the text is a message for the user."""


def one_line(error: Exception) -> str:
    """Returns the class of an error and the first line of its message."""
    first = (str(error).splitlines() or [""])[0]
    return type(error).__name__ + (f" ({first})" if first else "")


class ArgumentError(KappaflowError, ValueError):
    """An argument has a value or a shape that cannot be used."""


class DataError(KappaflowError, ValueError):
    """A table or tensor has no density that a flow could fit."""


class FileError(KappaflowError, OSError):
    """A model file or run folder is missing, damaged, of another format or another version."""


class WriteError(FileError):
    """A file cannot be written: the disk is full, access is denied, or the folder is missing."""


class NumericalError(KappaflowError, ArithmeticError):
    """A computation failed: a value is not finite, or an iteration did not converge."""


class BuildError(KappaflowError, RuntimeError):
    """Compiled code cannot be built; everything works without it."""


class RankError(KappaflowError, RuntimeError):
    """Another process of a training on several ranks has ended or does not answer."""


class DataWarning(UserWarning):
    """A property of the data that the user should know; a flow can still be fitted."""


class NumericalWarning(UserWarning):
    """A computation switched to another method, because rounding errors were too large."""
