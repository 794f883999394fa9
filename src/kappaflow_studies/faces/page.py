"""The results of the study on faces, as sentences, charts, tables and a page."""

import statistics
from collections.abc import Sequence

from kappaflow.report import page
from kappaflow.report.charts import DATA, SAMPLES, Chart, line
from kappaflow.report.numbers import as_float, count, fixed, is_finite, significant, with_error
from kappaflow.report.pictures import Picture, Shown
from kappaflow_studies.engine.charts import panel
from kappaflow_studies.engine.report import StudyFindings, StudyTable, render_findings
from kappaflow_studies.faces.results import FacesReport, FacesRun, FacesSize

QUANTILES = (
    ("condition_number_median", "median", "line"),
    ("condition_number_p95", "95 %", "dashed"),
)
ALIKE_RATIO = 1.1  # ratio of condition numbers below which they count as about the same
ABOUT = (
    "For each size, the same flow is trained twice with the same settings and seed: on the images "
    "alone, and with added channels of Gaussian noise. Small differences may be chance."
)
COPIES = (
    "Root mean square over the pixels, from 0 to 255. Held-out faces show people of the training "
    "set, so they have near neighbors too. A sample much nearer than they are would be a copy."
)
WIDTH = 720  # CSS pixels of a picture


def findings_of(report: FacesReport) -> StudyFindings:
    """Returns the sentences, the charts and the tables."""
    return StudyFindings(
        found=[describe_results(size) for size in report.sizes],
        differs=[],
        charts=[condition_over_training(size) for size in report.sizes],
        tables=[_table(size) for size in report.sizes],
    )


def render_faces(report: FacesReport, pictures: Sequence[str]) -> str:
    """Returns the page of the study, with a picture of samples (PNG in base64) for each size."""
    pairs = zip(report.sizes, pictures, strict=True)
    return render_findings(
        findings_of(report),
        command="kappaflow reproduce faces",
        title="A Glow of faces, with and without padding",
        intro=[page.Text(ABOUT)],
        numbers="report.json",
        settings=("The reports of the runs have all settings.", report.settings),
        sections=[_samples_section(size, picture) for size, picture in pairs],
    )


def condition_over_training(size: FacesSize) -> Chart:
    """Returns the median and the 95 % quantile of both trainings of a size."""
    series = []
    for run, tone in zip(size.runs, (DATA, SAMPLES), strict=True):
        x = [point["epoch"] for point in run.curve]
        for key, quantile, kind in QUANTILES:
            y = [point[key] for point in run.curve]
            series.append(line(f"{name_of(run)}, {quantile}", x, y, tone, kind=kind))
    return Chart(
        name=f"condition-{size.size}",
        title=f"Condition number over training, {size.size} x {size.size}",
        caption="From the standardized channels, padding included, to the latent, at a few "
        "validation faces with the averaged weights of the epoch.",
        panels=[panel("", "epoch", "condition number", series, log="y")],
        columns=1,
    )


def _table(size: FacesSize) -> StudyTable:
    rows = [
        [
            name_of(run),
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
        rows.append(["independent pixels", fixed(size.independent_bits, 3), *[""] * 5])
    return StudyTable(
        title=f"Faces of {size.size} x {size.size} pixels",
        columns=[
            "flow", "bits per dimension", "condition number, kept weights", "largest round trip",
            "parameters", "epochs (kept)", "time",
        ],
        rows=rows,
        caption=_table_note(size),
    )  # fmt: skip


def _samples_section(size: FacesSize, png: str) -> page.Section:
    """Returns the picture of a size, the distances of its samples, and links to its runs."""
    name = f"{size.size} x {size.size}"
    picture = Picture(
        title="",
        alt=f"Held-out faces of {name} pixels, samples without padding, samples with padding.",
        caption="Held-out faces, samples without padding, and samples with padding.",
        columns=1,
        png=png,
    )
    distances = " ".join([*map(describe_distances, size.runs), describe_held_out(size)])
    links = [
        page.Text(page.Link(f"The run {name_of(run)}", f"{run.folder}/report.html"), "small")
        for run in size.runs
    ]
    blocks = [page.Pictures([Shown(picture, WIDTH)]), page.Text(f"{distances} {COPIES}"), *links]
    return page.Section(f"samples-{size.size}", f"Samples of {name} pixels", blocks)


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
    if max(ratio, 1 / ratio) < ALIKE_RATIO:
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
    return as_float(run.curve[-1]["condition_number_median"]) if run.curve else None
