"""The flows that are compared: of equal depth, and of equally many numbers to train."""

from collections.abc import Callable, Sequence
from typing import Any

from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import ImageChain, InvertibleConv1x1, MultiScale, Permutation
from kappaflow.flows import Flow, glow, real_nvp
from kappaflow.partition import Partition

HALVES, ONE = "halves", "one changes, affine maps"
OF_TABLES: dict[str, dict[str, Any]] = {
    HALVES: {},
    "alternating": {"partition": "alternating"},
    "permutations": {"partition": "random"},
    "LU maps": {"mixing": "lu"},
    "orthogonal maps": {"mixing": "orthogonal"},
    ONE: {"mixing": "plain"},
}
OF_IMAGES: dict[str, str | None] = {
    HALVES: None,
    "permutations": None,
    "LU maps": "lu",
    "orthogonal maps": "orthogonal",
}
LEVELS = 2
NEAR = 0.005  # of the number of parameters, relative


def parameters(flow: Flow) -> int:
    """Returns how many numbers of a flow are trained."""
    return sum(p.numel() for p in flow.parameters() if p.requires_grad)


def table_flow(kind: str, features: int, depth: int, hidden: Sequence[int], seed: int) -> Flow:
    """Returns a RealNVP of a kind."""
    partition = {"partition": changes_one(features)} if kind == ONE else {}
    return real_nvp(
        features, depth=depth, hidden=hidden, seed=seed, **{**OF_TABLES[kind], **partition}
    )


def changes_one(features: int) -> Partition:
    """Returns the partition that changes the last feature."""
    return Partition(features, tuple(range(features - 1)))


def image_flow(kind: str, shape: Sequence[int], values: int, steps: int, hidden: int) -> Flow:
    """Returns a Glow of two levels, its 1x1 convolutions of a kind or permutations in their place.

    A permutation that exchanges the halves is a fixed partition whose halves take turns.
    """
    whole = glow(
        shape,
        levels=LEVELS,
        steps=steps,
        hidden=hidden,
        mixing=OF_IMAGES[kind] or "lu",
        dequantize="uniform",
        values=values,
    )
    if OF_IMAGES[kind] is not None:
        return whole
    units, scales = whole.bijection  # pyright: ignore[reportGeneralTypeIssues]
    return Flow(whole.base, Chain([units, _permuted(scales, kind)]), whole.augment)


def _permuted(scales: MultiScale, kind: str) -> MultiScale:
    seed, made = 0, []
    for scale in scales:
        layers: list[Bijection] = []
        for part in scale:  # pyright: ignore[reportGeneralTypeIssues]
            if isinstance(part, InvertibleConv1x1):
                part = _permutation(kind, part.channels, seed)
                seed += 1
            layers.append(part)
        made.append(ImageChain(layers))
    return MultiScale(scales.event_shape, made)


def _permutation(kind: str, channels: int, seed: int) -> Permutation:
    if kind == HALVES:
        half = channels // 2
        return Permutation([*range(half, channels), *range(half)])
    return Permutation.random(channels, seed=seed)


def widths(count: Callable[[int, int], int], target: int, hidden: int) -> tuple[int, int]:
    """Returns widths of two hidden layers for a number of parameters, as equal as they can be.

    Args:
        count: Of the parameters of a flow with these widths; linear in the second one.
        target: The number that is wanted.
        hidden: Where the search begins.

    Returns:
        The first widths around `hidden` for which the number is off by at most half a percent,
        or the nearest ones.
    """
    found = []
    for away in range(hidden):
        for first in {hidden - away, hidden + away}:
            if first < 2:
                continue
            one, two = count(first, 1), count(first, 2)
            second = max(2, 1 + round((target - one) / (two - one)))
            off = abs(one + (second - 1) * (two - one) - target) / target
            found.append((off > NEAR, abs(first - second) if off <= NEAR else off, first, second))
        if away > hidden // 4 and not min(found)[0]:
            break
    return min(found)[2:]
