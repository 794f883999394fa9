"""The cases of `partition`, and their measurement: flows of equal size, different partitions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import ImageChain, InvertibleConv1x1, MultiScale, Permutation
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow, real_nvp
from kappaflow.flows.recipe import from_options
from kappaflow.images import Images, glow
from kappaflow.options import Mixing
from kappaflow.partition import Partition
from kappaflow_studies.data import Parts, parts_of
from kappaflow_studies.engine.presets import Count, ImagesName, TableName, TrainingSettings
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.training import FAILED, evaluation, points, trained, twin_of

HALVES, ONE = "halves", "one changes, affine maps"
OF_TABLES: dict[str, dict[str, Any]] = {
    HALVES: {},
    "alternating": {"partition": "alternating"},
    "permutations": {"partition": "random"},
    "LU maps": {"mixing": "lu"},
    "orthogonal maps": {"mixing": "orthogonal"},
    ONE: {"mixing": "plain"},
}
OF_IMAGES: dict[str, Mixing | None] = {
    HALVES: None,
    "permutations": None,
    "LU maps": "lu",
    "orthogonal maps": "orthogonal",
}
LEVELS = 2
NEAR = 0.005  # allowed relative difference between numbers of parameters


def parameters(flow: Flow) -> int:
    """Returns the number of trained parameters of a flow."""
    return sum(p.numel() for p in flow.parameters() if p.requires_grad)


def table_flow(kind: str, features: int, depth: int, hidden: Sequence[int], seed: int) -> Flow:
    """Returns a RealNVP of a kind."""
    partition = {"partition": changes_one(features)} if kind == ONE else {}
    return from_options(
        real_nvp,
        features,
        depth=depth,
        hidden=hidden,
        seed=seed,
        **{**OF_TABLES[kind], **partition},
    )


def changes_one(features: int) -> Partition:
    """Returns the partition that changes the last feature."""
    return Partition(features, tuple(range(features - 1)))


def image_flow(kind: str, shape: Sequence[int], values: int, steps: int, hidden: int) -> Flow:
    """Returns a Glow of two levels, with 1x1 convolutions or permutations of a kind."""
    how = {"levels": LEVELS, "steps": steps, "hidden": hidden, "mixing": OF_IMAGES[kind] or "lu"}
    whole = from_options(glow, shape, dequantize="uniform", values=values, **how)
    if OF_IMAGES[kind] is not None:
        return whole
    units, scales = whole.bijection  # pyright: ignore[reportGeneralTypeIssues]
    return Flow(whole.base, Chain([units, _permuted(scales, kind)]), whole.augment)


def _permuted(scales: MultiScale, kind: str) -> MultiScale:
    seed, made = 0, []
    for scale in scales:
        layers: list[Bijection] = list(scale)  # pyright: ignore[reportArgumentType]
        for place, part in enumerate(layers):
            if isinstance(part, InvertibleConv1x1):
                half = part.channels // 2
                exchanged = Permutation([*range(half, part.channels), *range(half)])
                drawn = Permutation.random(part.channels, seed=seed)
                layers[place], seed = exchanged if kind == HALVES else drawn, seed + 1
        made.append(ImageChain(layers))
    return MultiScale(scales.event_shape, made)


def widths(count: Callable[[int, int], int], target: int, hidden: int) -> tuple[int, int]:
    """Returns the widths of two hidden layers for a number of parameters, nearly equal."""
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


class PartitionSettings(TrainingSettings):
    """Settings of the flows and the data.

    `hidden` is the width of the fixed halves on tables; the widths of the other kinds follow from
    the number of parameters. The fixed halves are also trained at the depths of the twins.
    """

    tables: tuple[TableName, ...]
    images: tuple[ImagesName, ...]
    depths: tuple[Count, ...]  # couplings of the flows of tables
    deeper: tuple[Count, ...]  # more depths, for the fixed halves alone
    steps: tuple[Count, ...]  # in each of two levels of the flows of images
    deeper_steps: tuple[Count, ...]


def cases(settings: PartitionSettings, seed: int) -> list[Case]:
    """Returns a case for each set, kind, depth and seed; the deep ones come first."""
    found: list[Case] = []
    for common, names, kinds, depths, deeper in (
        (settings.of_tables(), settings.tables, OF_TABLES, settings.depths, settings.deeper),
        (settings.of_images(), settings.images, OF_IMAGES, settings.steps, settings.deeper_steps),
    ):
        for depth in sorted({*depths, *deeper}, reverse=True):
            for name in names:
                for kind in kinds if depth in depths else (HALVES,):
                    found += [
                        {**common, "data": name, "kind": kind, "depth": depth, "seed": seed + i}
                        for i in range(settings.seeds)
                    ]
    return found


TWIN = "twin_"


def measure(case: Case) -> list[Row]:
    """Returns one row: the flow, and its twin in columns with the prefix "twin_"."""
    parts = parts_of(case)
    with torch.random.fork_rng():
        torch.manual_seed(case["seed"])
        flow, about = _flow(case, parts)
        try:
            trained(flow, parts, case)
        except NumericalError as error:
            return [{**about, FAILED: str(error)}]
    x = points(flow, parts, case["points"])
    row = {**about, **evaluation(flow, parts, x)}
    if case["kind"] == HALVES:  # a flow of halves is its own twin
        return [row]
    alone = case["kind"] == ONE
    partition = changes_one(flow.event_shape[0]) if alone else "half"
    twin, certificate = twin_of(flow, x, partition=partition, couplings=None if alone else 6)
    row |= {f"{TWIN}{name}": value for name, value in certificate.items()}
    return [row if twin is None else row | evaluation(twin.eval(), parts, x, TWIN)]


def _flow(case: Case, parts: Parts) -> tuple[Flow, Row]:
    kind, depth, hidden = case["kind"], case["depth"], case["hidden"]
    data = parts.train
    if isinstance(data, Images):
        couplings, chosen = 2 * depth + 1, [hidden]  # one more between the levels
        equal = parameters(image_flow(HALVES, data.shape, data.values, depth, hidden))
        flow = image_flow(kind, data.shape, data.values, depth, hidden)
    else:

        def made(*chosen: int, like: str = kind) -> Flow:
            return table_flow(like, len(data.columns), depth, chosen, case["seed"])

        couplings, equal = depth, parameters(made(hidden, hidden, like=HALVES))
        chosen = list(widths(lambda a, b: parameters(made(a, b)), equal, hidden))
        flow = made(*chosen)
    return flow, {
        "couplings": couplings,
        "parameters": parameters(flow),
        "of_halves": equal,
        "widths": chosen,
    }
