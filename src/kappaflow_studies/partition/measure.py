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
from kappaflow_studies.data import DataParts, parts_of
from kappaflow_studies.engine.presets import Count, ImagesName, TableName, TrainingSettings
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.training import FAILED, evaluation, points, train_flow, twin_of

HALVES, LAST_CHANGES = "halves", "one changes, affine maps"
TABLE_KINDS: dict[str, dict[str, Any]] = {
    HALVES: {},
    "alternating": {"partition": "alternating"},
    "permutations": {"partition": "random"},
    "LU maps": {"mixing": "lu"},
    "orthogonal maps": {"mixing": "orthogonal"},
    LAST_CHANGES: {"mixing": "plain"},
}
IMAGE_KINDS: dict[str, Mixing | None] = {
    HALVES: None,
    "permutations": None,
    "LU maps": "lu",
    "orthogonal maps": "orthogonal",
}
LEVELS = 2
SIZE_TOLERANCE = 0.005  # allowed relative difference between numbers of parameters


def parameters(flow: Flow) -> int:
    """Returns the number of trained parameters of a flow."""
    return sum(p.numel() for p in flow.parameters() if p.requires_grad)


def table_flow(kind: str, features: int, depth: int, hidden: Sequence[int], seed: int) -> Flow:
    """Returns a RealNVP of a kind."""
    partition = {"partition": changes_one(features)} if kind == LAST_CHANGES else {}
    return from_options(
        real_nvp,
        features,
        depth=depth,
        hidden=hidden,
        seed=seed,
        **{**TABLE_KINDS[kind], **partition},
    )


def changes_one(features: int) -> Partition:
    """Returns the partition that changes the last feature."""
    return Partition(features, tuple(range(features - 1)))


def image_flow(kind: str, shape: Sequence[int], values: int, steps: int, hidden: int) -> Flow:
    """Returns a Glow of two levels, with 1x1 convolutions or permutations of a kind."""
    mixing = IMAGE_KINDS[kind]
    options = {"levels": LEVELS, "steps": steps, "hidden": hidden, "mixing": mixing or "lu"}
    flow = from_options(glow, shape, dequantize="uniform", values=values, **options)
    if mixing is not None:
        return flow
    units, scales = flow.bijection  # pyright: ignore[reportGeneralTypeIssues]
    return Flow(flow.base, Chain([units, _permuted(scales, kind)]), flow.augment)


def _permuted(scales: MultiScale, kind: str) -> MultiScale:
    seed, permuted = 0, []
    for scale in scales:
        layers: list[Bijection] = list(scale)  # pyright: ignore[reportArgumentType]
        for position, part in enumerate(layers):
            if isinstance(part, InvertibleConv1x1):
                half = part.channels // 2
                exchanged = Permutation([*range(half, part.channels), *range(half)])
                shuffled = Permutation.random(part.channels, seed=seed)
                layers[position], seed = exchanged if kind == HALVES else shuffled, seed + 1
        permuted.append(ImageChain(layers))
    return MultiScale(scales.event_shape, permuted)


def widths(count: Callable[[int, int], int], target: int, hidden: int) -> tuple[int, int]:
    """Returns two nearly equal widths of hidden layers that give about `target` parameters."""
    candidates = []
    for distance in range(hidden):
        for first in {hidden - distance, hidden + distance}:
            if first < 2:
                continue
            fixed = count(first, 1)
            per_unit = count(first, 2) - fixed  # of the second layer
            second = max(2, 1 + round((target - fixed) / per_unit))
            error = abs(fixed + (second - 1) * per_unit - target) / target
            is_far = error > SIZE_TOLERANCE
            candidates.append((is_far, error if is_far else abs(first - second), first, second))
        if distance > hidden // 4 and not min(candidates)[0]:
            break
    return min(candidates)[2:]


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
    planned: list[Case] = []
    of_tables = settings.tables, TABLE_KINDS, settings.depths, settings.deeper
    of_images = settings.images, IMAGE_KINDS, settings.steps, settings.deeper_steps
    for common, (names, kinds, depths, deeper) in (
        (settings.of_tables(), of_tables),
        (settings.of_images(), of_images),
    ):
        for depth in sorted({*depths, *deeper}, reverse=True):
            for name in names:
                for kind in kinds if depth in depths else (HALVES,):
                    planned += [
                        {**common, "data": name, "kind": kind, "depth": depth, "seed": seed + i}
                        for i in range(settings.seeds)
                    ]
    return planned


TWIN = "twin_"


def measure(case: Case) -> list[Row]:
    """Returns one row: the flow, and its twin in columns with the prefix "twin_"."""
    parts = parts_of(case)
    with torch.random.fork_rng():
        torch.manual_seed(case["seed"])
        flow, details = _flow(case, parts)
        try:
            train_flow(flow, parts, case)
        except NumericalError as error:
            return [{**details, FAILED: str(error)}]
    x = points(flow, parts, case["points"])
    row = {**details, **evaluation(flow, parts, x)}
    if case["kind"] == HALVES:  # a flow of halves is its own twin
        return [row]
    last_changes = case["kind"] == LAST_CHANGES
    partition = changes_one(flow.event_shape[0]) if last_changes else "half"
    couplings = None if last_changes else 6
    twin, certificate = twin_of(flow, x, partition=partition, couplings=couplings)
    row |= {f"{TWIN}{name}": value for name, value in certificate.items()}
    return [row if twin is None else row | evaluation(twin.eval(), parts, x, TWIN)]


def _flow(case: Case, parts: DataParts) -> tuple[Flow, Row]:
    kind, depth, hidden = case["kind"], case["depth"], case["hidden"]
    data = parts.train
    if isinstance(data, Images):
        couplings, chosen = 2 * depth + 1, [hidden]  # one more between the levels
        equal = parameters(image_flow(HALVES, data.shape, data.values, depth, hidden))
        flow = image_flow(kind, data.shape, data.values, depth, hidden)
    else:

        def flow_with(*widths: int, kind: str = kind) -> Flow:
            return table_flow(kind, len(data.columns), depth, widths, case["seed"])

        couplings, equal = depth, parameters(flow_with(hidden, hidden, kind=HALVES))
        chosen = list(widths(lambda a, b: parameters(flow_with(a, b)), equal, hidden))
        flow = flow_with(*chosen)
    return flow, {
        "couplings": couplings,
        "parameters": parameters(flow),
        "of_halves": equal,
        "widths": chosen,
    }
