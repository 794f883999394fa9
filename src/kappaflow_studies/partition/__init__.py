"""`partition`: which features change, what maps between couplings buy, and what twins cost."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.partition.findings import findings
from kappaflow_studies.partition.measure import PartitionSettings, cases, measure

PARTITION = Study(
    name="partition",
    title="Which features change: partitions and the maps between",
    about="halves, permutations, LU and orthogonal maps with equal numbers of parameters",
    claim=(
        "A flow with learned linear maps between its couplings (1x1 convolutions for images) is "
        "better than a flow of the same depth with a fixed partition. But the gain is at most a "
        "constant factor in depth, since each such map equals a constant number of couplings of "
        "the fixed partition."
    ),
    settings=PartitionSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)

__all__ = ["PARTITION"]
