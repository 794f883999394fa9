"""Flows of images on several scales."""

from collections.abc import Sequence

from kappaflow.bijection import Chain
from kappaflow.bijections import MultiScale
from kappaflow.converting.assemble import assembled
from kappaflow.converting.plan import Other, Part


def levels_of(levels: Sequence[Sequence[Part]], leaving: Sequence[int]) -> list[Part]:
    """Returns a multi-scale map.

    Args:
        levels: The parts of each scale, the finest first; the first half of the channels that
            leave one goes on to the next.
        leaving: Shape of what leaves the first scale.

    Returns:
        The map, as the only part.
    """

    def make() -> MultiScale:
        scales = [Chain(assembled(parts)) for parts in levels]
        return MultiScale(scales[0].data_shape(leaving), scales)

    return [Other(make)]
