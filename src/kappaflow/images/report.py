"""The report on a flow of images: its content and its page."""

from typing import Annotated

from pydantic import Field

from kappaflow.conditioning import ProfileQuantiles
from kappaflow.report.conditioning import conditioning_figures
from kappaflow.report.content import Report
from kappaflow.report.general import joint_note, nll_figure, report_page
from kappaflow.report.numbers import count, fixed, is_finite, with_error
from kappaflow.report.page import KeyFigure, Page, Pictures, Section, Text, TextTable
from kappaflow.report.pictures import NARROW, WIDE, Picture, Shown
from kappaflow.report.result import Result
from kappaflow.results import Part

LARGEST_NARROW = 2 * NARROW // 3  # pixels; wider sheets are placed two in a row
ROOM_OF_LABELS = 60  # CSS pixels of the labels next to the rows of a sheet


class ImageCharts(Part):
    """What only the page of a flow of images draws."""

    held_out: Picture  # some of these images, in the same grid as the samples
    # Grids of samples, one for each temperature
    samples: Annotated[list[Picture], Field(min_length=1)]
    reconstructions: Picture  # held-out images above, their reconstructions from the latents below


ImageReport = Report[ImageCharts]


def image_page(report: ImageReport, *, alone: bool) -> Page:
    """Returns the page of a report on a flow of images, with its pictures inside."""
    result = report.result
    return report_page(
        report,
        alone=alone,
        figures=[*_likelihood_figures(result), *conditioning_figures(report.profile)],
        likelihood=_likelihood_section(report),
        where=_where(report.profile),
        first=[_samples_section(report), _latent_section(report.charts)],
        note=joint_note(result, "an image"),
        terms=TERMS,
    )


def pixel_bits(result: Result) -> float | None:
    """Returns the bits per dimension with independent pixels; None for a flow without bits."""
    return result.references[0].nll if result.references else None


def _likelihood_figures(result: Result) -> list[KeyFigure]:
    part = result.test
    nll = nll_figure(result, "image")
    if part.bits_per_dimension is None:
        return [nll]
    bits = KeyFigure(
        "Held-out bits per dimension",
        with_error(part.bits_per_dimension, part.bits_standard_error),
        "bits",
        f"{fixed(pixel_bits(result), 2)} with independent pixels; lower is better",
        is_finite(part.bits_per_dimension),
    )
    return [bits, nll]


def _samples_section(report: ImageReport) -> Section:
    sheets = [report.charts.held_out, *reversed(report.charts.samples)]
    is_narrow = max(sheet.width for sheet in sheets) <= LARGEST_NARROW
    shown = [Shown(sheet, NARROW if is_narrow else WIDE) for sheet in sheets]
    text = (
        "Samples of the flow at several temperatures, and "
        f"{report.about.held_out('images')}. A lower temperature samples closer to the mode: "
        "cleaner images, but less variety."
    )
    pictures = Pictures(shown, columns=3 if is_narrow else 2)
    return Section("samples", "Samples and held-out images", [Text(text), pictures], "Samples")


def _latent_section(charts: ImageCharts) -> Section:
    text = (
        "Each image has one latent and each latent has one image. A round trip shows what "
        "rounding costs."
    )
    pictures = Pictures([Shown(charts.reconstructions, WIDE - ROOM_OF_LABELS)], columns=1)
    return Section("latent-section", "Through the latent", [Text(text), pictures])


def _where(profile: ProfileQuantiles) -> str:
    has_logit = profile.layers[0].endswith(" Logit")
    return f"held-out images, from the {'pixels' if has_logit else 'standardized channels'} on"


def _likelihood_section(report: ImageReport) -> Section:
    result = report.result
    images = report.about.held_out(count(result.test.rows, "image"))
    blocks = [
        Text(_likelihood_text(result, images)),
        _likelihood_table(result),
        Text(_likelihood_note(result), style="quiet"),
    ]
    return Section("likelihood", "Held-out likelihood", blocks, link="Likelihood")


def _likelihood_text(result: Result, images: str) -> str:
    if result.test.bits_per_dimension is not None:
        return (
            f"The bits that the flow needs for each number of an image, on average over {images}. "
            "Lower is better. The table compares it with independent pixels: a code that knows "
            "how often each value occurs at each place among the training images, and nothing "
            "about how pixels depend on each other."
        )
    if result.is_joint:
        return (
            "This flow has no likelihood, because its padding has no density. The table shows "
            "minus the logarithm of the joint density of an image and its padding, in nats, over "
            f"{images}. A flow can lower it without bound by squeezing the padding, so do not "
            "compare it with any other number."
        )
    return (
        f"The negative log-likelihood of {images}, in nats per image. This flow treats pixels as "
        "real numbers, so it has no bits per dimension."
    )


def _likelihood_table(result: Result) -> TextTable:
    part = result.test
    unit, mean, error = "Nats per image", part.nll, part.standard_error
    if part.bits_per_dimension is not None:
        unit, mean, error = "Bits per dimension", part.bits_per_dimension, part.bits_standard_error
    quantiles = [fixed(part.quantiles.get(key), 3) for key in ("median", "p95", "max")]
    rows: list[list[str | None]] = [["the flow", with_error(mean, error), *quantiles]]
    for reference in result.references:
        name = f"for comparison: {reference.name}"
        rows.append([name, fixed(reference.nll, 3), None, None, None])
    return TextTable((unit, "Mean", "Median image", "95 % quantile", "Worst image"), rows)


def _likelihood_note(result: Result) -> str:
    texts = ["± is one standard error over the images."]
    bits_per_dimension, padding = result.test.bits_per_dimension, result.padding
    noise = ["the pixels"] if bits_per_dimension is not None else []
    noise += ["the padding"] if padding else []
    if noise and not result.is_joint:
        bits = " on the bits" if bits_per_dimension is not None else ""
        texts.append(
            f"Each image gets one sample of the noise in {' and in '.join(noise)}, so the mean is "
            f"that of an upper bound{bits}."
        )
    if padding:
        were = "was" if padding.features == 1 else "were"
        texts.append(
            f"{count(padding.features, 'channel')}, {padding.description}, {were} added to each "
            "image. Only the numbers of the image count as dimensions."
        )
    return " ".join(texts)


TERMS = ("Bits per dimension", "Temperature", "Dequantized", "Scale")
