"""How well conditioned the factors of random maps are: what one's own map is compared with."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("reference.json")  # written by docs/factor_reference.py


@dataclass(frozen=True)
class Reference:
    """Largest condition numbers of factors that were measured for other maps.

    Attributes:
        name: Of these maps.
        features: Of each of them.
        of_the_map: Their own condition number, the median.
        couplings: In ascending order.
        low: A lower quantile at each count.
        median: The middle one.
        high: An upper quantile.
    """

    name: str
    features: int
    of_the_map: float
    couplings: Sequence[int]
    low: Sequence[float]
    median: Sequence[float]
    high: Sequence[float]


def nearest_reference(condition_number: float, features: int) -> Reference:
    """Returns what was measured for the maps that are most like one: see `factor-tradeoff`.

    Args:
        condition_number: Of the map.
        features: Its size.

    Returns:
        What has the nearest condition number, in halves of a digit, and of that the nearest size.

    Example:
        >>> nearest_reference(1.0, 8).name
        'Orthogonal maps, 8 features'
    """

    def distance(one: Reference) -> tuple[float, float]:
        digits = abs(math.log10(one.of_the_map) - math.log10(condition_number))
        return round(2 * digits), abs(math.log(one.features / features))

    return min(_references(), key=distance)


@cache
def _references() -> list[Reference]:
    return [Reference(**one) for one in json.loads(FILE.read_text("utf-8"))]
