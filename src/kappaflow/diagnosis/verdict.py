"""Diagnoses from findings: their order, the verdict, and which of them are shown."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from kappaflow.conditioning import Profile
from kappaflow.diagnosis.advice import without_own_names
from kappaflow.diagnosis.checks import check_codes, is_selected
from kappaflow.diagnosis.result import OF_SAMPLES, Diagnosis
from kappaflow.finding import SEVERITIES, Evidence, Finding
from kappaflow.goodness import Goodness

ON_THE_MAP = ("KF1", "KF2", "KF3", "KF4", "KF7", "KF8")  # findings on the flow as a map
ON_DATA = "KF6"
MOST_SHOWN = 3  # messages of findings in a verdict


def diagnosis_of(
    findings: list[Finding],
    figures: Evidence,
    profile: Profile | None,
    goodness: Goodness | None = None,
) -> Diagnosis:
    """Returns the diagnosis of a flow, with the most severe findings first, and a verdict."""
    if figures["library"] != "kappaflow":
        findings = list(map(without_own_names, findings))
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    diagnosis = Diagnosis(tuple(ordered), "", figures, profile, goodness)
    return dataclasses.replace(diagnosis, verdict=_verdict(diagnosis))


def with_findings(diagnosis: Diagnosis, more: Iterable[Finding]) -> Diagnosis:
    """Returns a diagnosis with further findings and an updated verdict."""
    return _replace_findings(diagnosis, [*diagnosis.findings, *more])


def filter_findings(
    diagnosis: Diagnosis, select: Sequence[str] = (), ignore: Sequence[str] = ()
) -> Diagnosis:
    """Returns a diagnosis with only the selected findings and an updated verdict.

    `select` and `ignore` are codes or prefixes of codes, such as "KF2". Without `select`, all
    findings are kept that `ignore` does not name.

    Raises:
        ArgumentError: No check has such a code.
    """
    check_codes(select, ignore)
    findings = [entry for entry in diagnosis.findings if is_selected(entry.code, select, ignore)]
    filtered = _replace_findings(diagnosis, findings)
    hidden = len(diagnosis.findings) - len(findings)
    if not hidden:
        return filtered
    are = "finding of another code is" if hidden == 1 else "findings of other codes are"
    return dataclasses.replace(filtered, verdict=f"{filtered.verdict} {hidden} {are} hidden.")


def _replace_findings(diagnosis: Diagnosis, findings: list[Finding]) -> Diagnosis:
    other = diagnosis_of(findings, diagnosis.measured, diagnosis.profile, diagnosis.goodness)
    return dataclasses.replace(other, tables=diagnosis.tables)


def _verdict(diagnosis: Diagnosis) -> str:
    """Returns what matters to a user first: the samples, other problems, numbers, limits."""
    goodness, findings = diagnosis.goodness, diagnosis.findings
    severe = [finding for finding in findings if finding.severity != "note"]
    others = [finding for finding in severe if finding.code not in OF_SAMPLES]
    differs = len(others) < len(severe)
    deviations = [entry.sentence for entry in goodness.shown] if goodness and differs else []
    matches = [goodness.headline] if goodness and goodness.level == "good" else []
    if any(finding.severity == "error" for finding in others):
        sentences = ["Do not trust this flow yet.", *_messages(others), *deviations, *matches]
    elif goodness and differs:
        sentences = [*goodness.sentences, *_messages(others)]
    elif others:
        sentences = ["Use this flow with care.", *_messages(others), *matches]
    else:
        sentences = matches
    if goodness is None:
        reason = diagnosis.measured["not_compared"]
        sentences.append(f"Samples were not compared with data: {reason}.")
    sentences += _notes_on_data(findings) + _soundness(diagnosis.measured, others)
    return " ".join([*sentences, *(goodness.limits if goodness else [])])


def _messages(severe: Sequence[Finding]) -> list[str]:
    """Returns the first message, those on the data, and how many more there are."""
    on_data = [finding for finding in severe[1:] if finding.code.startswith(ON_DATA)]
    shown = [*severe[:1], *on_data][:MOST_SHOWN]
    more = [finding.severity for finding in severe if finding not in shown]
    noun = "error" if {*more} == {"error"} else "problem" if "error" in more else "warning"
    are = f"is 1 more {noun}" if len(more) == 1 else f"are {len(more)} more {noun}s"
    return [*(finding.message for finding in shown), *([f"There {are}."] if more else [])]


def _notes_on_data(findings: Sequence[Finding]) -> list[str]:
    """Returns the notes on the data."""
    notes = [finding for finding in findings if finding.severity == "note"]
    on_data = [finding for finding in notes if finding.code.startswith(ON_DATA)]
    return [finding.message for finding in on_data[:MOST_SHOWN]]


def _soundness(figures: Evidence, severe: Sequence[Finding]) -> list[str]:
    """Returns the figures of the conditioning as a sentence; nothing if they are not finite."""
    numbers = [value for value in figures.values() if isinstance(value, float)]
    if not all(map(math.isfinite, numbers)):
        return []
    error = max(float(str(figures[f"round_trip_{side}_max"])) for side in ("data", "latent"))
    sound = not any(finding.code.startswith(ON_THE_MAP) for finding in severe)
    return [
        f"{'The flow is numerically sound: its' if sound else 'Its'} condition number reaches "
        f"{figures['condition_number_max']:.3g} (median {figures['condition_number_median']:.3g}) "
        f"and the reconstruction error {error:.1e} in standardized units, at {figures['points']} "
        f"{'rows' if figures['rows'] else 'samples'} in {figures['dtype']}."
    ]
