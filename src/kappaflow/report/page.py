"""Every page: sections made of a few kinds of blocks, in one HTML file that loads nothing.

A page is data: text, charts, tables, pictures, findings. `render_page` fills the one template with
it. All text is escaped, scripts and style are inside the file, and its Content-Security-Policy
forbids requests.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
from markupsafe import Markup, escape

from kappaflow.diagnosis import Finding
from kappaflow.goodness import Level
from kappaflow.report import numbers
from kappaflow.report.charts import Chart, Panel, color
from kappaflow.report.charts.plotly import draw, template
from kappaflow.report.pictures import Shown

TEMPLATES = Path(__file__).parent / "templates"
LOADS_NOTHING = "This page makes no network requests."
VERDICTS: dict[Level, tuple[Literal["ok", "warning", "error"], str]] = {
    "good": ("ok", "Good"),
    "care": ("warning", "Use with care"),
    "bad": ("error", "Do not use"),
}
NO_FINDINGS = "The doctor found no error, no warning and nothing worth a note."


class KeyFigure(NamedTuple):
    """A number at the top of a page, as text, with a note on how to read it."""

    label: str
    value: str
    unit: str
    note: str
    finite: bool = True


class ResultBox(NamedTuple):
    """The box at the top of a page; the level sets its color, "note" is for results."""

    level: Literal["ok", "warning", "error", "note"]
    heading: str
    sentences: Sequence[str]


class Link(NamedTuple):
    """Text that links to a file next to the page."""

    text: str
    href: str


class Text(NamedTuple):
    """A paragraph, with bold words before it; "small" and "quiet" (gray) are for details."""

    text: str | Link
    style: Literal["", "small", "quiet"] = ""
    lead: str = ""


class Heading(NamedTuple):
    """A heading inside a section."""

    text: str
    id: str = ""


class Items(NamedTuple):
    """A bulleted list."""

    texts: Sequence[str]


class Charts(NamedTuple):
    """Charts, two in a row or, if wide, one."""

    charts: Sequence[Chart]
    wide: bool = False


class TextTable(NamedTuple):
    """A table whose first column names the rows; None is a cell without a value."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Link | None]]
    title: str = ""
    scrolls: bool = False
    is_prose: bool = False  # the first column is sentences


class FactTable(NamedTuple):
    """A table of names and values."""

    facts: Sequence[tuple[str, str]]
    title: str = ""


class Pictures(NamedTuple):
    """Pictures, one, two or three in a row where there is room."""

    pictures: Sequence[Shown]
    columns: int = 2


class Card(NamedTuple):
    """A finding of the doctor, with the title of its check and the charts that explain it."""

    finding: Finding
    check: str | None = None
    charts: Sequence[Chart] = ()


class Findings(NamedTuple):
    """The findings of the doctor."""

    cards: Sequence[Card]


class Details(NamedTuple):
    """Tables that the reader unfolds; without charts, which need a width to be drawn."""

    summary: str
    blocks: Sequence[FactTable | TextTable | Text]


Plain = ResultBox | Text | Heading | Items | Details
Block = Plain | Charts | TextTable | FactTable | Pictures | Findings


class Section(NamedTuple):
    """A part of a page."""

    id: str  # its anchor
    title: str
    blocks: Sequence[Block]
    link: str = ""  # text of the link at the top of the page; the title by default


class Page(NamedTuple):
    """A whole page."""

    command: str  # that wrote it, such as "kappaflow report"
    title: str
    sections: Sequence[Section]
    verdict: ResultBox | None = None
    key_figures: Sequence[KeyFigure] = ()
    intro: Sequence[Text] = ()  # before the first section
    without_script: str = ""  # where the numbers are if the browser runs no scripts
    files: str = ""  # a sentence about the files next to the page
    has_links: bool = True  # to the sections, at its start


class Placed(NamedTuple):
    """A panel with its id on the page."""

    name: str
    panel: Panel


class _Drawn(dict[str, Any]):
    """The figures of a page by their ids, collected while the template places them."""

    def of(self, chart: Chart) -> list[Placed | None]:
        """Returns the panels of a chart with their ids; the script of the page will draw them."""
        placed = []
        for number, panel in enumerate(chart.panels, start=1):
            name = f"{chart.name}-{number}" if len(chart.panels) > 1 else chart.name
            placed.append(panel and Placed(name, panel))
            if panel is not None:
                self[name] = draw(panel, chart)
        return placed


def render_page(page: Page) -> str:
    """Returns a page as one HTML document: about 5 MB, nearly all of it plotly.js."""
    scripts = [_plotly(), _file("page.js")]
    return _template().render(
        page=page,
        footer=f"{page.files} {LOADS_NOTHING}",
        drawn=_Drawn(),
        template=template(),
        style=_file("page.css"),
        scripts=scripts,
        policy=_policy(scripts),
    )


def findings_section(cards: Sequence[Card], title: str = "Findings of the doctor") -> Section:
    """Returns the section with the findings of the doctor."""
    blocks = [Findings(cards)] if cards else [Text(NO_FINDINGS)]
    return Section("findings", title, blocks, link="Findings")


def glossary_section(terms: Sequence[str]) -> Section:
    """Returns the section that explains some terms of templates/glossary.txt."""
    meanings = dict(line.split(": ", 1) for line in _file("glossary.txt").splitlines())
    return Section("glossary", "Glossary", [FactTable([(term, meanings[term]) for term in terms])])


def verdict_of(level: Level, findings: Iterable[Finding], text: str) -> ResultBox:
    """Returns the verdict of the doctor as a box: green, yellow or red by the level."""
    severities = Counter(finding.severity for finding in findings)
    kinds = [kind for kind in ("error", "warning") if severities[kind]]
    counts = " and ".join(numbers.count(severities[kind], kind) for kind in kinds)
    color, heading = VERDICTS[level]
    return ResultBox(color, f"{heading}: {counts}" if counts else heading, [text])


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # nan is not valid JSON: an error here is better than an error in the browser.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.globals["color"] = color
    environment.filters["significant"] = numbers.significant
    environment.filters["with_powers"] = numbers.with_powers
    environment.filters["breakable"] = _breakable
    environment.filters["breakable_name"] = partial(numbers.breakable, mark="\N{ZERO WIDTH SPACE}")
    return environment.get_template("page.html.jinja")


def _breakable(text: str) -> Markup:
    """Returns text as HTML in which long names break after their signs."""
    return Markup(numbers.breakable(str(escape(text)), "<wbr>"))


def _policy(scripts: list[str]) -> str:
    """Returns a Content-Security-Policy: no requests, and no script but these."""
    hashes = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Returns the text of plotly.js. The import is slow, so it happens only when needed."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()
