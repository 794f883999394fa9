"""The gain of a longer training next to the gain that KF506 measures."""

import json

import numpy as np


def test_the_gains_of_both_trainings_are_reported(
    benchmark, monkeypatch, tmp_path, capsys, ticking
):
    """The file has the epochs of the shorter training; the table has the gains."""
    command, data = benchmark("cut_short"), benchmark("tables_suite.data")
    rows = np.random.default_rng(0).normal(size=(300, 2))
    parts = data.Parts(rows[:200], rows[200:250], rows[250:], ("a", "b"))
    monkeypatch.setattr(command, "load", lambda name: parts)
    ticking(0.01)
    command.cut_short(seconds=0.5, only=("normal",), file=tmp_path / "found.json")
    (line,) = json.loads((tmp_path / "found.json").read_text())
    nll = line["nll"]
    assert line["table"] == "normal" and len(nll) >= 2 and line["stopped"]
    last = max(1, round(0.4 * len(nll)))
    gain = min(nll[:-last]) - min(nll)
    assert capsys.readouterr().out.strip().endswith(f"{gain:.3f} | {line['longer']:.3f} |")
    assert np.isfinite(line["longer"])
