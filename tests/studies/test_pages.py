"""The pages of experiments in the documentation say what their results say."""

import importlib.util
import json
import re
from pathlib import Path

import polars as pl
import pytest

from kappaflow_studies.catalog import STUDIES
from kappaflow_studies.engine.presets import settings_of

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def module():
    """The script that fills the pages."""
    spec = importlib.util.spec_from_file_location("experiment_pages", DOCS / "experiment_pages.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_pages_are_those_of_the_results(module):
    """Nobody has changed a number by hand, or forgotten to write the page anew."""
    pages = module.pages()
    assert pages
    for path, text in pages.items():
        assert path.read_text("utf-8") == text, f"run python docs/experiment_pages.py: {path.name}"


def test_every_figure_of_a_page_is_there(module):
    """As SVG; the page names each chart of its results."""
    for place in sorted(DOCS.glob("experiments/*/report.json")):
        text = (DOCS / "experiments" / f"{place.parent.name}.md").read_text("utf-8")
        figures = sorted(path.stem for path in place.parent.glob("figures/*.svg"))
        assert figures
        for name in figures:
            assert f"({place.parent.name}/figures/{name}.svg)" in text


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_stored_results_give_the_stored_numbers_and_charts(study):
    """A renamed column of results would silently remove a finding."""
    folder = DOCS / "experiments" / study.name
    settings = settings_of(study, "full", folder / "config.json")
    findings = study.findings(pl.read_parquet(folder / "results.parquet"), settings)
    stored = json.loads((folder / "report.json").read_text("utf-8"))["findings"]
    assert [numbers(text) for text in findings.found] == [numbers(t) for t in stored["found"]]
    assert [chart.name for chart in findings.charts] == [one["name"] for one in stored["charts"]]


def numbers(text):
    """Returns the numbers in a sentence."""
    return re.findall(r"\d[\d,.]*", text)
