"""Names with markup, in each page that a command writes, in a real browser."""

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.report.conftest import CHROMIUM

from kappaflow.cli.app import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium; set KAPPAFLOW_CHROMIUM"),
]

# No "/": they are names of files and folders too.
RUNS = "document.documentElement.dataset.ran=1"
NAMES = (
    f"<img src=x onerror={RUNS}>",
    f'"><svg onload={RUNS}>',
    f"'-{RUNS}-'<script>{RUNS}",
    f"<a href=javascript:{RUNS}>%{{x}} $\\href{{javascript:{RUNS}}}{{x}}$",
    "$x_$",
)
SMALL = ["--depth", "2", "--hidden", "4", "--max-epochs", "2", "--quiet"]


@pytest.fixture
def hostile_table(tmp_path):
    """Returns a table with markup in the names of its columns and its file."""
    numbers = np.random.default_rng(0).normal(size=(300, len(NAMES))).round(4)
    path = tmp_path / f"{NAMES[0]}.csv"
    pl.DataFrame(numbers, schema=list(NAMES)).write_csv(path)
    return path


@pytest.fixture
def shows(open_page):
    """Returns a function that opens a page, hovers over its charts and returns its HTML."""

    def show(path):
        page = open_page(path.read_text(encoding="utf-8"))
        for box in page.locator("[data-figure]").all():
            box.hover()  # draws the labels
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.dataset.ran") is None
        assert page.locator("a[href^='javascript'], [onerror], [onload], svg a").count() == 0
        return page.content()

    return show


def test_the_report_of_a_table(hostile_table, tmp_path, shows):
    """Names of columns are in tables, in titles of figures and in their labels."""
    run = tmp_path / "run"
    fit = ["fit", str(hostile_table), "--out", str(run), "--model", "real_nvp", *SMALL]
    assert main(fit) == 0
    shown = shows(run / "report.html")
    assert "&lt;img src=x" in shown and "%{x}" in shown
    assert main(["doctor", str(run), "--out", str(tmp_path / "doctor.html")]) == 0
    shows(tmp_path / "doctor.html")


def test_the_page_of_a_tradeoff(hostile_table, tmp_path, shows):
    """Its title has the name of the table."""
    tradeoff = ["tradeoff", str(hostile_table), "--out", str(tmp_path / "many"), "--couplings"]
    small = ["2", "--budgets", "100", "--hidden", "4", "--max-epochs", "2", "--quiet"]
    assert main([*tradeoff, *small]) == 0
    shown = shows(next((tmp_path / "many").glob("*.html")))
    assert "&lt;img src=x" in shown


def test_the_report_of_images(tmp_path, shows):
    """Classes are the names of folders."""
    rng, folder = np.random.default_rng(0), tmp_path / f"{NAMES[1]} images"
    for name in NAMES[:2]:
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    fit = ["fit", str(folder), "--out", str(tmp_path / "run"), "--model", "glow", "--by-class"]
    small = ["--levels", "1", "--steps", "1", "--hidden", "4", "--max-epochs", "1", "--quiet"]
    assert main([*fit, *small]) == 0
    shown = shows(tmp_path / "run" / "report.html")
    assert "&lt;img src=x" in shown and "&lt;svg onload" in shown


def test_the_page_of_factors(tmp_path, shows):
    """Its title has the name of the file."""
    matrix = tmp_path / f"{NAMES[0]}.npy"
    np.save(matrix, np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0])
    page = tmp_path / "factors.html"
    assert main(["factor", str(matrix), "--report", str(page)]) == 0
    assert "&lt;img src=x" in shows(page)
