"""Trainings shared by processes that torchrun started: real ones."""

import json
from pathlib import Path

import pytest
import torch
from faults.ranks import ended, started

from kappaflow.storage import read_tensors
from kappaflow.training import read_metrics
from rank_cases import CASES, outcome

ROOT = Path(__file__).parents[2]
EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A folder in which each of two ranks has written what it came to, and what they printed."""
    folder = tmp_path_factory.mktemp("together")
    status, said = ended(started(2, [str(ROOT / "tests" / "rank_cases.py"), str(folder)]))
    assert not status, said
    return folder, said


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_come_to_what_one_process_does(together, name):
    """Gradients, weights, losses and skipped steps; and both ranks have the same bits."""
    number = list(CASES).index(name)
    one, other = (read_tensors(together[0] / f"{number}-{rank}.safetensors")[0] for rank in (0, 1))
    alone = outcome(CASES[name]())
    assert set(one) == set(alone) == set(other)
    for key, value in alone.items():
        assert torch.equal(one[key], other[key]), key
        allowed = EXACT if name != "bfloat16" else {"rtol": 0.05, "atol": 0.05}
        torch.testing.assert_close(one[key], value, **allowed, msg=key)
    if name == "a row that is not finite":
        assert one["skipped_steps"].tolist() == [1, 2]
    else:
        assert one["skipped_steps"].sum() == 0


def test_the_first_rank_writes_and_speaks(together):
    """Callbacks are told once, a finished run is the same on all, refusals are one sentence."""
    folder, said = together
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["epochs told"], second["epochs told"]) == (2, 0)
    assert first["again"] and second["again"]
    assert len(read_metrics(folder / "run")) == 2
    assert first["refused"] == second["refused"]
    assert set(first["refused"]) == {"condition_budget", "device", "fit_energy", "out"}
    assert "Warning" not in said, said
