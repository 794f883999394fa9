"""Trainings on a table on disk, shared by processes that torchrun started: real ones."""

import os
import socket
import subprocess
import sys

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
    names = [sorted(path.name for path in (tmp_path / one).iterdir()) for one in "12"]
    assert names[0] == names[1] and "rows" not in names[1]


@pytest.mark.slow
def test_what_is_wrong_with_a_table_ends_all_ranks(tmp_path):
    """With the sentence of one process."""
    data = write_rows(tmp_path / "rows.csv", ROWS)
    data.write_text(data.read_text() + "1,,3\n")
    status, message = ended(started_by(2, on_disk(data, tmp_path / "run")))
    assert status and "should hold finite numbers, line 1502 has NaN" in message, message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("differ", [False, True])
def test_machines_that_share_no_disk_have_a_file_each(tmp_path, differ):
    """And are refused where their tables differ."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    meeting = f"--nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint={place}"
    processes = []
    for machine in ("one", "other"):  # each has its own folders under the same names
        data = write_rows(tmp_path / machine / "rows.csv", ROWS)
        if differ and machine == "other":
            data.write_text(data.read_text() + "1,2,3\n")
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *meeting.split(), "-m"]
                + ["kappaflow", *on_disk("rows.csv", "run")],
                cwd=tmp_path / machine,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    found = [ended(process) for process in processes]
    if differ:
        assert all(status for status, _ in found)
        assert any(
            "should be the same table on all machines" in message for _, message in found
        ), found
        return
    assert not any(status for status, _ in found), found
    written = [place for place in ("one", "other") if (tmp_path / place / "run").exists()]
    assert len(written) == 1, "rows of the other machine are left"
    assert len(both_losses(tmp_path / written[0] / "run")) == EPOCHS
    assert not list((tmp_path / written[0] / "run").glob("rows*"))
