"""The lines to change in code that makes a flow: FILE.py:NAME or MODULE:NAME."""

import os
import sys
from pathlib import Path

from kappaflow.cures import lines_to_change
from kappaflow.diagnosis import Diagnosis
from kappaflow.errors import FileError


def lines_for(target: str, flow: object, found: Diagnosis) -> str:
    """Returns what to change in the code of an examined flow, as a diff that `patch -p0` takes.

    Args:
        target: As `examine_code` was given it.
        flow: What the code made.
        found: What the doctor says of it.

    Returns:
        The diff, empty where no line is known.

    Raises:
        FileError: The file cannot be read.
    """
    home, _, name = target.rpartition(":")
    file = home if home.endswith(".py") else getattr(sys.modules.get(home), "__file__", None)
    if file is None or not file.endswith(".py"):
        return ""
    try:
        source = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file} cannot be read ({error}).") from None
    return lines_to_change(source, os.path.relpath(file), name, flow, found)
