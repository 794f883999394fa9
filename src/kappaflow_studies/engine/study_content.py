"""What an experiment came to, as plain numbers and words."""

from kappaflow.report.charts.chart import Chart
from kappaflow.report.content import Part


class Table(Part):
    """Numbers that are better read than looked at.

    Attributes:
        title: A few words.
        columns: Their names; the first one names the rows.
        rows: Words for each column, numbers written out.
        caption: What they are.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str = ""


class Findings(Part):
    """What is read from the raw results of an experiment.

    Attributes:
        found: What was found, a sentence or two each, with its numbers.
        differs: Where that, or the way there, differs from the source, a sentence or two each.
        charts: The most telling one first.
        tables: Behind the charts.
    """

    found: list[str]
    differs: list[str]
    charts: list[Chart]
    tables: list[Table] = []


class StudyReport(Part):
    """An experiment: what is claimed, what was done, what was found.

    Attributes:
        name: What it is called on the command line.
        title: A few words.
        claim: The claim of the source, in our own words.
        findings: What was found.
        preset: "minutes", "full", or the file of the settings.
        settings: Them, (label, value).
        seed: Of all of it.
        cases: How many were measured.
        time_s: Of all of them, each on one thread.
        versions: Of what measured: Python, torch, this library, the processor.
    """

    name: str
    title: str
    claim: str
    findings: Findings
    preset: str
    settings: list[tuple[str, str]]
    seed: int
    cases: int
    time_s: float
    versions: list[tuple[str, str]]
