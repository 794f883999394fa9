"""The presets: how much of the grid is measured."""

from dataclasses import dataclass
from typing import Literal

Pair = tuple[int, int]  # depth and batch


@dataclass(frozen=True)
class Preset:
    """The amount of measurement.

    Attributes:
        speed: Pairs at which all rows are timed.
        seconds: Time for each quantity of each group of rows.
        memory: Pairs for the memory of all rows.
        own_memory: Additional pairs for our rows only.
        repeats: Number of processes for each memory figure; the median counts.
        depths: Depths at which numerics are measured.
        own_depths: Additional depths for our rows only.
        dimensions: Dimensions in which spectra are compared with dense ones.
    """

    speed: tuple[Pair, ...]
    seconds: float
    memory: tuple[Pair, ...]
    own_memory: tuple[Pair, ...]
    repeats: int
    depths: tuple[int, ...]
    own_depths: tuple[int, ...]
    dimensions: tuple[int, ...]


PresetName = Literal["minutes", "full"]
_GRID = tuple((depth, batch) for batch in (512, 4096) for depth in (8, 32, 128, 512))
PRESETS: dict[PresetName, Preset] = {
    "minutes": Preset(
        speed=((128, 512),),
        seconds=2.5,
        memory=((128, 512),),
        own_memory=((512, 512),),
        repeats=1,
        depths=(8, 32, 128),
        own_depths=(),
        dimensions=(64, 784),
    ),
    "full": Preset(
        speed=_GRID,
        seconds=6.0,
        memory=_GRID,
        own_memory=(),
        repeats=3,
        depths=(8, 32, 128, 512),
        own_depths=(1024,),
        dimensions=(64, 784, 3072),
    ),
}
