"""Real processes that are killed, stopped, shut out and left without room, and started again."""

import signal
from functools import partial

import pytest


@pytest.fixture
def struck(part, tmp_path):
    """Does a strike to a small training so often, and returns the row of the table."""
    kills, trainings = part("kills"), part("trainings")
    data = trainings.write_rows(tmp_path / "rows.csv")
    whole = trainings.trained_whole(data, tmp_path / "whole")

    def call(strike, times, place=tmp_path):
        job = trainings.Job(data, place / "run", whole)
        file = tmp_path / "done.jsonl"
        return kills.repeated("a fault", "times", strike, times, job=job, seed=1, file=file)

    return call


def assert_all_survived(row, times):
    """Asserts that a fault was done so often, and cost no more than is promised."""
    assert (row.tried, row.survived, row.lost) == (times, times, 0), row


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_losses(part, struck):
    """At most a second of work and an epoch are lost, and the folder loads after each kill."""
    assert_all_survived(struck(part("strikes").killed, 3), 3)


@pytest.mark.slow
def test_a_run_killed_inside_a_write_ends_with_the_same_losses(part, struck):
    """Half a file, or a file without its name yet; nothing of it is left at the end."""
    assert_all_survived(struck(part("strikes").killed_in_a_write, 2), 2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_last_epoch_and_says_how_to_go_on(part, struck, number):
    """Status 130 or 143 and one line, within seconds; the same command goes on from there."""
    assert_all_survived(struck(partial(part("strikes").told, number), 1), 1)


@pytest.mark.slow
def test_a_second_process_is_told_who_has_the_run(part, struck):
    """At once; the lock of the first one, killed, is in nobody's way."""
    assert_all_survived(struck(part("strikes").shut_out, 1), 1)


@pytest.mark.slow
@pytest.mark.parametrize("strike", ["left_without_room", "made_read_only"])
def test_a_disk_that_cannot_be_written_is_said_in_a_sentence(part, struck, tmp_path, strike):
    """Status 1; the folder still loads, and the run goes on when there is room again."""
    disks = part("disks")
    if not disks.can_mount(tmp_path):
        pytest.skip("no disk can be mounted here")
    with disks.disk(tmp_path / "disk") as place:
        assert_all_survived(struck(getattr(part("strikes"), strike), 1, place), 1)


def test_what_is_lost_beyond_the_promise_is_counted(part, tmp_path, monkeypatch):
    """Epochs that ended more than a second after the checkpoint, but for the last."""
    trainings = part("trainings")
    lines = [f'{{"time_s": {time}}}' for time in (0.5, 0.9, 1.4, 1.6, 2.2, 2.9)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"time_']))
    monkeypatch.setattr(trainings, "checkpoint_epoch", lambda run: 2)
    assert trainings.steps_beyond_promise(tmp_path) == trainings.STEPS
    monkeypatch.setattr(trainings, "checkpoint_epoch", lambda run: 3)
    assert trainings.steps_beyond_promise(tmp_path) == 0
