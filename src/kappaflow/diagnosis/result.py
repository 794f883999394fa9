"""`Diagnosis`, the result of the doctor."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, computed_field

from kappaflow.conditioning import Profile
from kappaflow.finding import Evidence, Finding
from kappaflow.goodness import Goodness, Level
from kappaflow.goodness.deviation import worst_level
from kappaflow.results import Value, to_plain
from kappaflow.summary import Facts, Summary

Columns = dict[str, list[Value]]
Tables = dict[str, Columns]
OF_SAMPLES = ("KF509", "KF510", "KF511")  # the findings that `goodness` gives


@dataclass(frozen=True, repr=False)
class Diagnosis(Summary):
    """All findings on one flow, with a verdict and the measurements.

    Attributes:
        findings: The findings, the most severe first.
        verdict: What to do, where samples differ, numerical soundness, and what was not checked.
        measured: The number of points, the dtype and the main figures, by name.
        profile: The measured conditioning over depth. `to_dict` leaves it out; use
            `Profile.to_dict`.
        goodness: How well samples match the rows; None if they were not compared.
        tables: Measurements in detail, as tables by name with columns by name.
    """

    findings: tuple[Finding, ...]
    verdict: str
    measured: Evidence = field(default_factory=dict)
    profile: Annotated[Profile | None, Field(exclude=True)] = field(
        default=None, repr=False, compare=False
    )
    goodness: Goodness | None = field(default=None, repr=False, compare=False)
    tables: Tables = field(default_factory=dict, repr=False, compare=False)

    @computed_field
    @property
    def ok(self) -> bool:
        """Whether the diagnosis has no errors; it may have warnings."""
        return all(finding.severity != "error" for finding in self.findings)

    @computed_field
    @property
    def level(self) -> Level:
        """Whether to use the flow: "good" if samples match the rows and nothing else is wrong.

        It is "bad" if there is an error or samples differ badly, and "care" for other deviations,
        for warnings, and if samples were not compared with rows.
        """
        severities = {finding.severity for finding in self.findings}
        if "error" in severities:
            return "bad"
        of_samples = "care" if self.goodness is None else self.goodness.level
        return worst_level([of_samples, "care" if "warning" in severities else "good"])

    def _facts(self) -> Facts:
        codes = ", ".join(f"{finding.severity} {finding.code}" for finding in self.findings)
        return [
            ("level", self.level),
            ("findings", codes or "none"),
            ("verdict", self.verdict),
        ]

    def _details(self) -> Facts:
        return [
            (
                f"{finding.severity} {finding.code}",
                f"{finding.message}\nCause: {finding.cause}\nWhat to do: {finding.fix}",
            )
            for finding in self.findings
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns the diagnosis as plain values for JSON, without the profile.

        A measurement that is not finite is {"number": "NaN"}, "Infinity" or "-Infinity" alike.
        """
        return to_plain(self)

    def to_json(self) -> str:
        """Returns the diagnosis as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)
