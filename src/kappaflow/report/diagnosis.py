"""The page of a diagnosis: findings as cards, with charts of what the doctor measured."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kappaflow.conditioning import ProfileQuantiles
from kappaflow.diagnosis import CODES, Diagnosis
from kappaflow.errors import ArgumentError
from kappaflow.report.charts import Chart
from kappaflow.report.conditioning import (
    condition_chart,
    conditioning_figures,
    depth_section,
    round_trip_chart,
    singular_value_chart,
)
from kappaflow.report.diagnosis_charts import (
    AGREEMENTS,
    Table,
    agreement_chart,
    all_singular_values_chart,
    far_out_chart,
    log_probs_chart,
)
from kappaflow.report.files import check_output_path
from kappaflow.report.goodness import goodness_section
from kappaflow.report.numbers import count, significant
from kappaflow.report.page import (
    Card,
    Charts,
    FactTable,
    KeyFigure,
    Page,
    Section,
    Text,
    findings_section,
    glossary_section,
    render_page,
    verdict_of,
)
from kappaflow.storage import write_bytes

WITHOUT_SCRIPT = "kappaflow doctor --json prints all of their numbers."


class Evidence(NamedTuple):
    """A chart of the page, and the codes, or their beginnings, of the findings it explains."""

    codes: tuple[str, ...]
    chart: Chart
    is_over_depth: bool = False  # belongs to the section on conditioning if it explains no finding


def write_diagnosis(
    diagnosis: Diagnosis, path: str | Path, *, title: str = "A flow", points: str = ""
) -> Path:
    """Writes the page of a diagnosis: one HTML file that needs no network.

    Args:
        diagnosis: The result of `kappaflow.doctor`.
        path: The file, ending in .html. An existing file is replaced, never half written.
        title: Name of the flow.
        points: The rows at which it was diagnosed, as text; left out if empty.

    Returns:
        The path.

    Raises:
        ArgumentError: `diagnosis` is not a diagnosis, or the path does not end in .html or is a
            folder.
        FileError: The file cannot be written.

    Example:
        >>> import tempfile, torch, kappaflow as kf
        >>> diagnosis = kf.doctor(kf.real_nvp(4, depth=2, hidden=(8,)), torch.randn(64, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kf.write_diagnosis(diagnosis, f"{folder}/page.html").name
        'page.html'
    """
    if not isinstance(diagnosis, Diagnosis):
        raise ArgumentError(
            f"'diagnosis' should be what kappaflow.doctor returns, got {type(diagnosis).__name__}."
        )
    check_output_path("path", path, ".html")
    page = render_diagnosis(diagnosis, title=title, points=points)
    write_bytes(Path(path), page.encode())
    return Path(path)


def render_diagnosis(diagnosis: Diagnosis, *, title: str = "A flow", points: str = "") -> str:
    """Returns the page of a diagnosis, one HTML document that makes no request."""
    profile = None if diagnosis.profile is None else diagnosis.profile.quantiles()
    cards, over_depth, others = _place_charts(diagnosis, profile)
    sections, goodness = [findings_section(cards, "Findings")], diagnosis.goodness
    if goodness is not None:
        sections.append(goodness_section(goodness, goodness.two_sample.corner))
    if profile is not None:
        sections.append(depth_section(profile, points or "rows", over_depth))
    if others:
        text = Text("No finding above depends on these numbers.")
        sections.append(Section("others", "Other measurements", [text, Charts(others)]))
    sections += [_measured_section(diagnosis, points), glossary_section(TERMS)]
    return render_page(
        Page(
            command="kappaflow doctor",
            title=title,
            verdict=verdict_of(diagnosis.level, diagnosis.findings, diagnosis.verdict),
            key_figures=_key_figures(diagnosis, profile),
            without_script=WITHOUT_SCRIPT,
            sections=sections,
        )
    )


def _key_figures(diagnosis: Diagnosis, profile: ProfileQuantiles | None) -> list[KeyFigure]:
    """Returns counts of findings, the float type to use, conditioning, and round trips."""
    severities = Counter(finding.severity for finding in diagnosis.findings)
    kinds = [count(severities[k], k) for k in ("error", "warning", "note") if severities[k]]
    results = [KeyFigure("Findings", ", ".join(kinds) or "none", "", "the most severe come first")]
    precision = diagnosis.measured.get("precision")
    if isinstance(precision, str):
        note = "from the largest condition number at the rows"
        results.append(KeyFigure("Float type", precision, "", note, "unusable" not in precision))
    return results if profile is None else [*results, *conditioning_figures(profile)]


def _measured_section(diagnosis: Diagnosis, points: str) -> Section:
    facts: list[tuple[str, str]] = [("measured at", points)] if points else []
    facts += [
        (name.replace("_", " "), value if isinstance(value, str) else significant(value))
        for name, value in diagnosis.measured.items()
        if value != ""  # nothing was left out
    ]
    return Section("measured", "How it was diagnosed", [FactTable(facts)], "Settings")


def _place_charts(
    diagnosis: Diagnosis, profile: ProfileQuantiles | None
) -> tuple[list[Card], list[Chart], list[Chart]]:
    """Returns cards with the charts that explain them, charts over depth, and other charts."""
    codes = [finding.code for finding in diagnosis.findings]
    explaining: dict[int, list[Chart]] = {}
    over_depth: list[Chart] = []
    others: list[Chart] = []
    for evidence in _evidence(diagnosis, profile, codes):
        index = next((i for i, code in enumerate(codes) if code.startswith(evidence.codes)), None)
        if index is not None:
            explaining.setdefault(index, []).append(evidence.chart)
        else:
            (over_depth if evidence.is_over_depth else others).append(evidence.chart)
    cards = [
        Card(finding, CODES.get(finding.code), explaining.get(index, ()))
        for index, finding in enumerate(diagnosis.findings)
    ]
    return cards, over_depth, others


def _evidence(
    diagnosis: Diagnosis, profile: ProfileQuantiles | None, codes: Sequence[str]
) -> Iterator[Evidence]:
    """Yields the charts of all measurements, in the order of the page."""
    tables = diagnosis.tables
    if profile is not None:
        yield Evidence(("KF301", "KF302"), condition_chart(profile), is_over_depth=True)
        yield Evidence((), singular_value_chart(profile), is_over_depth=True)
        yield Evidence(("KF201", "KF202"), round_trip_chart(profile), is_over_depth=True)
    for name, (of, draw) in CHARTS.items():
        if name in tables:
            yield Evidence(of, draw(tables[name]))
    drawn = set()
    for agreement in AGREEMENTS:
        table, is_found = tables.get(agreement.table, {}), agreement.code in codes
        is_measured = all(column in table for column, _ in (agreement.expected, *agreement.others))
        if is_measured and agreement.name not in drawn:
            drawn.add(agreement.name)
            yield Evidence((agreement.code,), agreement_chart(agreement, table, is_found=is_found))


LIKELIHOOD = tuple(f"KF50{number}" for number in range(1, 9))
CHARTS: dict[str, tuple[tuple[str, ...], Callable[[Table], Chart]]] = {
    "singular_values": (("KF301",), all_singular_values_chart),
    "far_out": (("KF303",), far_out_chart),
    "log_prob": (("KF101", "KF102", *LIKELIHOOD), log_probs_chart),
}
TERMS = (
    "Error, warning, note",
    "Latent",
    "log_det",
    "Singular values",
    "Condition number",
    "Round trip",
    "Quantile, band",
)
