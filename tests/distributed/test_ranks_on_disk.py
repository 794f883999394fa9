"""Trainings on a table on disk, shared by processes that torchrun started: real ones."""

import pytest
from faults.ranks import ROWS, both_losses, same, started_by, words
from faults.trainings import ended, write_rows

EPOCHS = 6


def on_disk(data, run):
    """Returns a short training on a table on disk."""
    return [*words(data, run, EPOCHS), "--on-disk", "--model", "real_nvp"]


@pytest.mark.slow
def test_two_ranks_read_one_file_to_the_losses_of_one(tmp_path):
    """Up to rounding; the notes are reported once, and no rows are left."""
    data = write_rows(tmp_path / "rows.csv", ROWS)
    for count in (1, 2):
        status, message = ended(started_by(count, on_disk(data, tmp_path / f"{count}")))
        assert not status, message
        assert message.count("rows held out in memory") == 1 and "Warning" not in message, message
    assert same(both_losses(tmp_path / "1"), both_losses(tmp_path / "2"))
    assert len(both_losses(tmp_path / "2")) == EPOCHS
    names = [sorted(path.name for path in (tmp_path / item).iterdir()) for item in "12"]
    assert names[0] == names[1] and "rows" not in names[1]


@pytest.mark.slow
def test_what_is_wrong_with_a_table_ends_all_ranks(tmp_path):
    """With the sentence of one process."""
    data = write_rows(tmp_path / "rows.csv", ROWS)
    data.write_text(data.read_text() + "1,,3\n")
    status, message = ended(started_by(2, on_disk(data, tmp_path / "run")))
    assert status and "should hold finite numbers, line 1502 has NaN" in message, message
    assert not (tmp_path / "run").exists()
