"""What a package says of itself is the same in each place that says it."""

import re
import tomllib
from pathlib import Path

import kappaflow

ROOT = Path(__file__).parents[1]


def test_the_citation_and_the_changelog_have_the_version():
    """A version that is raised in one place alone would be cited wrongly."""
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {kappaflow.__version__}\n" in citation
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None and newest[1] == kappaflow.__version__


def test_types_are_announced():
    """Type checkers read the annotations of an installed package only where it says so."""
    assert (Path(kappaflow.__file__).parent / "py.typed").exists()


def test_all_has_every_extra_that_users_meet():
    """`pip install 'kappaflow[all]'` leaves nothing out, whatever extra is added."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (line,) = extras["all"]
    named = set(re.search(r"\[(.*)\]", line)[1].split(","))
    assert set(extras) - named - {"all"} <= {"tune", "zuko"}
    assert set(extras["zuko"]) <= set(extras["bench"])
