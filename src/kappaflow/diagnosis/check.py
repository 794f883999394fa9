"""The decorators of the doctor's checks: `@measurement`, `@check` and `@table`."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Literal, ParamSpec, TypeVar

from kappaflow.diagnosis.measurements import Measurements
from kappaflow.diagnosis.result import Columns
from kappaflow.finding import Evidence, Finding, Severity

P = ParamSpec("P")
T = TypeVar("T")


def measurement(
    shown: str,
) -> Callable[[Callable[[Measurements], T]], Callable[[Measurements], T]]:
    """Returns a decorator that runs a function once for each flow, with a progress text."""

    def decorate(function: Callable[[Measurements], T]) -> Callable[[Measurements], T]:
        @functools.wraps(function)
        def measured(m: Measurements) -> T:
            def run() -> T:
                m.announce(shown)
                return function(m)

            return m.once(measured, run)

        return measured

    return decorate


@dataclass(frozen=True)
class Symptom:
    """What a check observed on a flow, in one sentence with its numbers."""

    message: str
    evidence: Evidence = field(default_factory=dict)
    layer: str | None = None  # that causes the problem; None if it is not a single one
    severity: Severity | None = None  # replaces that of the check, as do a cause and a fix
    cause: str | None = None
    fix: str | None = None


Subject = Literal["flow", "data", "run"]


@dataclass(frozen=True)
class Check(Generic[P]):
    """A check with its texts. A call runs it and returns the findings."""

    code: str  # such as "KF204"; a code is never reused
    title: str  # what the code means, in a few words
    observe: Callable[P, Iterable[Symptom]]  # the decorated function, whose docstring documents it
    severity: Severity
    cause: str
    fix: str
    subject: Subject  # of `Measurements`, of `ExaminedData`, or of figures of a training
    before: str  # code of a check that this one must precede, because it explains that one

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> tuple[Finding, ...]:
        return tuple(map(self.finding, self.observe(*args, **kwargs)))

    def finding(self, symptom: Symptom) -> Finding:
        """Returns a finding from a symptom and the texts of this check."""
        return Finding(
            code=self.code,
            severity=symptom.severity or self.severity,
            layer=symptom.layer,
            message=symptom.message,
            cause=symptom.cause or self.cause,
            fix=symptom.fix or self.fix,
            evidence=symptom.evidence,
        )


CHECKS: dict[str, Check[...]] = {}


def check(
    code: str,
    title: str,
    *,
    severity: Severity = "error",
    cause: str,
    fix: str,
    subject: Subject = "flow",
    before: str = "",
) -> Callable[[Callable[P, Iterable[Symptom]]], Check[P]]:
    """Returns a decorator that registers a function that yields symptoms as the check of a code.

    The docstring of the function becomes the section of the code in docs/rules.md. Its "Example:"
    makes a `flow` and points `x` (and a `context`, `make` or `log_density` if the check needs one)
    on which the check fires; a test runs it. `Check` describes the arguments.
    """

    def decorate(observe: Callable[P, Iterable[Symptom]]) -> Check[P]:
        registered = Check(code, title, observe, severity, cause, fix, subject, before)
        CHECKS[code] = registered
        return registered

    return decorate


TABLES: dict[str, Callable[[Measurements], Columns]] = {}


def table(name: str) -> Callable[[Callable[[Measurements], Columns]], Callable[..., Columns]]:
    """Returns the decorator of a function that makes a table for the report page."""

    def decorate(function: Callable[[Measurements], Columns]) -> Callable[..., Columns]:
        TABLES[name] = function
        return function

    return decorate
