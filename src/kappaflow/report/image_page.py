"""The page of a report on a flow of images."""

import statistics
from dataclasses import dataclass

from kappaflow.report import figures, headline
from kappaflow.report.document import document
from kappaflow.report.figures import Depth
from kappaflow.report.image_content import ImageReport, Neighbours, Picture
from kappaflow.report.page import OVER_DEPTH, skipped_steps

# CSS pixels that a sheet has on a page of full width, in three columns and in two.
NARROW, WIDE = 290, 460
SMALL = 2 * NARROW // 3  # sheets of more pixels than this get the wider columns


@dataclass(frozen=True)
class Shown:
    """A picture with its size on the page: a whole factor, as large as there is room for."""

    content: Picture
    room: int

    @property
    def factor(self) -> int:
        """By how much it is enlarged."""
        return max(1, self.room // self.content.width)

    @property
    def width(self) -> int:
        """Its width in CSS pixels."""
        return self.factor * self.content.width

    @property
    def height(self) -> int:
        """Its height in CSS pixels."""
        return self.factor * self.content.height

    @property
    def is_enlarged(self) -> bool:
        """Whether each pixel should stay a square of one colour."""
        return self.factor > 1

    @property
    def is_wide(self) -> bool:
        """Whether it has the room of two columns."""
        return self.room > NARROW


def render_images(report: ImageReport) -> str:
    """Returns the page of a report on a flow of images.

    Args:
        report: What it says. Values that are not finite are shown as such.

    Returns:
        One HTML document with its pictures in it, which makes no request.
    """
    depth = Depth(report.profile)
    sheets = [report.held_out, *reversed(report.samples)]
    room = NARROW if max(sheet.width for sheet in sheets) <= SMALL else WIDE
    return document(
        "images.html.jinja",
        {
            "curves": figures.image_learning_curves(report),
            "depth": [draw(depth) for draw in OVER_DEPTH],
        },
        report=report,
        depth=depth,
        points_in_words=_points_in_words(report),
        pictures={
            "samples": [Shown(sheet, room) for sheet in sheets],
            "reconstructions": Shown(report.reconstructions, WIDE - 60),
            "interpolations": Shown(report.interpolations, WIDE),
            "neighbours": Shown(report.neighbours.picture, WIDE),
        },
        between=_between(report.neighbours),
        scales=figures.scales_of(report.profile),
        level=headline.level(report),
        level_in_words=headline.level_in_words(report),
        key_figures=headline.image_key_figures(report),
        skipped_steps=skipped_steps(report),
        worst_layers=figures.worst_layers,
    )


def _points_in_words(report: ImageReport) -> str:
    has_logit = report.profile.layers[0].endswith(" Logit")
    start = "pixels" if has_logit else "standardised channels"
    return f"held-out images, from the {start} on"


def _between(neighbours: Neighbours) -> dict[str, float] | None:
    """Returns the median distances of samples and of held-out images."""
    if not neighbours.of_samples or not neighbours.of_held_out:
        return None
    return {
        "samples": statistics.median(neighbours.of_samples),
        "held_out": statistics.median(neighbours.of_held_out),
    }
