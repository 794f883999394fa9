"""Every Python block of the documentation runs, page by page, in the order of the page."""

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
    if "```python" in page.read_text("utf-8") and page.name != "rules.md"  # each of its own, there
]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NEEDS = {"converting.md": "nflows", "distributions.md": "sbi", "scikit-learn.md": "sklearn"}
# What a page has in front of its first block, for the shell.
BEFORE = {"command-line.md": re.compile(r"^(?:python -c|kappaflow factor) .*$", re.MULTILINE)}
EPOCHS = re.compile(r"max_epochs=\d+")


def blocks_of(page):
    """Returns the code of a page, a line for each of the page; trainings take one epoch."""
    text, found, line = page.read_text("utf-8"), [], 0
    for match in BLOCK.finditer(text):
        start = text.count("\n", 0, match.start(1))
        found.append("\n" * (start - line) + EPOCHS.sub("max_epochs=1", match[1]))
        line = start + match[1].count("\n")
    return "".join(found)


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
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("document", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(document, tmp_path):
    """In a folder of their own, as a reader would run them: errors name the line of the page."""
    pytest.importorskip(NEEDS.get(document.name, "torch"))
    if document.name in BEFORE:
        for command in BEFORE[document.name].findall(document.read_text("utf-8"))[:2]:
            run(command, tmp_path)
    code = tmp_path / document.with_suffix(".py").name
    code.write_text(blocks_of(document), "utf-8")
    run([sys.executable, "-W", "ignore", code], tmp_path)


def test_blocks_keep_the_lines_of_their_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n\n```python\nx = 1\n```\n\nb\n\n```python\nfit(max_epochs=20)\n```\n")
    assert blocks_of(page).splitlines()[3] == "x = 1"
    assert blocks_of(page).splitlines()[9] == "fit(max_epochs=1)"
    assert len(PAGES) > 10
