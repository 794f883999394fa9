"""The benchmark of converted flows runs end to end, and its page says what the results say."""

import json

import pytest

RESULTS = {
    "preset": "minutes",
    "machine": None,
    "rows": {"zuko RealNVP": "what it is"},
    "lines": [
        {
            "part": "times",
            "row": "zuko RealNVP",
            "shape": {"features": 16, "depth": 8, "batch": 512},
            "repetitions": 15,
            "ratio": 0.456,
            "low": 0.44,
            "high": 0.47,
        },
        {
            "part": "errors",
            "row": "zuko RealNVP",
            "shape": {"features": 16, "depth": 8, "batch": 512},
            "original": 7.6e-6,
            "converted": 5.4e-6,
            "float64": 2.1e-14,
            "least": -47.6,
        },
        *(
            {
                "part": "memory",
                "row": "zuko RealNVP",
                "shape": {"features": 16, "depth": 8, "batch": 512},
                "kind": kind,
                "peak_bytes": peak,
            }
            for kind, peak in (("original", 10_000_000), ("converted", 2_500_000))
        ),
    ],
}


def test_the_page_says_what_the_results_say(benchmark, tmp_path):
    """Ratios, quartiles and sizes, and what was built."""
    (tmp_path / "converting.json").write_text(json.dumps(RESULTS))
    page = tmp_path / "benchmarks-converting.md"
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = page.read_text()
    assert "| zuko RealNVP | 16 | 8 | 0.46 | 0.44 - 0.47 | 0.25 | 10.0 | 2.5 |" in text
    assert "| zuko RealNVP | what it is |" in text and "8e-06 nats" in text
    assert "5e-06 in the converted flows" in text and "within 2e-14 nats" in text
    assert "zuko RealNVP, 16 features, 8 couplings, where\nlog_prob goes down to -48" in text


@pytest.mark.slow
def test_the_command_measures_and_writes(benchmark, tmp_path):
    """Two couplings of four features, twice, of one library."""
    file, rows = tmp_path / "converting.json", ["zuko RealNVP"]
    benchmark("converting").converting(
        features=[4], depths=[2], rows=rows, repetitions=2, file=file
    )
    lines = json.loads(file.read_text())["lines"]
    assert {line["row"] for line in lines} == set(rows)
    times = [line for line in lines if line["part"] == "times"]
    assert times and all(line["ratio"] > 0 for line in times)
    errors = [line for line in lines if line["part"] == "errors"]
    assert len(errors) == len(times)
    assert all(line["float64"] < 1e-11 and 0 < line["converted"] < 1e-4 for line in errors)
    assert {line["kind"] for line in lines if line["part"] == "memory"} == {
        "original",
        "converted",
    }
