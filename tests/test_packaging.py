"""What a package says of itself is the same in each place that says it."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kappaflow

ROOT = Path(__file__).parents[1]
PART_OF = {  # packages that always come with another one, as a part of its interface
    "ipython": "ipykernel",
    "markupsafe": "jinja2",
    "pydantic-core": "pydantic",
}
SOURCE = ROOT / "src"
CONTENT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, GROUPS = CONTENT["project"], CONTENT["dependency-groups"]
HTTP_CLIENTS = {"aiohttp", "httplib2", "httpx", "niquests", "requests", "urllib3"}
EXTRAS = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name != "all"}
IN_CI = [*EXTRAS.values(), *(GROUPS[name] for name in ("dev", "docs", "bench"))]
IMPORT = re.compile(r"^ *(?:import (\w+)|from (\w+)\S* import )", re.MULTILINE)


def names(lines):
    """Returns the packages that requirements name."""
    return {canonicalize_name(Requirement(line).name) for line in lines}


def imported(path):
    """Returns the packages that a file imports, from other places than this project and Python."""
    found = set(map("".join, IMPORT.findall(path.read_text())))
    return found - set(sys.stdlib_module_names) - {"kappaflow", "kappaflow_studies"}


def test_the_citation_and_the_changelog_have_the_version():
    """A version that is raised in one place alone would be cited wrongly."""
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {kappaflow.__version__}\n" in citation
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None and newest[1] == kappaflow.__version__


def test_the_metadata_agrees_with_the_citation_and_the_oldest_python():
    """CI runs each Python that has a classifier, the oldest first; authors are those to cite."""
    minors = [
        int(line.rpartition(".")[2])
        for line in PROJECT["classifiers"]
        if line.startswith("Programming Language :: Python :: 3.")
    ]
    versions = [f"3.{minor}" for minor in minors]
    assert f"versions_check.sh --short {' '.join(versions)}\n" in (ROOT / ".ci/run").read_text()
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    people = (ROOT / "CITATION.cff").read_text().partition("references:")[0]
    cited = re.findall(r"^  - name: (.+)$", people, re.MULTILINE)
    assert [author["name"] for author in PROJECT["authors"]] == cited
    assert PROJECT["license"] == re.search(r"^license: (.+)$", people, re.MULTILINE)[1]


def test_types_are_announced():
    """Type checkers read the annotations of an installed package only where it says so."""
    for package in ("kappaflow", "kappaflow_studies"):
        assert (SOURCE / package / "py.typed").exists()


def test_all_has_every_extra():
    """`pip install 'kappaflow[all]'` leaves nothing out, whatever extra is added."""
    (line,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.search(r"\[(.*)\]", line)[1].split(",")) == set(EXTRAS)


def test_what_is_imported_is_declared():
    """A package that merely comes along with another one may be gone tomorrow."""
    optional = (line for lines in [*EXTRAS.values(), *GROUPS.values()] for line in lines)
    declared = names([*PROJECT["dependencies"], *optional])
    known = packages_distributions()
    for path in SOURCE.rglob("*.py"):
        for name in imported(path):
            came = {canonicalize_name(package) for package in known.get(name, [name])}
            came = {PART_OF.get(package, package) for package in came}
            assert came & declared, f"{path.relative_to(ROOT)} imports {name}"


def test_no_dependency_brings_an_http_client():
    """The product opens no connection, so it installs nothing that could; extras may."""
    needed, new = set(), {Requirement(line) for line in PROJECT["dependencies"]}
    while new:
        package = new.pop()
        needed.add((canonicalize_name(package.name), *sorted(package.extras)))
        for extra in ("", *package.extras):
            brought = map(Requirement, requires(package.name) or ())
            new |= {r for r in brought if r.marker is None or r.marker.evaluate({"extra": extra})}
        new = {r for r in new if (canonicalize_name(r.name), *sorted(r.extras)) not in needed}
    assert "torch" in {name for name, *_ in needed}
    assert not {name for name, *_ in needed} & HTTP_CLIENTS


def test_what_ci_installs_is_within_the_ranges():
    """A constraint that no range allows would stop an installation, a missing one is a draw."""
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    for line in [*PROJECT["dependencies"], *(line for lines in IN_CI for line in lines)]:
        requirement = Requirement(line)
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{line}, but {version}"


@pytest.mark.parametrize("name", [None, *EXTRAS, *GROUPS])
def test_the_documentation_names_each_dependency(name):
    """The page says what each is for."""
    page = (ROOT / "docs" / "dependencies.md").read_text()
    if name is None:
        table = page[: page.index("| extra |")]
        listed = set(re.findall(r"^\| ([a-z0-9-]+) \|", table, re.MULTILINE)) - {"package"}
        assert listed == names(PROJECT["dependencies"])
    else:
        (row,) = re.findall(rf"^\| {name} \| (.*) \| .* \|$", page, re.MULTILINE)
        listed = {canonicalize_name(package) for package in row.split(", ")}
        assert listed == names((EXTRAS | GROUPS)[name])
