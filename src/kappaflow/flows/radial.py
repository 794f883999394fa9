"""The recipe of radial flows."""

from kappaflow._checks import natural_int, positive_int
from kappaflow.bijection import Chain
from kappaflow.bijections import Radial
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.leading import Bounds, leading
from kappaflow.registry import register


@register("radial")
def radial(features: int, *, depth: int = 8, bounds: Bounds = None, seed: int = 0) -> Flow:
    """Returns a radial flow: maps that each move points towards a centre, or away from it.

    A new flow is the identity. Each map begins with a centre of its own among the standardised
    data, and with nothing to do there: so it has a gradient, and no two maps have the same.

    Args:
        features: Number of features.
        depth: Number of radial maps.
        bounds: The domain of each feature, in which all samples then lie, as `Domain` takes them,
            such as ["positive", (0, 1), "circular", None]; None for none. Circles are cut
            where the training rows are rarest.
        seed: Draws the centres.

    Returns:
        A flow with `log_prob` and `sample`.

    Raises:
        ArgumentError: An argument is out of its range.

    Source:
        Rezende, Mohamed 2015.

    Example:
        >>> radial(4, depth=2).sample(3).shape
        torch.Size([3, 4])
    """
    units = leading(features, bounds)
    positive_int("depth", depth, "depth counts radial maps.")
    natural_int("seed", seed)
    layers = [Radial(features, seed=seed + layer) for layer in range(depth)]
    return Flow(StandardNormal(features), Chain([*units, *layers]))
