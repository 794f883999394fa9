"""Partitions, which select the features or pixels that a coupling keeps and those it changes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kappaflow._checks import natural_int, one_of, positive_int
from kappaflow.errors import ArgumentError
from kappaflow.registry import register

PATTERNS = ("checkerboard", "rows", "columns")


@register("Partition")
@dataclass(frozen=True, repr=False)
class Partition:
    """A split of the features (dimension 1 of a tensor) into kept ones and changed ones.

    Args:
        features: Number n of features.
        kept: Indices of the kept features, in any order. A coupling leaves them unchanged and its
            conditioner reads them; it changes the other features.

    Raises:
        ArgumentError: An index is out of range or repeated, or nothing is left to change.

    Example:
        >>> Partition(5, (0, 1))
        Partition(5 features: keeps 0:2, changes 2:5)
        >>> Partition.alternating(4).swapped()
        Partition(4 features: keeps 1, 3, changes 0, 2)
    """

    features: int
    kept: tuple[int, ...]
    changed: tuple[int, ...] = field(init=False)
    # Whether the kept features are the first ones, or the last ones.
    keeps_first: bool = field(init=False, compare=False)
    keeps_last: bool = field(init=False, compare=False)
    # The place of each feature among the kept features followed by the changed ones.
    places: tuple[int, ...] = field(init=False, compare=False)

    def __deepcopy__(self, _: object) -> "Partition":
        return self  # nothing of it changes

    def __post_init__(self) -> None:
        positive_int("features", self.features)
        kept = tuple(sorted(natural_int("kept", i) for i in self.kept))
        if len(set(kept)) < len(kept) or any(i >= self.features for i in kept):
            raise ArgumentError(
                f"'kept' should hold different indices from 0 to {self.features - 1}, "
                f"got {self.kept}."
            )
        if len(kept) == self.features:
            raise ArgumentError(
                f"'partition' should leave at most {self.features - 1} of {self.features} "
                "features unchanged: a coupling must change something."
            )
        order = tuple(range(self.features))
        changed = tuple(sorted(set(order) - set(kept)))
        object.__setattr__(self, "kept", kept)
        object.__setattr__(self, "changed", changed)
        object.__setattr__(self, "keeps_first", kept + changed == order)
        object.__setattr__(self, "keeps_last", changed + kept == order)
        joined = kept + changed
        object.__setattr__(self, "places", tuple(sorted(order, key=joined.__getitem__)))

    @classmethod
    def half(cls, features: int) -> "Partition":
        """Returns the partition that keeps the first floor(n/2) features and changes the rest."""
        return cls(features, tuple(range(positive_int("features", features) // 2)))

    @classmethod
    def alternating(cls, features: int) -> "Partition":
        """Returns the partition that keeps the even features and changes the odd ones."""
        return cls(features, tuple(range(0, positive_int("features", features), 2)))

    @classmethod
    def random_half(cls, features: int, *, seed: int = 0) -> "Partition":
        """Returns a partition that keeps floor(n/2) features, which the seed selects."""
        order = shuffled(positive_int("features", features), seed)
        return cls(features, tuple(order[: features // 2]))

    def swapped(self) -> "Partition":
        """Returns the partition with kept and changed features exchanged."""
        return Partition(self.features, self.changed)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the kept and the changed features of x, (B, n, ...), as views if possible."""
        # The derivative of a single split joins the parts without adding zeros.
        if self.keeps_first:
            kept, changed = x.split_with_sizes((len(self.kept), len(self.changed)), 1)
            return kept, changed
        if self.keeps_last:
            changed, kept = x.split_with_sizes((len(self.changed), len(self.kept)), 1)
            return kept, changed
        return _take(x, self.kept), _take(x, self.changed)

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        """Returns the tensor whose `split` is (kept, changed)."""
        if self.keeps_last and not self.keeps_first:
            return torch.cat((changed, kept), dim=1)
        joined = torch.cat((kept, changed), dim=1)
        if self.keeps_first:
            return joined
        # The index is made at each call, which is a copy to a GPU; stacks keep their indices.
        return joined.index_select(1, index_on(joined.device, self.places))

    def answer(self, answer: Tensor) -> Tensor:
        """Returns the output of a conditioner, which needs no mask here."""
        return answer

    def __repr__(self) -> str:
        kept, changed = _listed(self.kept), _listed(self.changed)
        return f"Partition({self.features} features: keeps {kept}, changes {changed})"


@register("SpatialPartition")
@dataclass(frozen=True)
class SpatialPartition:
    """A split of the pixels of an image, (B, C, H, W), into kept ones and changed ones.

    The conditioner of a coupling reads the whole image, with zeros at the changed pixels, so that
    convolutions see each pixel at its position. Its output also has all pixels, but only those at
    changed pixels are used. All channels of a pixel belong to the same part. Images can have any
    height and width.

    Args:
        features: Number C of channels.
        pattern: "checkerboard" keeps the pixels (i, j) with even i + j, "rows" keeps the even
            rows, and "columns" the even columns.
        odd: Whether to keep the odd pixels, rows or columns instead.

    Raises:
        ArgumentError: `features` is below 1, or the pattern is unknown.

    Source:
        Dinh, Sohl-Dickstein, Bengio 2017 (RealNVP), section 3.4.

    Example:
        >>> SpatialPartition(1).split(torch.ones(1, 1, 2, 3))[0]
        tensor([[[[1., 0., 1.],
                  [0., 1., 0.]]]])
    """

    features: int
    pattern: str = "checkerboard"
    odd: bool = False

    def __post_init__(self) -> None:
        positive_int("features", self.features)
        one_of("pattern", self.pattern, PATTERNS)

    @property
    def kept(self) -> tuple[int, ...]:
        """The channels that the conditioner reads, which are all channels."""
        return tuple(range(self.features))

    @property
    def changed(self) -> tuple[int, ...]:
        """The channels that are changed at some pixels, which are all channels."""
        return self.kept

    def swapped(self) -> "SpatialPartition":
        """Returns the partition with kept and changed pixels exchanged."""
        return SpatialPartition(self.features, self.pattern, not self.odd)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x with zeros at the changed pixels, and x itself, each (B, C, H, W)."""
        return x.masked_fill(self._changes(x), 0), x

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        """Returns an image with the kept pixels of `kept` and the changed pixels of `changed`."""
        return torch.where(self._changes(kept), changed, kept)

    def answer(self, answer: Tensor) -> Tensor:
        """Returns the output of a conditioner with zeros at the kept pixels."""
        return answer.masked_fill(~self._changes(answer), 0)

    def _changes(self, x: Tensor) -> Tensor:
        """Returns a mask of the changed pixels of x, (B, C, H, W), as (H, W)."""
        rows = torch.arange(x.shape[2], device=x.device)[:, None]
        columns = torch.arange(x.shape[3], device=x.device)
        number = {"checkerboard": rows + columns, "rows": rows, "columns": columns}[self.pattern]
        odd = (number % 2 == 1).expand(x.shape[2:])
        return odd.logical_not() if self.odd else odd


AnyPartition = Partition | SpatialPartition


def shuffled(n: int, seed: int) -> list[int]:
    """Returns 0 to n - 1 in an order that depends only on the seed.

    Model files store seeds, so the order must never change. Python guarantees this for the numbers
    of `random.Random(seed).random()`.
    """
    generator = random.Random(seed)
    keys = [generator.random() for _ in range(n)]
    return sorted(range(n), key=keys.__getitem__)


def _is_range(indices: Sequence[int]) -> bool:
    return not indices or indices[-1] - indices[0] + 1 == len(indices)


def _take(x: Tensor, indices: tuple[int, ...]) -> Tensor:
    if _is_range(indices):
        return x.narrow(1, indices[0] if indices else 0, len(indices))
    # As in `merge`, the index is made at each call.
    return x.index_select(1, index_on(x.device, indices))


def index_on(device: torch.device, indices: Sequence[int]) -> Tensor:
    """Returns indices as a tensor on a device; the host does not wait for a copy to it."""
    return torch.tensor(indices, dtype=torch.long).to(device, non_blocking=True)


def _listed(indices: tuple[int, ...]) -> str:
    if not indices:
        return "none"
    if _is_range(indices) and len(indices) > 1:
        return f"{indices[0]}:{indices[-1] + 1}"
    shown = ", ".join(map(str, indices[:8]))
    return shown + (f", ... ({len(indices)})" if len(indices) > 8 else "")
