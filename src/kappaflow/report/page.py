"""The page of a report."""

from kappaflow.report import figures, headline, numbers
from kappaflow.report.content import Report
from kappaflow.report.document import document
from kappaflow.report.figures import Depth, Figure
from kappaflow.report.image_content import ImageReport


def render(report: Report) -> str:
    """Returns the page of a report.

    Args:
        report: What it says. Values that are not finite are shown as such.

    Returns:
        One HTML document, about 5 MB, nearly all of it plotly.js. It makes no request: its
        Content-Security-Policy forbids them, and lets no script run but its own two.
    """
    return document(
        "report.html.jinja",
        _figures(report),
        report=report,
        depth=Depth(report.profile),
        points_in_words=_points_in_words(report),
        level=headline.level(report),
        level_in_words=headline.level_in_words(report),
        key_figures=headline.key_figures(report),
        gain=headline.gain_over_gaussian(report),
        skipped_steps=skipped_steps(report),
        worst_layers=figures.worst_layers,
        MOST_MARGINALS=figures.MOST_MARGINALS,
        MOST_PAIRED_COLUMNS=figures.MOST_PAIRED_COLUMNS,
    )


def _points_in_words(report: Report) -> str:
    beside = ", padding beside them" if report.padding else ""
    return f"held-out rows, from the standardised columns on{beside}"


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
        "depth": [draw(depth) for draw in OVER_DEPTH],
        "latent": [figure for figure in latent if figure is not None],
    }


OVER_DEPTH = (figures.envelope, figures.condition, figures.round_trips)


def skipped_steps(report: Report | ImageReport) -> int:
    """Returns how many steps of the training were skipped."""
    counts = (numbers.as_float(row.get("skipped_steps")) for row in report.curves)
    finite = [count for count in counts if count is not None and numbers.is_finite(count)]
    return int(max(finite, default=0))  # the lines of metrics count from the start
