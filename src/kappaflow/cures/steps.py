"""The cures by name: which findings ask for each, and what it does to a flow."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from kappaflow.conditioning import layers_of
from kappaflow.cures.bounded import BOUND, bounded
from kappaflow.cures.padded import padded
from kappaflow.diagnosis import Diagnosis, Finding
from kappaflow.flows import Flow
from kappaflow.rewrite import fuse


@dataclass(frozen=True)
class Cured:
    """A flow after a cure.

    Attributes:
        flow: Another flow than before.
        said: What was done, in a sentence.
    """

    flow: Flow
    said: str


@dataclass(frozen=True)
class Cure:
    """What can be done to a flow.

    Attributes:
        name: In a word.
        codes: The findings above a note that ask for it.
        trains: Whether the flow is another function after it, or one with more room: it is to be
            trained on.
        apply: Returns what came of it, None where there is nothing to do.
    """

    name: str
    codes: tuple[str, ...]
    trains: bool
    apply: Callable[[Flow], Cured | None]

    def is_asked_for(self, diagnosis: Diagnosis) -> bool:
        """Returns whether a finding asks for it."""
        return any(
            finding.code in self.codes
            and finding.severity != "note"
            and (finding.code not in ROUND_TRIPS or _is_rounding(finding))
            for finding in diagnosis.findings
        )


ROUND_TRIPS = ("KF201", "KF202")
EXPLAINED = 100  # times the predicted rounding, as the doctor says it


def _is_rounding(finding: Finding) -> bool:
    """Returns whether a round trip misses by no more than rounding explains."""
    worst, predicted = (finding.evidence.get(name) for name in ("worst", "predicted"))
    if not isinstance(worst, float) or not isinstance(predicted, float):
        return False
    return math.isfinite(predicted) and worst <= EXPLAINED * predicted


def _fused(flow: Flow) -> Cured | None:
    made = fuse(flow)
    before, after = len(layers_of(flow.core)), len(layers_of(made.core))
    if after >= before:
        return None
    return Cured(made, f"neighbouring linear layers became one: {before} layers, now {after}")


def _bounded(flow: Flow) -> Cured | None:
    made, replaced = bounded(flow)
    if not replaced:
        return None
    listed = ", ".join(f"{value:.2g}" for value in replaced)
    return Cured(
        made, f"linear layers of condition number {listed} have one of at most {BOUND:g} now"
    )


def _widened(flow: Flow) -> Cured | None:
    if flow.dtype == torch.float64:
        return None
    before = str(flow.dtype).removeprefix("torch.")
    return Cured(copy.deepcopy(flow).double(), f"scored and sampled in float64, not in {before}")


def _padded(flow: Flow) -> Cured | None:
    made = padded(flow)
    added = made.joint_shape[0] - flow.joint_shape[0]
    return Cured(made, f"{added} features of Gaussian padding beside the {flow.joint_shape[0]}")


def asks_for_float64(diagnosis: Diagnosis) -> bool:
    """Returns whether a finding says that the float type is too narrow."""
    return CURES["float64"].is_asked_for(diagnosis)


CURES = {
    cure.name: cure
    for cure in (  # in the order in which they are applied
        Cure("pad", (), trains=True, apply=_padded),
        Cure("fuse", ("KF301", "KF302", "KF305"), trains=False, apply=_fused),
        Cure("bound", ("KF305",), trains=True, apply=_bounded),
        Cure("float64", ("KF301", "KF303", *ROUND_TRIPS), trains=False, apply=_widened),
    )
}
