"""What a rewriting did, and how equal the function is that came out."""

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kappaflow.flows import Flow
from kappaflow.storage import plain

ROWS_AT_ONCE = 4096
NUMBERS_AT_ONCE = 2**20  # of points; networks of images make many times as many of each


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences between two flows, over points.

    Attributes:
        z: Of the latents.
        log_det: In nats.
        log_prob: In nats.
    """

    z: float
    log_det: float
    log_prob: float


@dataclass(frozen=True)
class Replaced:
    """A linear map that became couplings.

    Attributes:
        name: What it was in the old flow.
        couplings: How many it became, before some joined their neighbours.
        method: How they were found.
        residual: Relative error of their product.
        condition_numbers: Of the couplings.
        flipped: Whether one of them has a negative scale, as a negative determinant needs.
    """

    name: str
    couplings: int
    method: str
    residual: float
    condition_numbers: tuple[float, ...]
    flipped: bool


@dataclass(frozen=True)
class Certificate:
    """What became of a flow.

    Attributes:
        couplings_before: Couplings of the old flow.
        mixing_before: Its permutations and linear layers.
        couplings_after: Couplings of the new flow, linear ones included.
        joined: How many linear couplings joined a neighbour.
        replaced: Linear maps that became couplings, in the order of the flow.
        left: Layers that were left as they are, by the names of their classes.
        points: How many points the two were compared on.
        differences: Between the two flows, by the type they were computed in.
    """

    couplings_before: int
    mixing_before: int
    couplings_after: int
    joined: int
    replaced: tuple[Replaced, ...]
    left: tuple[str, ...]
    points: int
    differences: dict[str, Difference]

    @property
    def condition_number(self) -> float:
        """The largest of a linear coupling; 1 where there is none."""
        return max((max(one.condition_numbers, default=1.0) for one in self.replaced), default=1.0)

    def __str__(self) -> str:
        couplings = sum(one.couplings for one in self.replaced)
        residual = max((one.residual for one in self.replaced), default=0.0)
        lines = [
            ("couplings before", f"{self.couplings_before}"),
            ("permutations and linear layers before", f"{self.mixing_before}"),
            ("couplings after", f"{self.couplings_after}"),
            (
                "linear maps that became couplings",
                f"{len(self.replaced)}, as {couplings} couplings, of which {self.joined} joined "
                "a neighbour",
            ),
            ("largest condition number of these", f"{self.condition_number:.3g}"),
            ("largest residual of a map", f"{residual:.1e}"),
            ("left as they were", ", ".join(self.left) or "none"),
            *(
                (
                    f"largest difference in {kind}",
                    f"z {one.z:.1e}, log_det {one.log_det:.1e} nats, "
                    f"log_prob {one.log_prob:.1e} nats",
                )
                for kind, one in self.differences.items()
            ),
            ("compared on", f"{self.points:,} points"),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON, None for numbers that are not finite."""
        return plain({**dataclasses.asdict(self), "condition_number": self.condition_number})


@torch.no_grad()
def difference(
    one: Flow, other: Flow, x: Tensor, context: Tensor | None, dtype: torch.dtype
) -> Difference:
    """Returns how different two flows are when both are computed in a type."""
    flows = [copy.deepcopy(flow).to(dtype).eval() for flow in (one, other)]
    found = []
    at_once = max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // math.prod(x.shape[1:])))
    for rows in torch.arange(len(x), device=x.device).split(at_once):
        given = x[rows].to(dtype), None if context is None else context[rows].to(dtype)
        answers = [(*flow.bijection(*given), flow.augmented_log_prob(*given)) for flow in flows]
        pairs = zip(*answers, strict=True)
        found.append(torch.stack([(a.double() - b.double()).abs().max() for a, b in pairs]))
    return Difference(*torch.stack(found).amax(0).tolist())
