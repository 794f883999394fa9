"""The pages of the benchmarks are those of the results, and their commands exist."""

import re

from abacus import ROOT


def test_every_command_in_the_documentation_exists(benchmark):
    """So a reader can make each figure; decisions name commands of their time."""
    commands = benchmark("__main__").COMMANDS
    pages = {
        path: path.read_text("utf-8")
        for path in (ROOT / "docs").rglob("*.md")
        if path.parent.name != "decisions"
    }
    pages |= {name: benchmark("page").page_text(name) for name in benchmark("page").PAGES}
    command = re.compile(r"-m\s+benchmarks\s+([a-z-]+)\b(?![^`]*`\s+of\s+commit)")
    named = {name for text in pages.values() for name in command.findall(text)}
    assert "write-page" in named and named <= commands.keys()


def test_the_rows_of_a_missing_library_are_left_out_with_a_line(benchmark, monkeypatch, capsys):
    """The line says what to install."""
    suite, rows = benchmark("suite"), benchmark("row")
    monkeypatch.setattr(rows.Row, "installed", property(lambda row: row.package == "kappaflow"))
    present = suite._present_rows("speed", None)
    assert {row.package for row in present} == {"kappaflow"}
    message = capsys.readouterr().err
    assert "zuko is not installed" in message
    assert "pip install --group bench" in message


def test_the_page_in_the_docs_is_that_of_the_committed_results(benchmark):
    """If this fails, run python -m benchmarks write-page; Sphinx writes the others."""
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    assert benchmark("page").page_text("benchmarks.md") == text
