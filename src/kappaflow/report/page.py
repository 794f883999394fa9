"""A report as one HTML page that needs nothing from outside: script, style, numbers are in it."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from kappaflow.report import figures, headline, numbers
from kappaflow.report.content import Report
from kappaflow.report.figures import Depth, Figure

TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """Returns the page of a report.

    Args:
        report: What it says. Values that are not finite are shown as such.

    Returns:
        One HTML document, about 5 MB, nearly all of it plotly.js. It makes no request: its
        Content-Security-Policy forbids them, and lets no script run but its own two.
    """
    drawn = _figures(report)
    scripts = [_plotly(), _template_text("page.js")]
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            drawn=drawn,
            figure_data=_figure_data(drawn),
            depth=Depth(report.profile),
            level=headline.level(report),
            level_in_words=headline.level_in_words(report),
            key_figures=headline.key_figures(report),
            gain=headline.gain_over_gaussian(report),
            skipped_steps=_skipped_steps(report),
            style=_template_text("page.css"),
            scripts=scripts,
            policy=_policy(scripts),
        )
    )


def _figures(report: Report) -> dict[str, list[Figure]]:
    """Returns the figures of each section; a list is empty where there is nothing to draw."""
    depth = Depth(report.profile)
    latent = (
        figures.latent_histogram(report.latent),
        figures.latent_coordinates(report.latent),
    )
    return {
        "curves": figures.learning_curves(report),
        "separations": [figures.separation(s, i) for i, s in enumerate(report.separations)],
        "marginals": figures.marginals(report.marginals),
        "pairs": figures.pairs(report.pairs),
        "depth": [draw(depth) for draw in _OVER_DEPTH],
        "latent": [figure for figure in latent if figure is not None],
    }


_OVER_DEPTH = (figures.envelope, figures.condition, figures.round_trips)


def _figure_data(drawn: dict[str, list[Figure]]) -> dict[str, Any]:
    """Returns what the page's script draws, by the name of the figure."""
    return {
        figure.name: {"data": figure.traces, "layout": figure.layout, "height": figure.height}
        for group in drawn.values()
        for figure in group
    }


def _skipped_steps(report: Report) -> int:
    counts = (numbers.as_float(row.get("skipped_steps")) for row in report.curves)
    finite = [count for count in counts if count is not None and numbers.is_finite(count)]
    return int(max(finite, default=0))  # the lines of metrics count from the start


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
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
    environment.globals |= {
        "MOST_MARGINALS": figures.MOST_MARGINALS,
        "MOST_PAIRED_COLUMNS": figures.MOST_PAIRED_COLUMNS,
        "worst_layers": figures.worst_layers,
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
