"""The page says what the results say."""

import json

from abacus import MACHINE, ROOT


def line(fault, tried, survived, **others):
    """A row of the results."""
    row = {"fault": fault, "unit": "kills", "tried": tried, "survived": survived, "lost": 0}
    return {"part": "kills", "date": "2026-01-02", **row, "recovery_s": None, **others}


def test_the_page_has_the_newest_row_of_each_fault(part, tmp_path):
    """With the dates and the machine."""
    lines = [
        {"machine": MACHINE},
        line("a", 3, 1),
        line("a", 1200, 1199, lost=1, recovery_s=2.34, date="2026-01-05"),
        line("b", 4, 4),
    ]
    file = tmp_path / "outcomes.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    text = part("page").page(file)
    assert "| a | 1,200 kills | 1,199 | 1 | 2.3 |\n| b | 4 kills | 4 | 0 |  |" in text
    assert "Between 2026-01-02 and 2026-01-05, on:" in text and "- An abacus, 2 cores" in text


def test_the_page_in_the_docs_is_what_the_kept_results_say(part):
    """Nobody edits it by hand."""
    page = part("page")
    assert (ROOT / "docs" / "reliability.md").read_text("utf-8") == page.page(page.RESULTS)
