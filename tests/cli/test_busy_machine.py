"""`kappaflow fit` on a machine that is busy with other work."""

import json
import subprocess
import sys
from contextlib import ExitStack

import pytest

BUSY = 6  # processes that never wait


@pytest.mark.slow
def test_a_fit_on_a_busy_machine_keeps_its_limit_and_its_schedule(tmp_path):
    """Search and training end within 60 s, the learning rate falls, and the report is written."""
    with ExitStack() as kept:
        for _ in range(BUSY):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            kept.callback(process.wait)
            kept.callback(process.kill)
        command = [sys.executable, "-m", "kappaflow", "fit", "magic", "--out", tmp_path / "run"]
        done = subprocess.run(
            [*command, "--max-time-s", "60"], capture_output=True, text=True, check=True
        )
    assert "measuring the flow and writing its report, about" in done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["time_s"] < 62 and last["learning_rate_share"] < 0.05
    assert (tmp_path / "run" / "report.html").exists()
