"""Two machines, each with a network of its own, that train one flow."""

import pytest
from faults.cables import pull
from faults.machines import Machine, can_part
from faults.ranks import ROWS, both_losses, finish, same
from faults.trainings import write_rows


@pytest.mark.slow
def test_two_machines_come_to_the_losses_of_one_process(tmp_path, monkeypatch):
    """And where no cable is pulled, none counts as survived: nobody has reported why it ends."""
    if not can_part(tmp_path / "probe"):
        pytest.skip("no machines can be made here")
    monkeypatch.setattr(Machine, "pull", lambda _: None)
    data = write_rows(tmp_path / "rows.csv", ROWS)
    finish(data, tmp_path / "whole", count=1)
    result = pull(tmp_path / "run", "0", data=data, whole=tmp_path / "whole")
    assert same(both_losses(tmp_path / "run"), both_losses(tmp_path / "whole"))
    assert "another rank" not in result.message and not result.survived and not result.lost
