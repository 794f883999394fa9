"""Compares partitions, linear maps between couplings, and twins of flows with such maps.

A twin computes the same function as a trained flow without its linear maps, on one partition.
"""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.partition.findings import findings
from kappaflow_studies.partition.measure import PartitionSettings, cases, measure

PARTITION = Study(
    name="partition",
    title="Partitions, and the maps between couplings",
    about="halves, permutations, LU and orthogonal maps, at equal parameters, and their twins",
    claim=(
        "A learned linear map between couplings, a 1x1 convolution of images, makes a flow better "
        "than a fixed partition of the same depth, but saves only a constant factor in depth."
    ),
    settings=PartitionSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
