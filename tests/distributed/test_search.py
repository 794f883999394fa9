"""A model search whose models are dealt to the ranks: real processes."""

import json
from pathlib import Path

import pytest
from faults.ranks import by_torchrun
from faults.trainings import ended, started

PROGRAM = str(Path(__file__).parents[1] / "search_cases.py")


def searched(folder, launcher, count):
    """Returns what each of some ranks found."""
    folder.mkdir()
    status, message = ended(started([str(folder)], [*launcher, PROGRAM]))
    assert not status, message
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


@pytest.mark.slow
def test_four_ranks_find_what_one_does_in_fewer_steps(tmp_path, monkeypatch):
    """The choice, its figures and the winner's weights have the same bits on each of them."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # torchrun sets it
    (alone,) = searched(tmp_path / "one", [], 1)
    four = searched(tmp_path / "four", by_torchrun(4), 4)
    assert [rank["facts"] for rank in four] == [alone["facts"]] * 4
    rounds = {trial["round"] for trial in alone["facts"]["trials"]}
    assert {1, 4} < rounds and len(alone["facts"]["trials"]) == 6
    assert max(rank["steps"] for rank in four) <= 0.4 * alone["steps"]
    assert sum(rank["steps"] for rank in four) == alone["steps"]
    assert {rank["refused"] for rank in four} == {"rank 3 has no rows"}
