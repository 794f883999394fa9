"""Diagnoses from findings: their order, the verdict, and which of them are shown."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from kappaflow.conditioning import Profile
from kappaflow.diagnosis.advice import without_own_names
from kappaflow.diagnosis.checks import check_codes, is_selected
from kappaflow.diagnosis.result import Diagnosis
from kappaflow.finding import SEVERITIES, Evidence, Finding

# The verdict shows the most severe finding, and the findings with these codes (data, likelihood
# and training).
IN_THE_VERDICT, MOST_IN_THE_VERDICT = ("KF5", "KF6"), 4


def diagnosis_of(findings: list[Finding], figures: Evidence, profile: Profile | None) -> Diagnosis:
    """Returns the diagnosis of a flow, with the most severe findings first, and a verdict."""
    if figures["library"] != "kappaflow":
        findings = list(map(without_own_names, findings))
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(tuple(ordered), _verdict(figures, ordered), figures, profile)


def with_findings(
    diagnosis: Diagnosis, more: Iterable[Finding], checked: Sequence[str] = ()
) -> Diagnosis:
    """Returns a diagnosis with further findings and an updated verdict.

    `checked` has the names of the checks that the added findings come from.
    """
    if checked:
        names = f"{diagnosis.measured['checked']}, {', '.join(checked)}"
        measured = {**diagnosis.measured, "checked": names}
        diagnosis = dataclasses.replace(diagnosis, measured=measured)
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
    other = diagnosis_of(findings, diagnosis.measured, diagnosis.profile)
    return dataclasses.replace(other, tables=diagnosis.tables)


def _verdict(figures: Evidence, findings: list[Finding]) -> str:
    """Returns a few sentences on whether to trust the flow, with the main figures."""
    severe = [finding for finding in findings if finding.severity != "note"]
    if any(finding.severity == "error" for finding in severe):
        opening = f"Do not trust this flow yet: {_messages(severe)}"
    elif severe:
        opening = f"Use this flow with care: {_messages(severe)}"
    else:
        opening = _no_problem(figures)
    numbers = [value for value in figures.values() if isinstance(value, float)]
    if not all(map(math.isfinite, numbers)):
        return opening
    return (
        f"{opening} Its condition number has a median of {figures['condition_number_median']:.3g} "
        f"and reaches {figures['condition_number_max']:.3g}. The reconstruction error is at most "
        f"{figures['round_trip_data_max']:.1e} from data and "
        f"{figures['round_trip_latent_max']:.1e} from latents, in standardized units."
    )


def _messages(severe: list[Finding]) -> str:
    """Returns the first message, followed by the messages on data, likelihood and training."""
    first = severe[0].message
    others = [entry.message for entry in severe[1:] if entry.code.startswith(IN_THE_VERDICT)]
    shown = [first[:1].lower() + first[1:], *others[:MOST_IN_THE_VERDICT]]
    more = len(others) - MOST_IN_THE_VERDICT
    if more > 0:
        shown.append(f"There {'is' if more == 1 else 'are'} {more} more of these.")
    return " ".join(shown)


def _no_problem(figures: Evidence) -> str:
    """Returns the verdict without findings: the performed checks and the number of rows."""
    points, rows = figures["points"], figures["rows"]
    where = f"{points} of {rows:,} rows" if rows else f"{points} samples of the flow"
    if rows == points:
        where = "1 row" if rows == 1 else f"{rows} rows"
    return (
        f"The doctor found no problem at {where} in {figures['dtype']}. It checked: "
        f"{figures['checked']}."
    )
