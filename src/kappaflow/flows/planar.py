"""The recipe of planar flows."""

from kappaflow._checks import natural_int, positive_int
from kappaflow.bijection import Chain
from kappaflow.bijections import Planar
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.leading import Bounds, leading
from kappaflow.registry import register


@register("planar")
def planar(features: int, *, depth: int = 8, bounds: Bounds = None, seed: int = 0) -> Flow:
    """Returns a planar flow: maps that each move points along one direction.

    A new flow is the identity. Each map begins with a direction w of its own to look along, and
    with nothing to add there: so it has a gradient, and no two maps have the same.

    Args:
        features: Number of features.
        depth: Number of planar maps.
        bounds: The domain of each feature, in which all samples then lie, as `Domain` takes them,
            such as ["positive", (0, 1), "circular", None]; None for none. Circles are cut
            where the training rows are rarest.
        seed: Draws the directions.

    Returns:
        A flow with `log_prob`, and with `sample`, whose inverse is a search: see `Planar`.

    Raises:
        ArgumentError: An argument is out of its range.

    Source:
        Rezende, Mohamed 2015.

    Example:
        >>> planar(4, depth=2).sample(3).shape
        torch.Size([3, 4])
    """
    units = leading(features, bounds)
    positive_int("depth", depth, "depth counts planar maps.")
    natural_int("seed", seed)
    layers = [Planar(features, seed=seed + layer) for layer in range(depth)]
    return Flow(StandardNormal(features), Chain([*units, *layers]))
