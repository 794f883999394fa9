"""What is counted of trainings that are struck; `make faults-short` strikes real ones."""

from kappaflow.training.run_folder import SECONDS_BETWEEN_CHECKPOINTS


def test_what_is_lost_beyond_the_promise_is_counted(part, tmp_path, monkeypatch):
    """Epochs that ended more than a second after the checkpoint, but for the last."""
    trainings = part("trainings")
    assert SECONDS_BETWEEN_CHECKPOINTS == 1
    lines = [f'{{"time_s": {time}}}' for time in (0.5, 0.9, 1.4, 1.6, 2.2, 2.9)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"time_']))
    monkeypatch.setattr(trainings, "checkpoint_epoch", lambda run: 2)
    assert trainings.steps_beyond_promise(tmp_path) == trainings.STEPS
    monkeypatch.setattr(trainings, "checkpoint_epoch", lambda run: 3)
    assert trainings.steps_beyond_promise(tmp_path) == 0
