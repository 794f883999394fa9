"""The part of the fault suite that mutates files, with few of them."""

import pytest
from faults.hostile import hostile, made
from faults.loaders import KINDS


@pytest.mark.slow
def test_mutated_files_are_results_or_sentences_and_work_goes_on(tmp_path, monkeypatch):
    """Two of three kinds; asked again nothing is loaded twice, and inputs are the same ones."""
    kinds = {kind: KINDS[kind] for kind in ("config.json", "csv", "npz")}
    monkeypatch.setattr("faults.loaders.KINDS", kinds)
    results = list(hostile(long=False, seed=3, folder=tmp_path, total=6))
    assert len(results) == 3
    assert all(r.tried == r.survived == 2 and r.lost == 0 for r in results)
    done = (tmp_path / "hostile.jsonl").read_bytes()
    assert list(hostile(long=False, seed=3, folder=tmp_path, total=6)) == results
    assert (tmp_path / "hostile.jsonl").read_bytes() == done
    assert (
        made(tmp_path, "npz", 1, 3) == made(tmp_path, "npz", 1, 3) != made(tmp_path, "npz", 0, 3)
    )
