"""Curves of a training as one line of text, for terminals."""

import math
from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int, *, log: bool = False) -> str:
    """Returns values as blocks of eight heights, the last of several where there are too many.

    Args:
        values: In order; None, or what is not finite (or not above 0 on a logarithmic scale), is a
            gap.
        width: Most characters; each stands for equally many values, up to one.
        log: On a logarithmic scale.

    Returns:
        The line, without blocks where there is nothing to draw.

    Example:
        >>> sparkline([1.0, 2.0, None, 8.0], 10)
        '▁▂ █'
        >>> sparkline([1.0, 10.0, 100.0], 10, log=True)
        '▁▅█'
    """
    step = max(1, math.ceil(len(values) / width))
    heights = [_height(value, log=log) for value in values[::-1][::step][::-1]]
    found = [height for height in heights if height is not None]
    if not found:
        return ""
    low, span = min(found), max(found) - min(found)
    top = len(LEVELS) - 1
    return "".join(
        " " if height is None else LEVELS[round(top * (height - low) / span) if span else 0]
        for height in heights
    )


def _height(value: float | None, *, log: bool) -> float | None:
    if value is None or not math.isfinite(value) or (log and value <= 0):
        return None
    return math.log(value) if log else value
