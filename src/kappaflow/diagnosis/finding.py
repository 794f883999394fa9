"""What the doctor returns: findings, and the diagnosis that they form together."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from kappaflow.conditioning import Profile

Evidence = dict[str, float | int | str | None]
Table = dict[str, list[float | int | str | None]]
Tables = dict[str, Table]
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One problem of a flow, or one fact worth knowing.

    Attributes:
        code: The check that found it, such as "KF201"; stable across versions.
        severity: "error" (a returned number is wrong or not finite at the examined points),
            "warning" (it will be elsewhere, or in a narrower dtype), "note" (worth knowing).
        layer: Name of the layer to blame, or None where it is no single one.
        message: What is wrong, in one sentence with its numbers.
        cause: Why it probably happens.
        cure: What to do about it.
        evidence: The numbers behind it, by name.
    """

    code: str
    severity: Severity
    layer: str | None
    message: str
    cause: str
    cure: str
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All findings on one flow, the most severe first.

    Attributes:
        findings: Sorted by severity.
        verdict: The summary, in two or three sentences.
        measured: The number of points, the dtype and the main figures, by name.
        profile: The conditioning over depth that the findings rest on. It has its own `to_dict`
            and is left out of this one.
        tables: The numbers behind the findings, point by point: tables by name, columns by name.
    """

    findings: tuple[Finding, ...]
    verdict: str
    measured: Evidence = field(default_factory=dict)
    profile: Profile | None = field(default=None, repr=False, compare=False)
    tables: Tables = field(default_factory=dict, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Returns the diagnosis as plain values, without the profile."""
        plain = dataclasses.asdict(dataclasses.replace(self, profile=None))
        del plain["profile"]
        return {"ok": self.ok, **plain}

    def to_json(self) -> str:
        """Returns the diagnosis as JSON text; nan and infinities become strings."""
        return json.dumps(_finite(self.to_dict()), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:  # noqa: ANN401
    """Returns the value with nan and infinities as strings, because JSON has no such numbers."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
