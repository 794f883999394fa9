"""What an examination yields: findings, and the diagnosis that they make together."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from kappaflow.conditioning import Profile

Table = dict[str, list[float | int | str | None]]
Tables = dict[str, Table]
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a flow, or worth knowing.

    Attributes:
        code: The rule that found it, such as "KF201"; stable across versions.
        severity: "error" (a returned number is wrong or not finite on the points examined),
            "warning" (it will be, elsewhere or in the next float type), "note" (worth knowing).
        layer: Name of the layer to blame, or None where no single one is.
        message: What is the matter, in one sentence with its numbers.
        cause: Why it is likely so.
        cure: What to do about it.
        evidence: The numbers behind it, by name.
    """

    code: str
    severity: Severity
    layer: str | None
    message: str
    cause: str
    cure: str
    evidence: dict[str, float | int | str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All findings on one flow, the most severe first.

    Attributes:
        findings: In the order of severity.
        verdict: The whole in a sentence or two.
        measured: What was looked at: points, type, and the main figures by name.
        profile: The conditioning over depth that the findings were made from; it has a `to_dict`
            of its own and is left out of this one's.
        tables: The numbers behind the findings, point by point: by name a table, by name a column.
    """

    findings: tuple[Finding, ...]
    verdict: str
    measured: dict[str, float | int | str | None] = field(default_factory=dict)
    profile: Profile | None = field(default=None, repr=False, compare=False)
    tables: Tables = field(default_factory=dict, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether there is no finding of severity "error"."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Returns the diagnosis as plain values, without the profile."""
        plain = dataclasses.asdict(dataclasses.replace(self, profile=None))
        del plain["profile"]
        return {"ok": self.ok, **plain}

    def to_json(self) -> str:
        """Returns the diagnosis as JSON text; what is not finite is written as a string."""
        return json.dumps(_finite(self.to_dict()), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:  # noqa: ANN401
    """Returns the value with nan and infinities as strings, which JSON has no numbers for."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
