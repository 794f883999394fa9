"""`Certificate`: a summary of a rewrite, with the difference between the new and old flow."""

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
NUMBERS_AT_ONCE = 2**20  # numbers in a chunk of rows; networks for images need much more memory


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences between two flows over some rows.

    Attributes:
        z: Difference of the latents.
        log_det: Difference of the log_dets in nats.
        log_prob: Difference of the log-densities in nats.
    """

    z: float
    log_det: float
    log_prob: float


@dataclass(frozen=True)
class Replaced:
    """A linear map that was replaced by couplings.

    Attributes:
        name: Name of the map in the old flow.
        couplings: Number of couplings, before some merged with their neighbors.
        method: The method of `factor_linear` that found them.
        residual: Relative error of their product.
        condition_numbers: Condition number of each coupling.
        flipped: Whether one of them has a negative scale, which a negative determinant requires.
    """

    name: str
    couplings: int
    method: str
    residual: float
    condition_numbers: tuple[float, ...]
    flipped: bool


@dataclass(frozen=True)
class Certificate:
    """Summary of a rewrite.

    Attributes:
        couplings_before: Number of couplings of any kind in the old flow, without linear ones.
        mixing_before: Number of its permutations and linear layers.
        couplings_after: Number of couplings in the new flow, including linear ones and those kept
            unchanged.
        joined: Number of linear couplings that merged with a neighbor.
        replaced: Linear maps that were replaced by couplings, in the order of the flow.
        left: Class names of layers that were kept unchanged.
        points: Number of rows on which the two flows were compared.
        differences: Differences between the two flows, by the dtype of the computation.
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
        """Largest condition number of a linear coupling; 1 if there is none."""
        return max((c for linear in self.replaced for c in linear.condition_numbers), default=1.0)

    def __str__(self) -> str:
        couplings = sum(linear.couplings for linear in self.replaced)
        residual = max((linear.residual for linear in self.replaced), default=0.0)
        lines = [
            ("couplings before", f"{self.couplings_before}"),
            ("permutations and linear layers before", f"{self.mixing_before}"),
            ("couplings after", f"{self.couplings_after}"),
            (
                "linear maps that became couplings",
                f"{len(self.replaced)}, as {couplings} couplings, of which {self.joined} joined "
                "a neighbor",
            ),
            ("largest condition number of these", f"{self.condition_number:.3g}"),
            ("largest residual of a map", f"{residual:.1e}"),
            ("layers kept unchanged", ", ".join(self.left) or "none"),
            *(
                (
                    f"largest difference in {kind}",
                    f"z {gap.z:.1e}, log_det {gap.log_det:.1e} nats, "
                    f"log_prob {gap.log_prob:.1e} nats",
                )
                for kind, gap in self.differences.items()
            ),
            ("compared on", f"{self.points:,} rows"),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON, with None for numbers that are not finite."""
        return plain({**dataclasses.asdict(self), "condition_number": self.condition_number})


@torch.no_grad()
def difference(
    first: Flow, second: Flow, x: Tensor, context: Tensor | None, dtype: torch.dtype
) -> Difference:
    """Returns the differences between two flows, both computed in the same dtype."""
    flows = [copy.deepcopy(flow).to(dtype).eval() for flow in (first, second)]
    largest = []
    at_once = max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // math.prod(x.shape[1:])))
    for rows in torch.arange(len(x), device=x.device).split(at_once):
        inputs = x[rows].to(dtype), None if context is None else context[rows].to(dtype)
        answers = [(*flow.bijection(*inputs), flow.augmented_log_prob(*inputs)) for flow in flows]
        pairs = zip(*answers, strict=True)
        largest.append(torch.stack([(a.double() - b.double()).abs().max() for a, b in pairs]))
    return Difference(*torch.stack(largest).amax(0).tolist())
