"""Which scale of a flow of images carries its condition number."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kappaflow.report.content import ProfileView
from kappaflow.report.numbers import is_finite

SCALE = re.compile(r", scale (\d+)$")
OUTSIDE = "outside the scales"


@dataclass(frozen=True)
class Scale:
    """The layers of one scale, as far as their condition numbers are finite.

    Attributes:
        name: Its number, the finest first, or that they are outside of all.
        layers: How many there are.
        product: Of their condition numbers, each the median over the points.
        share: Of the logarithm of the product over all layers; None where that is zero or is not
            known.
        worst: The name of the layer whose condition number is largest.
        worst_value: That number.
    """

    name: str
    layers: int
    product: float
    share: float | None
    worst: str
    worst_value: float

    @property
    def share_in_words(self) -> str:
        """The share in per cent."""
        return "–" if self.share is None else f"{100 * self.share:.0f} %"


def scales_of(profile: ProfileView) -> list[Scale]:
    """Returns the scales of a profile, and last the layers without one; none without scales.

    Args:
        profile: Its layers have the number of their scale in their names.

    Returns:
        The scales in their order.
    """
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(profile.layers):
        found = SCALE.search(name)
        groups.setdefault(f"scale {found[1]}" if found else OUTSIDE, []).append(place)
    if set(groups) == {OUTSIDE}:
        return []
    values = profile.layer_condition_number.median
    total = _digits(values)
    order = sorted(groups, key=lambda name: (name == OUTSIDE, groups[name][0]))
    return [_scale(name, groups[name], profile, total) for name in order]


def _scale(name: str, places: Sequence[int], profile: ProfileView, total: float) -> Scale:
    values = profile.layer_condition_number.median
    own = _digits([values[place] for place in places])
    known = math.isfinite(own) and math.isfinite(total) and total > 0
    worst = max(places, key=lambda i: values[i] if is_finite(values[i]) else math.inf)
    return Scale(
        name=name,
        layers=len(places),
        product=math.inf if own >= 300 else 10**own,
        share=own / total if known else None,
        worst=profile.layers[worst],
        worst_value=values[worst],
    )


def _digits(values: Sequence[float]) -> float:
    """Returns the sum of the logarithms to base 10; nan where one is not finite."""
    if not all(is_finite(value) and value > 0 for value in values):
        return math.nan
    return sum(math.log10(value) for value in values)
