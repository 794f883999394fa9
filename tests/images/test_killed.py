"""A real process that fits a flow to images, killed with SIGKILL, and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import kappaflow as kf

PROGRAM = """
import sys, time
from kappaflow.cli.app import main
from kappaflow.training.run_folder import RunFolder
log, last = RunFolder.log, int(sys.argv[1])
def log_some(self, figures):
    if figures["epoch"] > last:
        time.sleep(1000)  # until it is killed, however late that is
    log(self, figures)
RunFolder.log = log_some
sys.exit(main(sys.argv[2:]))
"""


def command(out, last=10):
    """The command line of a training of ten epochs, which waits after the last that is given."""
    words = f"fit digits --out {out} --levels 1 --steps 1 --hidden 4 --max-epochs 10 --quiet"
    return [sys.executable, "-c", PROGRAM, str(last), *words.split(), "--by-class", "--flip"]


def losses(run):
    """The metrics of a run without the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in x.items() if k not in {"time_s", "memory_bytes"}} for x in lines]


def samples(run):
    """The grids of samples of a run."""
    return {path.name: path.read_bytes() for path in (run / "samples").iterdir()}


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_losses_and_samples(tmp_path):
    """Three kills, then to the end: metrics, weights and pictures of a run left in peace."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    peaceful, run = tmp_path / "peaceful", tmp_path / "killed"
    subprocess.run(command(peaceful), env=environment, check=True, capture_output=True)
    moments = random.Random(0)
    for kill in range(3):
        process = subprocess.Popen(
            command(run, 3 + 3 * kill), env=environment, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 600
        while process.poll() is None and time.monotonic() < deadline:
            metrics = run / "metrics.jsonl"
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= 1 + 3 * kill:
                time.sleep(moments.uniform(0, 0.3))
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (run / "result.json").exists()
        if (run / "config.json").exists():
            kf.load(run)  # whatever the moment, the folder holds a whole model
        for path in (run / "samples").glob("epoch*.png"):
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), "a picture is not whole"
    subprocess.run(command(run), env=environment, check=True, capture_output=True)
    assert losses(run) == losses(peaceful)
    assert (run / "model.safetensors").read_bytes() == (
        peaceful / "model.safetensors"
    ).read_bytes()
    assert samples(run) == samples(peaceful)
    assert set(samples(run)) == {
        "best.png", *(f"epoch-{epoch:04}.png" for epoch in (1, 2, 5, 10))
    }  # fmt: skip
    assert not list(run.rglob(".*")), "a temporary file was left behind"
