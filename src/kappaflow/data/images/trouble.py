"""What goes wrong with a file, as one sentence that names it."""

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kappaflow.data.images.names import shown
from kappaflow.errors import FileError, KappaflowError


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns whatever a reader raises on a file into one sentence."""
    try:
        yield
    except KappaflowError:
        raise
    except FileNotFoundError:
        raise FileError(f"there is no file {shown(path)} (any more).") from None
    except PermissionError:
        raise FileError(f"{shown(path)} may not be read: its permissions forbid it.") from None
    except MemoryError:
        raise FileError(f"{shown(path)} does not fit in memory, or is damaged.") from None
    except Exception as error:
        raise FileError(_sentence(path, error)) from None


def _sentence(path: Path, error: Exception) -> str:
    kind = type(error).__name__
    if kind.startswith("DecompressionBomb"):
        return (
            f"{shown(path)} has more pixels than Pillow's limit against decompression bombs: "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        )
    if os.path.isfile(path) and path.stat().st_size == 0:
        return f"{shown(path)} is empty (0 bytes)."
    if kind == "UnidentifiedImageError":
        return f"{shown(path)} is no image that can be read, whatever its suffix says."
    reason = textwrap.shorten(str(error) or kind, 90).rstrip(".")
    return f"{shown(path)} is damaged ({reason}): replace it, or leave it out."
