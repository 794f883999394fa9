"""The runs of layers between which the features of a flow stay the same, scale by scale."""

from collections.abc import Callable, Sequence

from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import ImageChain, MultiScale
from kappaflow.rewrite.opened import opened

Change = Callable[[list[Bijection], int], list[Bijection]]


def changed_by_run(
    parts: Sequence[Bijection], shape: Sequence[int], change: Change
) -> list[Bijection]:
    """Returns layers of which each run is replaced by other layers of the same function.

    A run ends where a layer rearranges places and features (a squeeze, a flattening) and at a
    multi-scale map, of which the runs of each scale are changed in their turn. Tables are one run.

    Args:
        parts: Layers, none of them a chain.
        shape: Of one point in front of them.
        change: From a run of layers and the number of its features to other layers.

    Returns:
        The layers.
    """
    found: list[Bijection] = []
    run: list[Bijection] = []
    here = tuple(shape)
    for part in parts:
        there = part.latent_shape(here)
        if there == here and not isinstance(part, MultiScale):
            run.append(part)
            continue
        found += change(run, here[0]) if run else []
        found.append(_scale_by_scale(part, change) if isinstance(part, MultiScale) else part)
        run, here = [], there
    return found + (change(run, here[0]) if run else [])


def _scale_by_scale(part: MultiScale, change: Change) -> MultiScale:
    """Returns a multi-scale map whose scales are changed run by run, their memory modes kept."""
    scales = []
    for scale, shape in zip(part, part.shapes_in, strict=True):
        layers = changed_by_run(opened(scale), shape, change)
        memory = scale.memory if isinstance(scale, Chain) else None
        kind = type(scale) if isinstance(scale, ImageChain) else Chain
        scales.append(kind(layers, memory=memory))
    return MultiScale(part.event_shape, scales)
