"""A checkpoint and the metrics next to it: what is where, and what is made of them together."""

import json
import shutil

import pytest
import torch
from tests.training.examples import Interrupt
from tests.training.examples import small as small_of

import kappaflow as kf
from kappaflow.training.checkpoint import FILE, read_checkpoint, write_checkpoint
from kappaflow.training.loop import Training


def small():
    """Returns a flow that trains in no time."""
    return small_of(2, depth=2, hidden=(4,))


@pytest.fixture(scope="module")
def x():
    """Some rows."""
    return torch.randn(60, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, x):
    """The folder of a run of five epochs that was stopped after its third."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            kf.fit(small(), x, max_epochs=5, out=folder, callbacks=[Interrupt(4)])
    return folder


@pytest.fixture
def stopped(interrupted, tmp_path, each_epoch):
    """A copy of that folder, which may be changed."""
    return shutil.copytree(interrupted, tmp_path / "run")


def losses(run):
    """The losses of the epochs, in the order of metrics.jsonl."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["epoch"], line["train_nll"]) for line in lines]


@pytest.mark.slow
def test_a_checkpoint_does_not_grow_with_the_epochs(tmp_path, x):
    """Its size after forty epochs is that after four, but for digits of numbers."""
    sizes = []
    for epochs in (4, 40):
        run = tmp_path / f"{epochs}"
        kf.fit(small(), x, max_epochs=epochs, patience=epochs, out=run)
        sizes.append((run / FILE).stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 50


@pytest.mark.slow
def test_lines_after_the_checkpoint_are_done_again(stopped, tmp_path, x):
    """A kill between line and checkpoint leaves a line more, one inside a line a part of it."""
    expected = kf.fit(small(), x, max_epochs=5, out=tmp_path / "whole")
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_nll": 7.0}\n{"epo')
    resumed = kf.fit(small(), x, max_epochs=5, out=stopped)
    assert losses(stopped) == losses(tmp_path / "whole") and len(losses(stopped)) == 5
    assert [h["train_nll"] for h in resumed.history] == [h["train_nll"] for h in expected.history]


def test_the_line_of_an_epoch_is_on_the_disk_before_its_checkpoint(tmp_path, x, monkeypatch):
    """Whenever a checkpoint is written there are as many lines, and they have been synced."""
    from kappaflow.training import run_folder

    monkeypatch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    synced, seen = [], []
    sync, write = run_folder.sync_file, run_folder.write_checkpoint

    def syncing(path):
        sync(path)
        synced.append(path.read_text().count("\n"))

    def writing(folder, groups, progress):
        seen.append((progress["epoch"], synced[-1]))
        write(folder, groups, progress)

    monkeypatch.setattr(run_folder, "sync_file", syncing)
    monkeypatch.setattr(run_folder, "write_checkpoint", writing)
    kf.fit(small(), x, max_epochs=3, out=tmp_path / "run")
    assert seen == [(1, 1), (2, 2), (3, 3), (3, 3)]


@pytest.mark.parametrize(
    "changed",
    [
        "",
        '{"epoch": 1}\n{"epoch": 3}\n{"epoch": 3}\n',
        '{"epoch": 1}\n{"epoch": 2}\n[3]\n',
        '{"epoch": 1}\n{"epoch": 2}\n{"epo',
        None,
    ],
)
def test_metrics_that_were_changed_are_no_history(stopped, x, changed):
    """One sentence that names the file; nothing is written."""
    path = stopped / "metrics.jsonl"
    path.unlink() if changed is None else path.write_text(changed)
    before = (stopped / FILE).read_bytes()
    with pytest.raises(kf.errors.FileError, match=r"metrics\.jsonl (lacks epochs|cannot be read)"):
        kf.fit(small(), x, max_epochs=5, out=stopped)
    assert (stopped / FILE).read_bytes() == before
    assert not path.exists() if changed is None else path.read_text() == changed


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"step": "one"}, r"not of this training \(step"),
        ({"best_nll": None}, r"not of this training \(best_nll"),
        ({"dual": {"shift": []}}, r"not of this training \(dual"),
        ({"epoch": 10**12}, "lacks epochs of the checkpoint"),
        ({"epoch": True}, "not of this training"),
        (None, "holds no progress"),
    ],
)
def test_a_checkpoint_with_other_progress_is_refused(stopped, x, changed, sentence):
    """The sentence names the key."""
    groups, progress = read_checkpoint(stopped)
    write_checkpoint(stopped, groups, [1] if changed is None else progress | changed)
    with pytest.raises(kf.errors.FileError, match=sentence):
        kf.fit(small(), x, max_epochs=5, out=stopped)


@pytest.mark.parametrize(
    ("group", "name", "tensor"),
    [
        ("optimizer", "0.exp_avg", torch.zeros(1)),
        ("optimizer", "0.step", torch.zeros(3)),
        ("optimizer", "0.max", torch.zeros(1)),
        ("optimizer", "99.step", torch.zeros(())),
        ("optimizer", "-1.step", torch.zeros(())),
        ("optimizer", "0.exp_avg", None),
        ("average", None, torch.zeros(1)),
        ("best", None, torch.zeros(7)),
        ("best", None, None),
        ("start", "0", torch.zeros(1)),
    ],
)
def test_a_checkpoint_with_other_tensors_is_refused(stopped, x, group, name, tensor):
    """The kernel of the optimizer would write past the end of a tensor that is too short."""
    groups, progress = read_checkpoint(stopped)
    changed = dict(groups.get(group, {}))
    changed[name or next(iter(changed))] = tensor
    changed = {key: value for key, value in changed.items() if value is not None}
    write_checkpoint(stopped, {**groups, group: changed}, progress)
    with pytest.raises(kf.errors.FileError, match="is not of this training"):
        kf.fit(small(), x, max_epochs=5, out=stopped)


@pytest.mark.parametrize(("moment", "call"), [("write_checkpoint", 2), ("write_result", 1)])
def test_control_c_while_the_end_is_written_loses_no_epoch(tmp_path, x, monkeypatch, moment, call):
    """The last checkpoint is written again; the first epoch wrote one before."""
    from kappaflow.training import run_folder

    monkeypatch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 1e9)
    write, calls = getattr(run_folder, moment), []

    def interrupting(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(run_folder, moment, interrupting)
    with pytest.raises(KeyboardInterrupt) as stopped:
        kf.fit(small(), x, max_epochs=5, out=tmp_path / "run")
    assert stopped.value.__notes__ == [
        "interrupted in epoch 6: run the same command again to resume."
    ]
    assert read_checkpoint(tmp_path / "run")[1]["epoch"] == 5
    monkeypatch.setattr(Training, "_step", None)  # nothing is trained again
    assert len(kf.fit(small(), x, max_epochs=5, out=tmp_path / "run").history) == 5
