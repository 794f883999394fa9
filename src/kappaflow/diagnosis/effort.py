"""How much the doctor examines: three numbers, from which the checks derive their limits."""

import math
import sys
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The most that the doctor examines of a flow.

    Attributes:
        points: Rows at which a flow of few dimensions is measured.
        samples: Samples of a flow of few dimensions that are compared with its base.
        budget: Points times dimensions times layers of a large flow; if it is infinite, no check
            has a limit of its own.
    """

    points: int = 64
    samples: int = 4096
    budget: float = 1e6

    @property
    def thorough(self) -> bool:
        """Whether all rows, columns, dimensions and depths are examined."""
        return math.isinf(self.budget)

    def limit(self, most: int) -> int:
        """Returns the limit of a check, which a thorough examination does not have."""
        return sys.maxsize if self.thorough else most


DEFAULT_EFFORT = Effort()
THOROUGH = Effort(points=256, samples=16_384, budget=math.inf)
