"""Runs measurements in new processes, so that no library's import affects another measurement."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).parents[1]
console = Console(stderr=True)


@dataclass(frozen=True)
class Job:
    """A measurement for a separate process.

    Attributes:
        task: A function of `benchmarks.worker`.
        arguments: Its keyword arguments, plain JSON values.
        label: Text of the progress line.
        environment: Environment variables in addition to those of this process.
    """

    task: str
    arguments: dict[str, Any]
    label: str
    environment: dict[str, str] = field(default_factory=dict)


def run(jobs: list[Job], *, threads: int | None, at_once: int = 1) -> list[dict[str, Any] | None]:
    """Returns the results of jobs; None for a failed job, whose error goes to stderr."""
    with _progress(len(jobs)) as progress, ThreadPoolExecutor(at_once) as pool:

        def one(job: Job) -> dict[str, Any] | None:
            progress.update(progress.task_ids[0], description=job.label)
            found = _run_one(job, threads)
            progress.advance(progress.task_ids[0])
            return found

        return list(pool.map(one, jobs))


def _run_one(job: Job, threads: int | None) -> dict[str, Any] | None:
    environment = {**os.environ, **job.environment}
    if threads is not None:  # set before torch is imported, so that no larger pool is started
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    job_text = json.dumps({"task": job.task, "arguments": job.arguments, "threads": threads})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.worker"],
        input=job_text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    console.print(f"{job.task}, {job.label}: failed: {last}", markup=False, soft_wrap=True)
    return None


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        progress.add_task("", total=total)
        yield progress
