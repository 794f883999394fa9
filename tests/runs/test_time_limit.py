"""What the limit on time counts, and that its description says so."""

import re

import numpy as np
import pytest

from kappaflow.options import TrainingOptions, descriptions
from kappaflow.runs import ModelConfig, TableConfig, fit, fit_run
from kappaflow.training import Callback, loop

READING, EPOCH, EPOCHS = 1000.0, 10.0, 6
LOAD = TableConfig.load


class Clock(Callback):
    """A clock that moves by each epoch, and stops the first training in its third."""

    def __init__(self):
        self.now, self.interrupts = 0.0, True

    def reads(self, config):
        """Loads data, which takes a long time."""
        self.now += READING
        return LOAD(config)

    def on_epoch(self, flow, figures):
        self.now += EPOCH
        if self.interrupts and figures["epoch"] == 3:
            raise KeyboardInterrupt


def stop(*args):
    """Ends a run before its measurements."""
    raise KeyboardInterrupt


def test_the_limit_on_time_counts_search_and_training_alone(tmp_path, monkeypatch):
    """Reading and an epoch that was cut off are not in it, as the option says."""
    np.save(tmp_path / "t.npy", np.random.default_rng(0).normal(size=(200, 2)))
    clock = Clock()
    monkeypatch.setattr(loop, "clock", lambda: clock.now)
    monkeypatch.setattr(TableConfig, "load", lambda config: clock.reads(config))
    monkeypatch.setattr(fit, "evaluate", stop)
    model = ModelConfig("real_nvp", {"depth": 1, "hidden": (4,)})
    job = (TableConfig(str(tmp_path / "t.npy")), model, tmp_path / "run")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit_run(*job, max_time_s=55, callbacks=[clock])
        clock.interrupts = False
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == EPOCHS and clock.now == 2 * READING + (EPOCHS + 1) * EPOCH
    text = descriptions(TrainingOptions)["max_time_s"]
    counted, not_counted = re.search(r"It counts (.*), and not (.*)\. The", text).groups()
    assert "before a resume" in counted
    for part in ("reading and preparing", "cut off", "labels", "measurements and the report"):
        assert part in not_counted
