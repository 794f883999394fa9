"""The benchmark of converted flows runs end to end, and its page says what the results say."""

import json

import pytest


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
