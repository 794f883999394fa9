"""A real process, killed with SIGKILL in the middle of its training, and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import kappaflow as kf


def command(data, out):
    """The command line of a training that takes a few seconds."""
    words = f"fit {data} --out {out} --depth 4 --hidden 16 --max-epochs 60 --batch-size 64 --quiet"
    return [sys.executable, "-m", "kappaflow", *words.split()]


def losses(run):
    """The metrics of a run without the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in x.items() if k not in {"time_s", "memory_bytes"}} for x in lines]


def kill_after(process, run, lines, delay_s):
    """Waits until a run has written so many lines of metrics, a little longer, and kills it."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        metrics = run / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
            time.sleep(delay_s)
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small table on disk."""
    path = tmp_path_factory.mktemp("data") / "data.csv"
    x = np.random.default_rng(0).normal(size=(1500, 3))
    x[:, 1] += x[:, 0] ** 2
    np.savetxt(path, x, delimiter=",", header="a,b,c", comments="")
    return path


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_losses(data, tmp_path):
    """Six kills, then to the end: metrics and weights equal those of a run left in peace."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, run = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(data, whole), env=environment, check=True, capture_output=True)
    moments = random.Random(0)
    for kill in range(6):
        process = subprocess.Popen(
            command(data, run),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        kill_after(process, run, lines=2 + 8 * kill, delay_s=moments.uniform(0, 0.3))
        if (run / "config.json").exists():
            kf.load(run)  # whatever the moment, the folder holds a whole model
    subprocess.run(command(data, run), env=environment, check=True, capture_output=True)
    assert losses(run) == losses(whole)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not list(run.rglob(".*")), "a temporary file was left behind"


@pytest.mark.slow
def test_control_c_says_how_to_go_on(data, tmp_path):
    """Status 130 and one line; the same command then finishes the run."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = tmp_path / "run"
    process = subprocess.Popen(command(data, run), env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        metrics = run / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert "goes on when the same command is given" in said
    assert "Traceback" not in said
    subprocess.run(command(data, run), env=environment, check=True, capture_output=True)
    assert len(losses(run)) == 60
