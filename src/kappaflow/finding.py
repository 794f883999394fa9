"""`Finding`: a problem, or a remark, with its cause and the way out."""

from dataclasses import dataclass, field
from typing import Literal

from kappaflow.results import Value

Evidence = dict[str, Value]
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """A problem of a flow, or a remark on it.

    Attributes:
        code: Code of the check, such as "KF201"; stable across versions.
        severity: "error" (a returned number is wrong or not finite at the examined points),
            "warning" (this will happen at other points or in a narrower dtype), or "note" (a
            remark).
        layer: Name of the layer that causes the problem; None if it is not a single layer.
        message: The problem in one sentence, with its numbers.
        cause: Probable cause.
        fix: What to do about it.
        evidence: Supporting numbers, by name.
    """

    code: str
    severity: Severity
    layer: str | None
    message: str
    cause: str
    fix: str
    evidence: Evidence = field(default_factory=dict)
