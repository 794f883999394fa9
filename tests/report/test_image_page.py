"""The page of a report on a flow of images."""

import base64
import json

import numpy as np
import pytest
from pydantic import ValidationError
from tests.report.examples import EVIL, INF, NAN, Page, build_report, changed

from kappaflow.diagnosis import Comparison
from kappaflow.errors import FileError
from kappaflow.images.report import ImageCharts, ImageReport
from kappaflow.images.samples import grid
from kappaflow.report.files import from_json, read_report, render, store_report, to_json
from kappaflow.report.pictures import NARROW, Picture, Shown, encoded
from kappaflow.report.result import HeldOut, Likelihood

SECTIONS = [
    "samples", "latent-section", "findings", "about", "curves", "likelihood", "depth",
    "glossary", "settings",
]  # fmt: skip


def picture(down, columns, *, side=8, channels=1, **words):
    """Returns a picture of random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (down * columns, channels, side, side), np.uint8)
    content = {"title": "A picture", "alt": "what it shows", "caption": "what to look for"}
    content |= {"columns": columns, "png": encoded(grid(images, columns))}
    return Picture(**(content | words))


@pytest.fixture(scope="module")
def make():
    """Returns a function that makes a report on images; keywords replace its parts."""

    def build(*, side=8, channels=1, **parts):
        plain = build_report(columns=2, epochs=6)
        values = {"side": side, "channels": channels}
        bits = {"train_bits_per_dimension": 2.5, "validation_bits_per_dimension": 2.6}
        held_out = HeldOut(
            kind="images",
            likelihood="bound",
            test=Likelihood(
                name="test",
                rows=180,
                bits_per_dimension=2.2314,
                bits_standard_error=0.0213,
                nll=99.12,
                standard_error=0.95,
                quantiles={"median": 2.2, "p95": 2.7, "max": 3.4},
            ),
            references=[Comparison("independent pixels", 1, False, 180, 2.408, 2.408, -0.2, 0.1)],
        )
        result = plain.result.model_copy(update=dict(held_out))
        report = ImageReport(
            about=plain.about,
            curves=[{**curve, **bits} for curve in plain.curves],
            best_epoch=5,
            result=result,
            charts=ImageCharts(
                held_out=picture(8, 8, title="Held-out images", **values),
                samples=[
                    picture(8, 8, title=f"Temperature {t}", **values) for t in (0.5, 0.7, 0.8, 1.0)
                ],
                reconstructions=picture(2, 8, rows=["image", "back"], **values),
            ),
            profile=plain.profile,
        )
        return changed(report, **parts)

    return build


@pytest.fixture(scope="module")
def usual(make):
    """The page of the usual report."""
    return Page(render(make()))


def test_the_sections_stand_in_the_order_of_reading(usual):
    """The verdict comes first, then the samples."""
    assert [a["id"] for tag, a in usual.tags if tag == "section"] == SECTIONS
    links = [a["href"] for tag, a in usual.tags if tag == "a"]
    ids = {a.get("id") for _, a in usual.tags}
    assert links and all(link.removeprefix("#") in ids for link in links)


def test_the_headline_is_in_bits_next_to_those_of_independent_pixels(usual):
    """With its standard error; the table repeats it with the quantiles."""
    text = usual.words
    top = text.partition("Findings of the doctor")[0]
    assert "2.231 ± 0.021" in top and "2.41 with independent pixels" in top
    assert "99.12 ± 0.95" in top
    assert "2.408" in text and "3.400" in text


def test_every_picture_is_in_the_page_with_a_description(usual, make):
    """Pictures are PNG files in data URIs, and each figure has a caption."""
    report = make()
    pictures = [a for tag, a in usual.tags if tag == "img"]
    assert len(pictures) == 1 + 4 + 1
    assert all(a["src"].startswith("data:image/png;base64,") and a["alt"] for a in pictures)
    assert pictures[1]["src"].endswith(
        report.charts.samples[-1].png
    )  # temperature 1 next to the data
    for a in pictures:
        content = base64.b64decode(a["src"].partition(",")[2])
        assert content.startswith(b"\x89PNG")


@pytest.mark.parametrize("value", [NAN, INF, 1e300])
def test_numbers_that_are_not_finite_do_not_break_the_page(make, value):
    """The page says that they are not finite, and its figures are JSON."""
    report = make()
    profile = report.profile.model_dump()
    spoilt = {
        name: {k: [value] * len(v) for k, v in table.items()}
        if isinstance(table, dict) and isinstance(table["min"], list)
        else table
        for name, table in profile.items()
    }
    test = report.result.test.model_copy(
        update={"bits_per_dimension": value, "bits_standard_error": value, "nll": value}
    )
    curves = [{key: None for key in curve} | {"epoch": 1} for curve in report.curves]
    page = Page(render(make(profile=spoilt, test=test, curves=curves)))
    assert page.figures
    if value != 1e300:
        assert " ".join(page.text).count("not finite") > 8


def test_a_flow_of_real_pixels_has_nats_instead_of_bits(make):
    """In the headline and in the table."""
    values = {"bits_per_dimension": None, "bits_standard_error": None}
    test = make().result.test.model_copy(update=values)
    text = " ".join(Page(render(make(test=test, references=[]))).text)
    assert "treats pixels as real numbers" in text
    assert "Held-out bits per dimension" not in text and "independent" not in text


def test_names_with_script_tags_stay_text(make):
    """Names of classes, titles and captions never become markup."""
    hostile = picture(2, 2, title=EVIL, alt=EVIL, caption=EVIL, rows=[EVIL] * 2)
    page = Page(render(make(held_out=hostile, samples=[hostile], verdict=EVIL)))
    assert sum(tag == "script" for tag, _ in page.tags) == 4
    assert sum(tag == "img" for tag, _ in page.tags) == 3


@pytest.mark.parametrize("text", ["", 'x" onload="alert(1)', "aGVsbG8=", "iVBORw0KGgo="])
def test_only_pictures_get_into_a_page(text):
    """A damaged report.json is refused, and its text cannot leave an attribute."""
    with pytest.raises(ValidationError, match="PNG"):
        picture(1, 1, png=text)


def test_pixels_stay_squares_where_they_are_enlarged():
    """A whole factor enlarges them; large images keep their size, and are smoothed if shrunk."""
    small, large = picture(8, 8), picture(8, 8, side=64, channels=3)
    assert (small.width, small.height) == (71, 71)
    assert Shown(small, NARROW).width == 284 and Shown(small, NARROW).is_enlarged
    assert Shown(large, NARROW).width == 519 and not Shown(large, NARROW).is_enlarged


def test_a_report_reads_back_unchanged(make, tmp_path):
    """With numbers and pictures, from which alone the page is made."""
    report = make()
    page = store_report(report, tmp_path)
    assert read_report(tmp_path) == report
    assert page.read_text(encoding="utf-8") == render(report)
    assert from_json(to_json(report)) == report
    content = json.loads((tmp_path / "report.json").read_text())
    content["charts"]["samples"][0]["png"] = "AAAA"
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(FileError, match="samples.0.png"):
        read_report(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "side", "channels"), [("light", 8, 1), ("dark", 64, 3)])
def test_the_page_opens_in_a_browser_and_fits_its_width(make, open_page, scheme, side, channels):
    """All pictures are shown, sharp where enlarged, and nothing runs over the edge."""
    html = render(make(side=side, channels=channels))
    for width in (380, 900, 1280):
        page = open_page(html, width=width, scheme=scheme)
        sizes = page.evaluate(
            "Array.from(document.images).map(i => [i.naturalWidth, i.clientWidth,"
            " getComputedStyle(i).imageRendering])"
        )
        assert len(sizes) == 6
        for natural, shown, rendering in sizes:
            assert natural > 0 and 0 < shown <= width
            assert rendering == ("pixelated" if natural <= 230 else "auto")
