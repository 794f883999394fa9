"""What a flow of tables begins with: columns with a domain to the line, then units."""

from collections.abc import Sequence

from kappaflow.bijection import Bijection
from kappaflow.bijections import Domain, Standardize
from kappaflow.domains import Bound, intervals

Bounds = Sequence[Bound] | None


def leading(
    features: int, bounds: Bounds = None, *, padding: int = 0, circle: float | None = None
) -> list[Bijection]:
    """Returns the changes of units in front of a flow.

    Args:
        features: Number of features, without padding.
        bounds: The domain of each, as `kappaflow.Domain` takes them; None for none at all.
        padding: How many features of padding stand behind them.
        circle: Half the length of circles that stay circles; None to cut them.

    Returns:
        A `Domain` where there are bounds, and a `Standardize`.
    """
    joint = features + padding
    if bounds is None or not any(intervals(bounds, features)):
        return [Standardize(joint, padding=padding)]
    left = [] if circle is None else angles_of(features, bounds)
    domain = Domain([*bounds, *[None] * padding], circle=circle if left else None)
    return [domain, Standardize(joint, padding=padding, left=left)]


def angles_of(features: int, bounds: Bounds) -> list[int]:
    """Returns which features are on a circle."""
    found = () if bounds is None else intervals(bounds, features)
    return [place for place, domain in enumerate(found) if domain and domain.circular]
