"""The page that compares flows of faces with and without padding."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from kappaflow.report.document import document
from kappaflow.report.figures.base import (
    DATA,
    SAMPLES,
    Figure,
    axis,
    empty_note,
    layout,
    line,
    log_axis,
    nothing_to_draw,
)
from kappaflow.report.image_content import ImageReport, Picture
from kappaflow.report.image_page import NARROW, WIDE, Shown
from kappaflow.report.numbers import (
    drawable,
    is_finite,
    significant,
    what_is_not_drawn,
    with_error,
)
from kappaflow_studies.faces.results import FacesReport, FacesRun, FacesSize

QUANTILES = (
    ("condition_number_median", "median", "solid"),
    ("condition_number_p95", "95 %", "dash"),
)


def condition_over_training(size: FacesSize) -> Figure:
    """Returns the median and the 95 % quantile of both trainings of a size, on one log axis."""
    traces, series = [], []
    for run, name, colour in zip(
        size.runs, ("without padding", "with padding"), (DATA, SAMPLES), strict=True
    ):
        epochs = drawable(point["epoch"] for point in run.curve)
        for key, word, dash in QUANTILES:
            values = [point[key] for point in run.curve]
            series.append(values)
            traces.append(
                line(epochs, drawable(values, log=True), f"{name}, {word}", colour, dash=dash)
            )
    marks = {"annotations": [empty_note()]} if nothing_to_draw(traces) else {}
    ends = [
        significant(run.curve[-1]["condition_number_median"]) if run.curve else "not measured"
        for run in size.runs
    ]
    return Figure(
        name=f"condition-{size.size}",
        title=f"Condition number over training, {size.size} x {size.size}",
        alt="Median and 95 % quantile of the condition number over the epochs; the medians end at "
        f"{ends[0]} without padding and {ends[1]} with padding.",
        caption="Of the map from the standardised channels, the padding among them, to the "
        "latent, at a few validation faces, with the averaged weights of the epoch. Lower is "
        "better: each factor of ten costs a digit on the way back.",
        traces=traces,
        layout=layout(
            axis("epoch", nticks=8), log_axis("condition number (pure number)", series), **marks
        ),
        remark=what_is_not_drawn(series, log=True),
    )


TEMPLATE = Path(__file__).parent / "faces.html.jinja"
ALIKE = 1.1  # condition numbers whose ratio is below this are called about the same


def render_faces(report: FacesReport, reports: Mapping[str, ImageReport]) -> str:
    """Returns the page of the experiment.

    Args:
        report: Its numbers.
        reports: The report of each run, whose pictures are shown, by the name of its folder.

    Returns:
        One HTML document that makes no request.
    """
    return document(
        TEMPLATE,
        {str(size.size): [condition_over_training(size)] for size in report.sizes},
        report=report,
        pictures={size.size: _pictures(size, reports) for size in report.sizes},
        found_in_words=found_in_words,
        distances_in_words=distances_in_words,
        held_out_in_words=held_out_in_words,
        name_of=name_of,
    )


def name_of(run: FacesRun) -> str:
    """Returns what a run is called: "without padding", "with 1 padding channel"."""
    if not run.padding:
        return "without padding"
    return f"with {run.padding} padding {'channel' if run.padding == 1 else 'channels'}"


def in_words(size: FacesSize) -> str:
    """Returns what was found of the conditioning, in either direction."""
    plain, padded = (_last(run) for run in size.runs)
    start = (
        f"At {size.size} x {size.size} the condition number ends at {significant(plain)} without "
        f"padding and at {significant(padded)} {name_of(size.padded)}"
    )
    if plain is None or padded is None or not (plain > 0 and padded > 0):
        return f"{start}, which cannot be compared."
    ratio = padded / plain
    if max(ratio, 1 / ratio) < ALIKE:
        return f"{start}: about the same."
    if ratio < 1:
        return f"{start}: {significant(1 / ratio, 2)} times smaller with padding."
    return f"{start}: {significant(ratio, 2)} times larger with padding."


def found_in_words(size: FacesSize) -> str:
    """Returns what was found of all that is compared."""
    plain, padded = (significant(run.round_trip_data, 2) for run in size.runs)
    return (
        f"{in_words(size)} {likelihood_in_words(size)} The largest error of a round trip is "
        f"{plain} without padding and {padded} with."
    )


def likelihood_in_words(size: FacesSize) -> str:
    """Returns the change of the bits per dimension by padding, with its standard error."""
    more, error = size.bits_more, size.bits_more_standard_error
    if not is_finite(more):
        return "A likelihood is not finite, so that the two cannot be compared."
    if abs(more) < 2 * error:
        verdict = "within two standard errors of zero"
    else:
        verdict = "worse than without" if more > 0 else "better than without"
    return (
        f"Padding changes the bound on bits per dimension by {with_error(more, error)}, face by "
        f"face: {verdict}."
    )


def distances_in_words(run: FacesRun) -> str:
    """Returns how far samples are from the training faces."""
    return (
        f"{len(run.of_samples)} samples at temperature {run.drawn_at:g} {name_of(run)} are "
        f"{_far(run.of_samples)}."
    )


def held_out_in_words(size: FacesSize) -> str:
    """Returns how far held-out faces are from the training faces."""
    return f"The {len(size.of_held_out)} held-out faces are {_far(size.of_held_out)}."


def _far(distances: Sequence[float]) -> str:
    median, least = statistics.median(distances), min(distances)
    return (
        f"{significant(median)} from their nearest training face in the median, the nearest of "
        f"them {significant(least)}"
    )


def _last(run: FacesRun) -> float | None:
    """Returns the condition number after the last epoch at which it was measured."""
    return run.curve[-1]["condition_number_median"] if run.curve else None


def _pictures(size: FacesSize, reports: Mapping[str, ImageReport]) -> dict[str, list[Shown]]:
    """Returns the pictures of a pair of runs, those without padding on the left."""
    plain, padded = (reports[run.folder] for run in size.runs)

    def side_by_side(one: Picture, other: Picture) -> list[Shown]:
        return [
            _large(picture.model_copy(update={"title": f"{picture.title}, {name_of(run)}"}))
            for picture, run in zip((one, other), size.runs, strict=True)
        ]

    samples = zip(plain.samples, padded.samples, strict=True)
    return {
        "held_out": [_large(plain.held_out)],
        "samples": [shown for pair in samples for shown in side_by_side(*pair)],
        "latent": [
            *side_by_side(plain.reconstructions, padded.reconstructions),
            *side_by_side(plain.interpolations, padded.interpolations),
        ],
        "neighbours": side_by_side(plain.neighbours.picture, padded.neighbours.picture),
    }


def _large(picture: Picture) -> Shown:
    """Returns a picture with the room of two columns, doubled if it fills no more than half."""
    return Shown(picture, max(WIDE, 2 * picture.width if picture.width <= NARROW else 0))
