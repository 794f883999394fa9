"""Any page, as one HTML document that needs nothing from outside: script and style are in it."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from kappaflow.report import numbers
from kappaflow.report.figures import Figure

TEMPLATES = Path(__file__).parent / "templates"


def document(
    template: str | Path, drawn: Mapping[str, Iterable[Figure]], **content: object
) -> str:
    """Returns a template that extends base.html.jinja, filled in.

    Args:
        template: Its name among the templates of this package, or the path of a template
            elsewhere.
        drawn: The figures of each section.
        **content: What else the template asks for.

    Returns:
        One HTML document, about 5 MB, nearly all of it plotly.js. It makes no request: its
        Content-Security-Policy forbids them, and lets no script run but its own two.
    """
    scripts = [_plotly(), _template_text("page.js")]
    path = TEMPLATES / template
    return (
        _environment(path.parent)
        .get_template(path.name)
        .render(
            drawn=drawn,
            figure_data=_figure_data(drawn),
            style=_template_text("page.css"),
            scripts=scripts,
            policy=_policy(scripts),
            **content,
        )
    )


def _figure_data(drawn: Mapping[str, Iterable[Figure]]) -> dict[str, Any]:
    """Returns what the page's script draws, by the name of the figure."""
    return {
        figure.name: {"data": figure.traces, "layout": figure.layout, "height": figure.height}
        for group in drawn.values()
        for figure in group
    }


@cache
def _environment(folder: Path) -> jinja2.Environment:
    """Returns what renders the templates of a folder, which may extend those of this package."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # bare nan is no JSON: better to fail here than in the browser
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {
        "significant": numbers.significant,
        "fixed": numbers.fixed,
        "with_error": numbers.with_error,
    }
    return environment


def _policy(scripts: list[str]) -> str:
    """Returns a Content-Security-Policy: nothing from outside, no script but these."""
    hashes = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _template_text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Returns the text of plotly.js; imported late, for those who never draw."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()
