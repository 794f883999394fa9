"""What all tests share: one thread, and the same random numbers each time."""

import gc
import importlib.util
import itertools
import shutil
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
# On a busy machine everything is slow, which says nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
SETS = ("default", "avx2", "avx512")  # a processor that has one has those before it
collect_ignore = ["rank_cases.py"]  # a program: it registers names that are registered once


# torch.manual_seed records a stack trace for each kind of accelerator, which takes a millisecond.
seed = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed


def pytest_collection_finish():
    """Hides modules and collected tests from the garbage collector, which is quicker then."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    """Starts each test from the same state of torch's global generator."""
    seed(0)


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a file of the given name and returns its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


@pytest.fixture
def ticking(monkeypatch):
    """Returns a function that replaces the clocks, whatever the speed of the machine.

    Each reading of a clock takes some processor time, so that limits in seconds are limits of
    steps. On a machine that is busy with other work, that takes `slowness` times as long.
    """
    from kappaflow.training import loop

    def tick(seconds, slowness=1.0):
        readings = itertools.count()
        monkeypatch.setattr(time, "process_time", lambda: seconds * next(readings))
        monkeypatch.setattr(loop, "clock", lambda: slowness * seconds * next(readings))

    return tick


@pytest.fixture
def only_new_objects():
    """Hides the objects of earlier tests from the garbage collector, which is much quicker."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def build():
    """Returns the module that compiles the native backend."""
    path = Path(__file__).parents[1] / "hatch_build.py"
    spec = importlib.util.spec_from_file_location("hatch_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def libraries(build, tmp_path_factory):
    """Returns the compiled libraries that this processor can run, by instruction set."""
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("there is no C compiler")
    compiled = build.compile_all(tmp_path_factory.mktemp("libraries"))
    best = torch.backends.cpu.get_cpu_capability().lower()
    known = SETS[: SETS.index(best) + 1 if best in SETS else 1]
    return {name: path for name in known for path in compiled if path.stem == f"native_{name}"}
