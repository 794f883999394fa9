"""A folder that one process at a time writes to."""

import subprocess
import sys
import threading

import pytest

from kappaflow.errors import WriteError
from kappaflow.locking import LOCK, locked

HOLDER = """
import sys
from kappaflow.locking import locked
with locked(sys.argv[1]):
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder, until it is killed or its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"has it\n"
        yield process
        process.kill()


@pytest.mark.slow
def test_a_folder_that_another_process_has_is_refused_with_its_name(holder, tmp_path):
    """Which process, where and since when."""
    message = rf"run is in use by process {holder.pid} on \S+, since \d{{4}}-\d\d-\d\d \d\d:"
    with pytest.raises(WriteError, match=message), locked(tmp_path / "run"):
        pytest.fail("two have it")
    assert (tmp_path / "run" / LOCK).exists(), "the lock of the other one was removed"


@pytest.mark.slow
def test_the_lock_of_a_dead_process_does_not_hold(holder, tmp_path):
    """Nobody has to remove a file by hand."""
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists() or not (tmp_path / "run" / LOCK).exists()


@pytest.mark.slow
def test_a_folder_is_free_when_its_holder_is_done(holder, tmp_path):
    """In peace too; nothing is left of a folder that nothing was written to."""
    holder.communicate()
    assert holder.returncode == 0
    assert not (tmp_path / "run").exists()


def test_who_has_a_folder_may_enter_again(tmp_path):
    """A command has the folder that its training asks for; the lock ends with the outer one."""
    with locked(tmp_path):
        with locked(tmp_path / "." / "x" / ".."):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_another_thread_is_another_writer(tmp_path):
    """Two trainings of one process do not share a folder either."""
    outcomes = []

    def enter():
        try:
            with locked(tmp_path):
                outcomes.append("two have it")
        except WriteError as error:
            outcomes.append(str(error))

    with locked(tmp_path):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert "in use by process" in outcomes[0]


def test_a_folder_that_was_there_stays(tmp_path):
    """With what is in it."""
    (tmp_path / "file").write_text("mine")
    with locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_of_a_write_is_removed(tmp_path):
    """Whatever it was killed in: a folder that is finished is not written to again."""
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / ".report.html.12ab.tmp", tmp_path / "sub" / ".state.12ab.tmp"):
        path.write_text("half")
    with locked(tmp_path):
        assert sorted(path.name for path in tmp_path.rglob("*")) == [LOCK, "sub"]
