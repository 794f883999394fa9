"""The pages of experiments in the documentation say what their results say."""

import importlib.util
from pathlib import Path

import pytest

from kappaflow_studies.catalog import STUDIES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def module():
    """The script that fills the pages."""
    spec = importlib.util.spec_from_file_location("experiment_pages", DOCS / "experiment_pages.py")
    result = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(result)
    return result


def test_the_pages_are_those_of_the_results(module):
    """They are those that the script writes.

    A renamed column of results would silently remove a finding.
    """
    pages = module.pages(module.reports())
    assert len(pages) > 2 * len(STUDIES)
    for path, text in pages.items():
        assert path.read_text("utf-8") == text, f"run python docs/experiment_pages.py: {path.name}"


def test_every_figure_of_a_page_is_there(module):
    """As SVG; the page names each chart of its results."""
    for folder in sorted(DOCS.glob("experiments/*/report.json")):
        text = (DOCS / "experiments" / f"{folder.parent.name}.md").read_text("utf-8")
        figures = sorted(path.stem for path in folder.parent.glob("figures/*.svg"))
        assert figures
        for name in figures:
            assert f"({folder.parent.name}/figures/{name}.svg)" in text
