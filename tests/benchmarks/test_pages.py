"""The pages of the benchmarks are those of the results, and their commands exist."""

import re
import shlex

from abacus import ROOT


def test_every_command_in_the_documentation_exists(benchmark):
    """With its options: a reader can make each figure. Decisions name commands of their time."""
    app, commands = benchmark("__main__").app, benchmark("__main__").COMMANDS
    pages = {
        path: path.read_text("utf-8")
        for path in (ROOT / "docs").rglob("*.md")
        if path.parent.name != "decisions"
    }
    pages |= {name: benchmark("page").page_text(name) for name in benchmark("page").PAGES}
    command = re.compile(r"-m\s+benchmarks\s+([a-z-]+)\b(?![^`]*`\s+of\s+commit)")
    named = {name for text in pages.values() for name in command.findall(text)}
    assert "write-page" in named and named <= commands.keys()
    whole = re.compile(r"^python -m benchmarks ((?:[^\\\n]|\\\n)+)", re.MULTILINE)
    found = {line.replace("\\\n", "") for text in pages.values() for line in whole.findall(text)}
    assert len(found) > 20
    for line in found:
        app.parse_args(shlex.split(line, comments=True), exit_on_error=False, print_error=False)


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


def trained(table, seed, zero, bound, nll, steps=10):
    """Returns a line of the ablation, at one depth and learning rate."""
    key = {"table": table, "depth": 16, "rate": 1e-3, "zero": zero, "bound": bound, "seed": seed}
    return {**key, "planned": 10, "steps": steps, "validation_nll": nll, "condition_number": 3.0}


def test_options_of_the_ablation_are_paired_by_seed_without_what_broke_down(benchmark):
    """Differences of 1 and 2 on one table, of 5 and a training that broke down on another."""
    module, lines = benchmark("ablation"), []
    for table, seed, nll, steps in (("patches", 0, 1, 10), ("patches", 1, 2, 10),
                                    ("magic", 0, 5, 10), ("magic", 1, 9, 3)):  # fmt: skip
        lines.append(trained(table, seed, True, "on the sum", 100.0 * seed))
        lines.append(trained(table, seed, False, "on the sum", 100.0 * seed + nll, steps))
        lines[-1]["condition_number"] = 6.0
    row = module._compared_table(lines).splitlines()[2]
    assert "| random last layers | +1.500 ± 0.500 | +5.000 (1 broke down) | +3.250 ± 1.750" in row
    assert row.endswith("| 2.00 ×/÷ 1.00 |")
    overall = module._overall(lines, False, "on the sum", 1e-3)
    assert overall == (
        "+2.667 ± 1.202 nats, larger in 3 of 3 pairs; in 1 more a training broke down"
    )
    assert module._broken_text(lines, False, "on the sum") == "1 of 4"
