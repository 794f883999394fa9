"""The native backend does what Python does: bit for bit where asked to, else to rounding."""

import copy
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings

import pytest
import torch

from cases import alternating
from kappaflow.bijections.log_scales import SCALES
from kappaflow.errors import BuildError, NumericalWarning
from kappaflow.stack import native
from kappaflow.stack.operations import NAMES
from kappaflow.stack.tape import MOST, Executor, Job, NativeExecutor, TapeCache
from stack.examples import MEMORY, WAYS, assert_alike, points, result_of, same, stack_of

pytestmark = pytest.mark.slow  # the backend is built first

SETTINGS = {
    "plain": {"hidden": (8, 8)},
    "additive": {"kind": "additive"},
    "no hidden layer": {"hidden": ()},
    "context, permuted, uneven": {
        "partition": "uneven",
        "permuted": True,
        "context_features": 2,
    },
    "dropout": {"hidden": (9, 7), "dropout": 0.3},
    "residual, dropout, context": {
        "hidden": (9, 9, 9),
        "residual": True,
        "context_features": 2,
        "dropout": 0.1,
    },
    **{scale: {"scale": scale} for scale in SCALES if scale != "tanh"},
    "paired": {"hidden": (8, 6), "wiring": "paired", "context_features": 2},
    "residual blocks": {"hidden": (9,) * 5, "wiring": "blocks", "context_features": 2},
    "residual from the input": {"hidden": (4, 4), "residual": True, "context_features": 2},
}


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Returns where compiled modules lie for this session's tests, with the backend built."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")  # ninja comes with the development extras
    folder = tmp_path_factory.mktemp("extensions")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of setuptools
        patch.setenv("TORCH_EXTENSIONS_DIR", str(folder))
        native.build()
    return folder


@pytest.fixture
def backend(built, monkeypatch):
    """Has the backend used, whatever the environment says."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(built))
    monkeypatch.delenv("KAPPAFLOW_NATIVE", raising=False)
    native._known.cache_clear()
    yield native._backend(must=False)
    native._known.cache_clear()


def both(monkeypatch, stack, way, x, context, *, narrow=False):
    """Returns the results of Python and of the backend, from the same seed."""
    results = []
    for wanted in ("0", ""):
        monkeypatch.setenv("KAPPAFLOW_NATIVE", wanted)
        for block in stack.blocks:
            block.recomputing = False
        torch.manual_seed(7)
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=narrow),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", NumericalWarning)  # bfloat16 is not inverted exactly
            results.append(result_of(stack, way, x, context))
    return results


@pytest.mark.usefixtures("chunked", "backend")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *alternating(SETTINGS, "float32", "float64", "bfloat16"),
        *(("residual, dropout, context", kind) for kind in ("float32", "float64")),
    ],
)
def test_an_exact_backend_has_the_same_bits(threads, monkeypatch, name, memory, way, kind):
    """Values, log_det and all gradients are those of Python bit for bit, on two threads."""
    threads(2)
    monkeypatch.setattr(native, "EXACT", True)
    dtype = torch.float64 if kind == "float64" else torch.float32
    stack = stack_of(5, 6, memory=memory, dtype=dtype, **SETTINGS[name]).train()
    x, context = points(stack, 70, dtype=dtype)
    wanted, found = both(monkeypatch, stack, way, x, context, narrow=kind == "bfloat16")
    assert same(found, wanted)


@pytest.mark.usefixtures("chunked", "backend")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", SETTINGS)
def test_loops_are_equal_to_rounding(threads, monkeypatch, name, memory, way):
    """Where float32 has loops of its own, values and gradients differ by rounding alone."""
    threads(2)
    stack = stack_of(5, 6, memory=memory, dtype=torch.float32, **SETTINGS[name]).train()
    x, context = points(stack, 70, dtype=torch.float32)
    wanted, found = both(monkeypatch, stack, way, x, context)
    assert_alike(found, wanted, 1e-5)


@pytest.mark.usefixtures("chunked", "backend")
def test_evaluation_is_equal_to_rounding(monkeypatch):
    """So are scores and samples, under `inference_mode`, whose tensors nobody may write later."""
    stack = stack_of(5, 6, (8, 8), dtype=torch.float32).eval()
    x, _ = points(stack, 70, dtype=torch.float32)
    for way in (stack.forward, stack.inverse):
        with torch.inference_mode():
            value, log_det = way(x)
            monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")
            wanted, wanted_log_det = way(x)
            monkeypatch.delenv("KAPPAFLOW_NATIVE")
        assert torch.allclose(value, wanted, rtol=1e-5, atol=1e-6)
        assert torch.allclose(log_det, wanted_log_det, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 3, 8, 16, 19, 40])
def test_operations_are_those_of_python(backend, columns):
    """Each operation with a loop, on columns that fill registers or do not, with nan and inf."""
    generator = torch.Generator()

    def filled(rows, seed):
        made = torch.randn(rows, columns, generator=generator.manual_seed(seed))
        made[0, 0] = torch.nan
        made[rows - 1, columns - 1] = torch.inf
        return made

    def outcome(ops):
        bias, weight = torch.arange(6.0)[:, None] - 3, torch.randn(6, 4, generator=generator)
        finite = filled(4, 1).nan_to_num(0.5, 0.25)
        h, low, back, on = (filled(6, seed) for seed in range(2, 6))
        answer, slope = filled(6, 6), filled(6, 7)
        sigmoid, factor, to_x, there, back_again = (torch.zeros(3, columns) for _ in range(5))
        sums, x, log_det = filled(3, 8), filled(3, 9), filled(1, 10)[0]
        other = slope.clone()
        ops.linear(bias, weight, finite, None, None, True, h)
        ops.linear(bias, weight, finite, weight, finite, False, low)
        offset = torch.tensor(-1.5)
        ops.scale(answer, offset, 0.5, 3.0, sigmoid, to_x)
        ops.affine(x, answer, offset, 0.5, -3.0, sigmoid, to_x, sums, there)
        ops.affine(x, answer, offset, 0.5, 3.0, sigmoid, factor, sums, back_again)
        ops.affine_pull(x, factor, sigmoid, answer, log_det, 4.0, to_x, slope)
        ops.affine_pull(x, factor, sigmoid, answer, log_det, -4.0, to_x, other)
        ops.layer_pull(weight.T.contiguous().T, finite, filled(6, 11), 1.25, on, on, back)
        return h, low, sigmoid, factor, there, back_again, sums, slope, other, to_x, back, on

    state = torch.get_rng_state()
    results = []
    for executor in (Executor("cpu"), NativeExecutor(*backend)):
        generator.manual_seed(0)
        execute(executor, lambda ops: results.append(outcome(ops)))
    for wanted, found in zip(*results, strict=True):
        assert torch.allclose(found, wanted, rtol=2e-6, atol=2e-6, equal_nan=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def recorded(monkeypatch):
    """Returns the tapes that are made from now on."""
    made = []
    record = NativeExecutor._record
    monkeypatch.setattr(
        NativeExecutor, "_record", lambda self, job: made.append(job) or record(self, job)
    )
    return made


def step(stack, x):
    """Returns the results of a training step that changes the weights in place."""
    found = result_of(stack, "forward", x)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(1.1)
    return found


@pytest.mark.usefixtures("chunked", "backend")
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_a_tape_is_recorded_once(threads, recorded, memory):
    """The first step records a tape for each chunk and direction; later steps execute it."""
    threads(2)
    stack = stack_of(5, 6, (8, 8), memory=memory, dtype=torch.float32)
    x, _ = points(stack, 70, dtype=torch.float32)
    step(stack, x)
    first = len(recorded)
    assert first > 0
    for _ in range(5):
        step(stack, x)
    warm = len(recorded)  # tracks take turns: a chunk may have had another one's
    for _ in range(3):
        step(stack, x)
    assert len(recorded) == warm


@pytest.mark.usefixtures("chunked", "backend", "pool")
def test_a_tape_follows_the_weights(threads, monkeypatch):
    """Weights changed in place, other points and weights in other memory are all noticed."""
    threads(2)
    monkeypatch.setattr(native, "EXACT", True)
    stack = stack_of(5, 6, (8, 8), dtype=torch.float32)
    results = []
    for wanted in ("", "0"):
        monkeypatch.setenv("KAPPAFLOW_NATIVE", wanted)
        mine, found = copy.deepcopy(stack), []
        for seed in range(6):
            torch.manual_seed(seed)
            x = torch.randn(70, 5)
            found.append(step(mine, x))
            if seed % 2:
                for parameter in mine.parameters():
                    parameter.data = parameter.data / 1.2
        results.append(found)
    for one, other in zip(*results, strict=True):
        assert same(one, other)


@pytest.mark.usefixtures("chunked", "backend", "pool")
def test_tapes_of_two_stacks_are_kept_apart(threads, monkeypatch):
    """Stacks of one shape share buffers, and neither executes the other's tape."""
    threads(2)
    monkeypatch.setattr(native, "EXACT", True)
    stacks = [stack_of(5, 6, (8, 8), dtype=torch.float32) for _ in range(2)]
    step(stacks[1], points(stacks[1], 70, dtype=torch.float32)[0])
    x, _ = points(stacks[0], 70, dtype=torch.float32)
    for _ in range(2):
        for stack in stacks:
            wanted, found = both(monkeypatch, stack, "forward", x, None)
            assert same(found, wanted)


def test_what_a_tape_depends_on_is_remembered():
    """A key of its own is recorded once, the oldest is forgotten, and None is never known."""
    tapes, made = TapeCache(), []

    def tape(key, kind="native"):
        def record(job):
            made.append(job.key)
            return len(made)

        return tapes.get(kind, Job(print, tapes, key), record)

    assert tape("first") == tape("first") == 1
    assert tape("first", kind="eager") == 2
    assert tape(None) != tape(None)
    for key in range(MOST):
        tape(key)
    assert tape("first") == len(made)


def execute(executor, *describe):
    """Executes what functions call, all at the same time."""
    jobs = [Job(one, TapeCache(), None) for one in describe]
    executor.run([[lambda job=job: iter([job])] for job in jobs])


def test_all_operations_are_known(backend):
    """The backend knows each operation of Python, and no other."""
    assert sorted(backend[0].names()) == sorted(NAMES)


def test_the_interpreter_runs_on(backend):
    """While a tape is executed another thread of Python can do something."""
    a, target = torch.ones(700, 700), torch.empty(700, 700)
    started, counted = threading.Event(), []

    def describe(ops):
        for _ in range(300):
            ops.add_product(a, a, 0, target)
        started.set()

    def play():
        execute(NativeExecutor(*backend), describe)

    other = threading.Thread(target=play)
    other.start()
    started.wait()
    while other.is_alive():
        counted.append(None)
    assert len(counted) > 1000


def test_an_error_in_a_tape_is_raised(backend):
    """Operands that do not fit are an error of Python, as they are at once."""
    wide = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        execute(NativeExecutor(*backend), lambda ops: ops.add_product(wide, wide, 1, wide))


def test_the_environment_decides(backend, monkeypatch):
    """KAPPAFLOW_NATIVE=0 turns the backend off; other devices never have it."""
    assert backend is not None
    assert type(native.executor("cpu")) is NativeExecutor
    assert type(native.executor("meta")) is Executor
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")
    assert type(native.executor("cpu")) is Executor


@pytest.fixture
def _unbuilt(tmp_path, monkeypatch):
    """Has a place of compiled modules in which there are none."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    native._known.cache_clear()
    yield
    native._known.cache_clear()


@pytest.mark.usefixtures("_unbuilt")
def test_without_a_backend_all_is_done_in_python(monkeypatch):
    """Where none is built nothing is said; where one is asked for, once, and Python goes on."""
    monkeypatch.delenv("KAPPAFLOW_NATIVE", raising=False)
    assert type(native.executor("cpu")) is Executor

    def fails(**_):
        raise BuildError("no compiler.")

    monkeypatch.setattr(native, "build", fails)
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "1")
    with pytest.warns(RuntimeWarning, match="no compiler"):
        assert type(native.executor("cpu")) is Executor
    assert type(native.executor("cpu")) is Executor


@pytest.mark.usefixtures("_unbuilt")
def test_a_file_that_is_no_backend_is_left_alone(monkeypatch):
    """What cannot be loaded is taken for no backend at all."""
    monkeypatch.delenv("KAPPAFLOW_NATIVE", raising=False)
    native.path().parent.mkdir()
    native.path().write_text("not a module")
    assert type(native.executor("cpu")) is Executor


@pytest.mark.usefixtures("_unbuilt")
def test_threads_load_one_backend(monkeypatch):
    """Threads that meet at the first use load the module once, and wait for it."""
    monkeypatch.delenv("KAPPAFLOW_NATIVE", raising=False)
    native.path().parent.mkdir()
    native.path().touch()
    calls, found = [], []

    def slowly(target):
        calls.append(target)
        time.sleep(0.1)
        return "backend"

    monkeypatch.setattr(native, "_loaded", slowly)
    callers = [
        threading.Thread(target=lambda: found.append(native._backend(must=False)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == ["backend"] * 4
    assert len(calls) == 1


def test_a_build_without_a_compiler_says_what_is_needed(tmp_path):
    """One sentence says what is missing, and no half of a backend is left behind."""
    environment = {**os.environ, "PATH": "", "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "kappaflow", "native"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 1
    assert "the native backend could not be built" in done.stderr
    assert not list(tmp_path.rglob("*.so"))
