"""What all tests share: one thread, and the same random numbers each time."""

import gc
import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
SETS = ("default", "avx2", "avx512")  # a processor that has one has those before it
collect_ignore = ["rank_cases.py"]  # a program: it registers names that are registered once


@pytest.fixture(autouse=True)
def _seeded():
    """Starts each test from the same state of torch's global generator."""
    torch.manual_seed(0)


@pytest.fixture
def only_new_objects():
    """Hides the objects of earlier tests from the garbage collector, which is much quicker."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def build():
    """Returns the module that compiles the native backend."""
    place = Path(__file__).parents[1] / "hatch_build.py"
    spec = importlib.util.spec_from_file_location("hatch_build", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def libraries(build, tmp_path_factory):
    """Returns the compiled libraries that this processor can run, by instruction set."""
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("there is no C compiler")
    made = build.compile_all(tmp_path_factory.mktemp("libraries"))
    best = torch.backends.cpu.get_cpu_capability().lower()
    known = SETS[: SETS.index(best) + 1 if best in SETS else 1]
    return {name: path for name in known for path in made if path.stem == f"native_{name}"}
