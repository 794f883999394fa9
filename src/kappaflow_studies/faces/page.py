"""The page that compares flows of faces with and without padding."""

import statistics
from collections.abc import Mapping, Sequence

from kappaflow.report import page
from kappaflow.report.charts import DATA, SAMPLES, Chart, line, single_chart
from kappaflow.report.images import ImageReport
from kappaflow.report.numbers import count, fixed, is_finite, significant, with_error
from kappaflow.report.page import Block, Link
from kappaflow.report.pictures import NARROW, WIDE, Picture, Shown
from kappaflow_studies.faces.results import FacesReport, FacesRun, FacesSize

QUANTILES = (
    ("condition_number_median", "median", "solid"),
    ("condition_number_p95", "95 %", "dash"),
)


NAMES = ("without padding", "with padding")


def condition_over_training(size: FacesSize) -> Chart:
    """Returns the median and the 95 % quantile of both trainings of a size."""
    series = []
    for run, name, tone in zip(size.runs, NAMES, (DATA, SAMPLES), strict=True):
        x = [point["epoch"] for point in run.curve]
        for key, quantile, dash in QUANTILES:
            y = [point[key] for point in run.curve]
            series.append(line(f"{name}, {quantile}", x, y, tone, dash=dash))
    ends = [significant(_last(run)) if run.curve else "not measured" for run in size.runs]
    return single_chart(
        f"condition-{size.size}",
        f"Condition number over training, {size.size} x {size.size}",
        "The condition number from the standardized channels, padding included, to the latent, at "
        "a few validation faces with the averaged weights of the epoch. Lower is better: each "
        "factor of ten costs the inverse one digit.",
        x="epoch",
        x_whole=True,
        y="condition number (pure number)",
        y_log=True,
        series=series,
        alt="Median and 95 % quantile of the condition number over the epochs. The medians end at "
        f"{ends[0]} without padding and {ends[1]} with padding.",
    )


ALIKE = 1.1  # ratio of condition numbers below which they count as about the same


FILES = "faces.json, next to this page, has all of its numbers."
TERMS = ("Glow", "Padding", "Condition number", "Bits per dimension", "Temperature", "Held out")
COLUMNS = (
    "Flow", "Bits per dimension", "Condition number, kept weights", "Largest round trip",
    "Parameters", "Epochs (kept)", "Time",
)  # fmt: skip


def render_faces(report: FacesReport, reports: Mapping[str, ImageReport]) -> str:
    """Returns the page of the study, with the report of each run by the name of its folder."""
    about = (
        "For each size, the same flow is trained twice with the same settings and seed: on the "
        "images alone, and with added channels of Gaussian noise. Preset "
        f"“{report.preset}”, seed {report.seed}. Small differences may be chance."
    )
    sections = [_size_section(size, _pictures(size, reports)) for size in report.sizes]
    return page.render_page(
        page.Page(
            command="kappaflow reproduce faces",
            title="A Glow of faces, with and without padding",
            verdict=page.Verdict("note", "Results", [*map(describe_results, report.sizes)]),
            intro=[page.Text(about)],
            without_script=f"The pictures do not. {FILES}",
            files=FILES,
            sections=[*sections, page.glossary_section([*TERMS, "Faces"])],
        )
    )


def _size_section(size: FacesSize, pictures: Mapping[str, list[Shown]]) -> page.Section:
    sides = f"{size.size} x {size.size}"
    train, validation, test = size.images
    distances = " ".join([*map(describe_distances, size.runs), describe_held_out(size)])
    between = "Round trips show what rounding costs, paths between two latents the faces between."
    near = (
        f"Root mean square over the pixels, from 0 to 255. {distances} Held-out faces show people "
        "of the training set, so they have near neighbors too. A sample much nearer than they are "
        "would be a copy."
    )
    blocks: list[Block] = [
        page.Text(f"{train} training, {validation} validation and {test} test faces."),
        page.Charts([condition_over_training(size)], wide=True),
        page.Table(COLUMNS, _rows(size)),
        page.Text(_table_note(size), "quiet"),
        page.Heading("Held-out faces, and samples at four temperatures"),
        page.Text("Lower temperature: cleaner faces, but less variety.", "small"),
        page.Pictures(pictures["held_out"]),
        page.Pictures(pictures["samples"]),
        page.Heading("Through the latent"),
        page.Text(between, "small"),
        page.Pictures(pictures["latent"]),
        page.Heading("Nearest training faces"),
        page.Text(near, "small"),
        page.Pictures(pictures["neighbors"]),
    ]
    return page.Section(f"size-{size.size}", f"Faces of {sides} pixels", blocks, link=sides)


def _rows(size: FacesSize) -> list[list[str | Link | None]]:
    rows: list[list[str | Link | None]] = [
        [
            Link(name_of(run), f"{run.folder}/report.html"),
            with_error(run.bits_per_dimension, run.bits_standard_error),
            significant(run.kept_condition_number),
            significant(run.round_trip_data, 2),
            f"{run.parameters:,}",
            f"{run.epochs} ({run.best_epoch})",
            f"{significant(run.time_s)} s",
        ]
        for run in size.runs
    ]
    if size.independent_bits is not None:
        rows.append(["independent pixels", fixed(size.independent_bits, 3), *[None] * 5])
    return rows


def _table_note(size: FacesSize) -> str:
    faces = count(size.plain.kept_points, "held-out face")
    return (
        "Bits: mean over held-out faces of an upper bound with one sample of the noise, counting "
        "only the numbers of the image, ± one standard error. Condition number: the median over "
        f"{faces} without padding and over {size.padded.kept_points} with padding. Round trip: "
        "data to latent and back, in standardized units. Names link to the report of the run."
    )


def name_of(run: FacesRun) -> str:
    """Returns the name of a run: "without padding", "with 1 padding channel"."""
    return f"with {count(run.padding, 'padding channel')}" if run.padding else "without padding"


def describe_size(size: FacesSize) -> str:
    """Returns a sentence on the effect of padding on the conditioning."""
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
    direction, times = ("smaller", 1 / ratio) if ratio < 1 else ("larger", ratio)
    return f"{start}: {significant(times, 2)} times {direction} with padding."


def describe_results(size: FacesSize) -> str:
    """Returns the results of all comparisons, as text."""
    plain, padded = (significant(run.round_trip_data, 2) for run in size.runs)
    return (
        f"{describe_size(size)} {describe_likelihood(size)} The largest error of a round trip is "
        f"{plain} without padding and {padded} with."
    )


def describe_likelihood(size: FacesSize) -> str:
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


def describe_distances(run: FacesRun) -> str:
    """Returns a sentence on the distances of samples to the training faces."""
    samples = f"{len(run.of_samples)} samples at temperature {run.drawn_at:g} {name_of(run)}"
    return f"{samples} are {_far(run.of_samples)}."


def describe_held_out(size: FacesSize) -> str:
    """Returns a sentence on the distances of held-out faces to the training faces."""
    return f"The {len(size.of_held_out)} held-out faces are {_far(size.of_held_out)}."


def _far(distances: Sequence[float]) -> str:
    median, least = (
        significant(value) for value in (statistics.median(distances), min(distances))
    )
    return f"{median} from their nearest training face in the median, the nearest of them {least}"


def _last(run: FacesRun) -> float | None:
    return run.curve[-1]["condition_number_median"] if run.curve else None


def _pictures(size: FacesSize, reports: Mapping[str, ImageReport]) -> dict[str, list[Shown]]:
    """Returns the pictures of a pair of runs, the run without padding on the left."""
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
        "neighbors": side_by_side(plain.neighbors.picture, padded.neighbors.picture),
    }


def _large(picture: Picture) -> Shown:
    """Returns a picture for a width of two columns, doubled if it fills at most half of it."""
    return Shown(picture, max(WIDE, 2 * picture.width if picture.width <= NARROW else 0))
