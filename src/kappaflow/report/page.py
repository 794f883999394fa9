"""Every page: sections made of a few kinds of blocks, in one HTML file that loads nothing.

A page is data: text, charts, tables, pictures, findings. `render_page` fills the one template with
it. All text is escaped, scripts and style are inside the file, and its Content-Security-Policy
forbids requests.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jinja2
from markupsafe import Markup, escape

from kappaflow.diagnosis import Finding
from kappaflow.report import numbers
from kappaflow.report.charts import Chart, Panel
from kappaflow.report.charts.chart import color, label
from kappaflow.report.charts.plotly import draw, template
from kappaflow.report.pictures import Shown

TEMPLATES = Path(__file__).parent / "templates"
LOADS_NOTHING = "This page makes no network requests."
NO_FINDINGS = "The doctor found no error, no warning and nothing worth a note."


@dataclass(frozen=True)
class KeyFigure:
    """A number at the top of a page, as text, with a note on how to read it."""

    label: str
    value: str
    unit: str
    note: str
    finite: bool = True


@dataclass(frozen=True)
class Verdict:
    """The box at the top of a page; the level sets its color, "note" is for results."""

    kind: ClassVar[str] = "verdict"
    level: Literal["ok", "warning", "error", "note"]
    heading: str
    sentences: Sequence[str]


@dataclass(frozen=True)
class Link:
    """Text that links to a file next to the page."""

    text: str
    href: str


@dataclass(frozen=True)
class Text:
    """A paragraph, with bold words before it; "small" and "quiet" (gray) are for details."""

    kind: ClassVar[str] = "text"
    text: str | Link
    style: Literal["", "small", "quiet"] = ""
    lead: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str
    id: str = ""


@dataclass(frozen=True)
class Items:
    """A bulleted list."""

    kind: ClassVar[str] = "items"
    texts: Sequence[str]


@dataclass(frozen=True)
class Charts:
    """Charts, two in a row or, if wide, one; a chart with several panels has a row to itself."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]
    wide: bool = False


@dataclass(frozen=True)
class Picker:
    """A point cloud of two columns that the reader selects.

    Attributes:
        chart: The chart of the first pair, with a series for each of `clouds`.
        pair: The places of the first pair among the columns.
        frames: The ends of the axis of each column.
        clouds: The values of each column, for each series.
    """

    kind: ClassVar[str] = "picker"
    chart: Chart
    columns: Sequence[str]
    pair: tuple[int, int]
    frames: Sequence[tuple[float, float]]
    clouds: Sequence[Sequence[Sequence[float | None]]]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows; None is a cell without a value.

    On a narrow screen each row becomes a card. A table with very many columns scrolls sideways.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Link | None]]
    title: str = ""
    scrolls: bool = False


@dataclass(frozen=True)
class Facts:
    """Tables of names and values, side by side: (title, [(name, value), ...])."""

    kind: ClassVar[str] = "facts"
    tables: Sequence[tuple[str, Sequence[tuple[str, str]]]]


@dataclass(frozen=True)
class Pictures:
    """Pictures, one, two or three in a row where there is room."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Shown]
    columns: int = 2


@dataclass(frozen=True)
class Card:
    """A finding of the doctor, with the title of its check and the charts that explain it."""

    finding: Finding
    check: str | None = None
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class Findings:
    """The findings of the doctor."""

    kind: ClassVar[str] = "findings"
    cards: Sequence[Card]


@dataclass(frozen=True)
class Glossary:
    """Terms and their meanings."""

    kind: ClassVar[str] = "glossary"
    terms: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Details:
    """Tables that the reader unfolds; without charts, which need a width to be drawn."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: "Sequence[Facts | Table | Text]"


Plain = Verdict | Text | Heading | Items | Glossary | Details
Block = Plain | Charts | Picker | Table | Facts | Pictures | Findings


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        id: Its anchor.
        link: Text of the link at the top of the page; the title by default.
        is_sub: Whether it continues the section before it: a smaller heading and no link.
    """

    id: str
    title: str
    blocks: Sequence[Block]
    link: str = ""
    is_sub: bool = False


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        command: The command that wrote it, such as "kappaflow report".
        intro: Paragraphs before the first section.
        without_script: Where to find the content of the charts if the browser runs no scripts.
        files: A sentence about the files next to the page.
        has_links: Whether the page starts with links to the sections.
    """

    command: str
    title: str
    sections: Sequence[Section]
    verdict: Verdict | None = None
    key_figures: Sequence[KeyFigure] = ()
    intro: Sequence[Text] = ()
    without_script: str = ""
    files: str = ""
    has_links: bool = True


class Placed(NamedTuple):
    """A panel with its id on the page."""

    name: str
    panel: Panel


@dataclass
class _Drawn:
    """The figures of a page, collected while the template places them."""

    figures: dict[str, Any] = field(default_factory=dict)

    def of(self, chart: Chart) -> list[Placed | None]:
        """Returns the panels of a chart with their ids; the script of the page will draw them."""
        placed = []
        for number, panel in enumerate(chart.panels, start=1):
            name = f"{chart.name}-{number}" if len(chart.panels) > 1 else chart.name
            placed.append(panel and Placed(name, panel))
            if panel is not None:
                self.figures[name] = draw(panel, chart)
        return placed

    def of_picker(self, picker: Picker) -> Placed:
        """Returns the panel of a picker, which the script changes when the reader selects."""
        figure = Placed(picker.chart.name, picker.chart.placed[0][2])
        names = [label(name) for name in picker.columns]
        content = {"names": names, "frames": picker.frames, "clouds": picker.clouds}
        self.figures[figure.name] = draw(figure.panel, picker.chart) | content
        return figure


def render_page(page: Page) -> str:
    """Returns a page as one HTML document: about 5 MB, nearly all of it plotly.js.

    The document makes no request: its Content-Security-Policy forbids them, and runs no script but
    its own two.
    """
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
    lines = (line.split(": ", 1) for line in _file("glossary.txt").splitlines())
    meanings = {term: meaning for term, meaning in lines}
    return Section("glossary", "Glossary", [Glossary([(term, meanings[term]) for term in terms])])


def verdict_of(ok: bool, findings: Iterable[Finding], text: str) -> Verdict:
    """Returns the verdict of the doctor as a box: red for errors, else yellow for warnings."""
    severities = Counter(finding.severity for finding in findings)
    if not ok:
        errors = numbers.count(severities["error"], "error")
        return Verdict("error", f"Do not trust this flow yet: {errors}", [text])
    if severities["warning"]:
        warnings = numbers.count(severities["warning"], "warning")
        return Verdict("warning", f"Usable, with {warnings}", [text])
    return Verdict("ok", "No problem found", [text])


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
