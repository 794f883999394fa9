"""Scores of a large table are measured beside others, and the page says what was found."""

import json

import pytest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Inputs to the softmax:UserWarning")
def test_a_small_benchmark_runs_end_to_end_to_its_page(benchmark, tmp_path, monkeypatch):
    """Narrow networks and few rows, one of ours and another, which is stopped at once."""
    file, module = tmp_path / "score.json", benchmark("score_stream")
    monkeypatch.setattr(module, "OURS", module.OURS[:1])
    monkeypatch.setattr(module, "KINDS", (*module.OURS, "zuko, NSF"))
    module.score_stream(rows=21_000, depth=2, width=8, at_most_s=0, file=file)
    found = json.loads(file.read_text())
    by_kind = {line["kind"]: line for line in found["lines"]}
    ours = by_kind["kappaflow score, real_nvp"]
    assert ours["whole"] and ours["rows"] == 21_000 and ours["peak_bytes"] > 0
    assert by_kind["zuko, NSF"]["rows"] == 4096 and not by_kind["zuko, NSF"]["whole"]
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-score.md").read_text()
    assert "of 21,000 rows of 10 columns" in text
    assert "zuko, NSF (4,096 rows)" in text
    assert "| kappaflow score, real_nvp |" in text


def test_the_page_says_what_the_results_say(benchmark):
    """Rows per second of the clock and of the processor, and megabytes."""
    line = {
        "kind": "a", "parameters": 1234, "rows": 5000, "whole": True, "time_s": 2.0, "cpu_s": 1.0,
        "peak_bytes": 25_000_000,
    }  # fmt: skip
    table = benchmark("score_stream").score_table([line])
    assert table.splitlines()[-1] == "| a | 1,234 | 5,000 | 2,500 | 5,000 | 25 |"


def test_a_rehearsal_tells_the_speed_of_each_quarter(benchmark):
    """Nine parts of ten rows, the last four of which take twice as long."""
    moments = [5.0, 6.0, 7.0, 8.0, 9.0, 11.0, 13.0, 15.0, 17.0]
    table = benchmark("score_stream").rehearsed_table(moments, 90).splitlines()
    assert [line.split("|")[2].strip() for line in table[2:]] == ["10", "10", "5", "5"]
