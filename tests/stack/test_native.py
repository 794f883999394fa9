"""The native backend computes what Python does, up to rounding, on any threads and processor."""

import copy
import itertools
import re
import shutil
import subprocess
import sys
import threading
import types
import warnings

import pytest
import torch
from threadpoolctl import threadpool_info

from cases import alternating
from kappaflow import native as package
from kappaflow.bijections.log_scales import SCALES
from kappaflow.errors import NumericalWarning
from kappaflow.native import Library
from kappaflow.stack import native
from kappaflow.stack.native import NativeExecutor
from kappaflow.stack.operations import CURVES, NAMES
from kappaflow.stack.tape import MOST, Executor, Job, TapeCache
from stack.examples import MEMORY, WAYS, assert_alike, points, result_of, stack_of

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


@pytest.fixture
def use(monkeypatch):
    """Returns what has the library at a path used from now on."""

    def choose(path):
        monkeypatch.delenv("KAPPAFLOW_NATIVE", raising=False)
        monkeypatch.setattr(package, "path_of_library", lambda: path)
        package._loaded.cache_clear()
        return native.backend()

    yield choose
    package._loaded.cache_clear()


@pytest.fixture
def backend(libraries, use):
    """Has the fastest library used, whatever the environment says."""
    return use(list(libraries.values())[-1])


def both(monkeypatch, stack, way, x, context):
    """Returns the results of Python and of the backend, from the same seed."""
    results = []
    for setting in ("0", ""):
        monkeypatch.setenv("KAPPAFLOW_NATIVE", setting)
        for block in stack.blocks:
            block.recomputing = False
        torch.manual_seed(7)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumericalWarning)
            results.append(result_of(stack, way, x, context))
    return results


def error(result, exact):
    """Returns the largest relative error of a result's tensors, each as one vector."""
    pairs = zip(
        (result.value, result.log_det, *result.gradients),
        (exact.value, exact.log_det, *exact.gradients),
        strict=True,
    )
    return max(((a - b).norm() / b.norm().clamp_min(1e-3)).item() for a, b in pairs)


@pytest.mark.usefixtures("chunked", "backend")
@pytest.mark.parametrize(
    ("name", "memory", "way"),
    [(*case, way) for case, way in alternating(itertools.product(SETTINGS, MEMORY), *WAYS)],
)
def test_stacks_are_as_exact_as_in_python(threads, monkeypatch, name, memory, way):
    """Against float64, values and gradients have about the errors of Python, and 1e-6."""
    threads((1, 2, 4)[MEMORY.index(memory)])
    stack = stack_of(5, 6, memory=memory, dtype=torch.float32, **SETTINGS[name]).train()
    x, context = points(stack, 70, dtype=torch.float32)
    python, actual = both(monkeypatch, stack, way, x, context)
    context64 = None if context is None else context.double()
    exact, _ = both(monkeypatch, stack.double(), way, x.double(), context64)
    assert error(actual, exact) <= 1e-6 + 2 * error(python, exact)


# These add up terms in an order that depends on the BLAS and the instruction set.
SUMS = ("linear", "layer_pull", "add_product", "add_outer", "add_columns", "project")


def outcomes(executor, dtype, columns, replace=None):
    """Returns all that the operations write, by their names, from NaN, infinity and numbers.

    `replace` changes the tensors that `SUMS` read.
    """
    generator, actual = torch.Generator().manual_seed(0), []

    def finite(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    def filled(*shape):
        tensor = finite(*shape)
        tensor.view(-1)[0], tensor.view(-1)[-1] = torch.nan, torch.inf
        return tensor

    def empty(*shape):
        return torch.full(shape, torch.nan, dtype=dtype)

    def describe(ops):
        def call(name, *operands):
            if replace is not None and name in SUMS:
                operands = [replace(o) if isinstance(o, torch.Tensor) else o for o in operands]
            getattr(ops, name)(*operands)
            actual.extend((name, o) for o in operands if isinstance(o, torch.Tensor))

        weight, h, context, c = finite(6, 4), finite(4, columns), finite(2, columns), columns
        call("linear", finite(6, 1), weight, h, None, None, True, empty(6, c))
        call("linear", filled(6, 1), weight, h, finite(6, 2), context, False, empty(6, c))
        call("residual", h, context, filled(6, c), empty(6, c))
        call("residual", h, None, filled(4, c), empty(4, c))
        slope, active, ones = finite(6, c), filled(4, c).relu(), torch.ones(c, dtype=dtype)
        call("layer_pull", weight.T, slope, active, 1.25, None, None, empty(4, c))
        call("layer_pull", weight.T, slope, active, 1.0, filled(4, c), filled(4, c), empty(4, c))
        for beta, target in ((0, empty), (1, finite)):
            call("add_product", weight, h, beta, target(6, c))
            call("add_outer", slope, h, beta, target(6, 9)[:, :4])
            call("add_columns", filled(6, c), ones, beta, target(6))
        call("project", filled(6, c), finite(6), empty(c))
        call("copy", filled(6, c), empty(6, c))
        call("add", filled(6, c), finite(6, c))
        call("negate", filled(6, c))
        call("relu", filled(6, c), empty(6, c))
        call("shift", filled(3, c), filled(3, c), -1, empty(3, c))
        halves, order = filled(6, c), torch.tensor([4, 0, 3, 1, 5, 2])
        call("move", order, halves[:2], halves[2:], halves[:3], halves[3:])
        call("move", None, filled(3, c), None, empty(1, c), empty(2, c))
        answer, x, log_det = 3 * filled(6, c), filled(3, c), filled(c)
        offset, state = torch.tensor(-1.5, dtype=dtype), (empty(3, c), empty(3, c))
        call("scale", answer, offset, 0.5, 3.0, *state)
        for sign in (1, -1):
            curve = sign * offset, 0.5, 3.0 * sign
            call("affine", x, answer, *curve, *state, finite(3, c), empty(3, c))
            pulled = log_det, 4.0 * sign, empty(3, c), filled(6, c)
            call("affine_pull", x, *state[::-1], answer, *pulled)
            call("affine_back", state[1], answer, sign, filled(3, c))
            for number in range(len(CURVES)):
                curve, outputs = (number, 1.5, sign), (empty(3, c), empty(3, c))
                call("curve", answer, *curve, empty(3, c), empty(3, c))
                call("curve_affine", x, answer, *curve, *outputs, finite(3, c), empty(3, c))
                pulled = log_det, float(sign), empty(3, c), filled(6, c)
                call("curve_pull", x, *outputs[::-1], answer, *pulled)

    execute(executor, describe)
    assert {name for name, _ in actual} | {"seed", "drop"} == set(NAMES)
    return actual


@pytest.mark.parametrize("columns", [1, 3, 16, 19, 64, 77])
def test_operations_are_those_of_python(libraries, columns):
    """Each operation equals float64 to a few roundings, NaN and infinity included, in each set.

    In any order a sum of n terms has at most an error of n roundings of the sum of |terms|
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, equation 3.5).
    """
    exact, size, terms = (
        outcomes(Executor("cpu"), torch.float64, columns, replace)
        for replace in (None, torch.abs, torch.ones_like)
    )
    for path in libraries.values():
        actual = outcomes(NativeExecutor(native.Backend(Library(path))), torch.float32, columns)
        for (name, a), (_, b), (_, total), (_, n) in zip(actual, exact, size, terms, strict=True):
            rounding = torch.finfo(torch.float32).eps / 2
            allowed = 2e-6 * b.abs() + 1e-6
            if name in SUMS:
                allowed = (n + 2) * rounding * total  # 2 for a bias and a scale
            near = (a.double() - b).abs() <= allowed
            same = (a == b) | (a.isnan() & b.isnan())
            assert torch.where(b.isfinite(), near, same).all(), (path.name, name)


def test_functions_are_exact_to_a_few_roundings(libraries):
    """Sigmoid and power of two, from where they vanish to where they overflow."""
    raw = torch.cat((torch.linspace(-120, 120, 40_001), torch.tensor([torch.inf, -torch.inf])))
    sigmoid, factor = torch.empty_like(raw), torch.empty_like(raw)
    for path in libraries.values():
        for start, width in ((0.0, 2.0), (-160.0, 300.0)):

            def describe(ops, start=start, width=width):
                ops.scale(raw, torch.tensor(start), 1.0, width, sigmoid, factor)

            execute(NativeExecutor(native.Backend(Library(path))), describe)
            exact = torch.sigmoid(raw.double()).float()
            assert torch.allclose(sigmoid, exact, rtol=4e-7, atol=1e-38)
            power = torch.exp2(start + width * sigmoid.double()).float()
            bits = 2e-7 * (1 + width)  # the exponent is rounded to float32
            finite = torch.isfinite(power) & torch.isfinite(factor)
            assert torch.allclose(factor[finite], power[finite], rtol=bits, atol=2e-45)
            assert (power[~finite] > 3e38).all()
            assert (factor[~finite] > 3e38).all()


def test_dropout_has_the_bytes_of_torch(libraries):
    """The generator in C draws the words that torch draws, through several of its blocks."""
    words, seed = torch.empty(1000, dtype=torch.int64), torch.tensor(2**32 - 3)
    levels = words.view(torch.uint8).view(8, 1000)
    for path in libraries.values():
        h, dropped, draws = torch.ones(8, 1000), torch.empty(8, 1000).bool(), torch.Generator()

        def describe(ops, draws=draws, dropped=dropped, h=h):
            ops.seed(draws, seed)
            for _ in range(3):
                ops.drop(draws, words, levels, 100, 1.5, dropped, h)

        execute(NativeExecutor(native.Backend(Library(path))), describe)
        actual, mine = words.clone(), h.clone()
        h.fill_(1)
        execute(Executor("cpu"), describe)
        assert torch.equal(actual, words)
        assert torch.equal(mine, h)


@pytest.fixture
def recorded(monkeypatch):
    """Returns the tapes that are made from now on."""
    tapes = []
    record = NativeExecutor._record
    monkeypatch.setattr(
        NativeExecutor, "_record", lambda self, job: tapes.append(job) or record(self, job)
    )
    return tapes


def step(stack, x):
    """Returns the results of a training step that changes the weights in place."""
    actual = result_of(stack, "forward", x)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(1.1)
    return actual


@pytest.mark.usefixtures("chunked", "backend")
@pytest.mark.parametrize("memory", MEMORY)
def test_a_tape_is_recorded_once(threads, recorded, memory):
    """The first step records a tape for each chunk and direction; later steps execute it."""
    threads(2)
    stack = stack_of(5, 6, (8, 8), memory=memory, dtype=torch.float32, dropout=0.2).train()
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
    stack = stack_of(5, 6, (8, 8), dtype=torch.float32)
    results = []
    for expected in ("", "0"):
        monkeypatch.setenv("KAPPAFLOW_NATIVE", expected)
        mine, actual = copy.deepcopy(stack), []
        for seed in range(6):
            torch.manual_seed(seed)
            x = torch.randn(70, 5)
            actual.append(step(mine, x))
            if seed % 2:
                for parameter in mine.parameters():
                    parameter.data = parameter.data / 1.2
        results.append(actual)
    for first, second in zip(*results, strict=True):
        assert_alike(first, second, 1e-5)


@pytest.mark.usefixtures("chunked", "backend", "pool")
def test_tapes_of_two_stacks_are_kept_apart(threads, monkeypatch):
    """Stacks of one shape share buffers, and neither executes the other's tape."""
    threads(2)
    stacks = [stack_of(5, 6, (8, 8), dtype=torch.float32) for _ in range(2)]
    step(stacks[1], points(stacks[1], 70, dtype=torch.float32)[0])
    x, _ = points(stacks[0], 70, dtype=torch.float32)
    for _ in range(2):
        for stack in stacks:
            expected, actual = both(monkeypatch, stack, "forward", x, None)
            assert_alike(actual, expected, 1e-5)


@pytest.mark.usefixtures("chunked", "backend", "pool")
@pytest.mark.parametrize("number", [1, 2])
def test_gradients_stay_as_they_are(threads, number):
    """A later step writes its gradients into other memory, with the same tapes."""
    threads(number)
    stack = stack_of(5, 6, (8, 8), dtype=torch.float32)
    steps = []
    for seed in range(3):
        value, log_det = stack(points(stack, 70, dtype=torch.float32, seed=seed)[0])
        loss = value.square().sum() + log_det.sum()
        actual = torch.autograd.grad(loss, list(stack.parameters()))
        steps.append((actual, [t.clone() for t in actual]))
    for actual, copies in steps:
        assert all(map(torch.equal, actual, copies))
    assert not torch.equal(steps[0][0][0], steps[1][0][0])


def test_what_a_tape_depends_on_is_remembered():
    """A key of its own is recorded once, the oldest is forgotten, and None is never known."""
    tapes, recorded_keys = TapeCache(), []

    def tape(key, kind="native"):
        def record(job):
            recorded_keys.append(job.key)
            return len(recorded_keys)

        return tapes.get(kind, Job(print, tapes, key), record)

    assert tape("first") == tape("first") == 1
    assert tape("first", kind="eager") == 2
    assert tape(None) != tape(None)
    for key in range(MOST):
        tape(key)
    assert tape("first") == len(recorded_keys)


def execute(executor, *describe):
    """Executes what functions call, all at the same time."""
    jobs = [Job(ops, TapeCache(), None) for ops in describe]
    executor.run([[lambda job=job: iter([job])] for job in jobs])


@pytest.mark.slow
def test_the_interpreter_runs_on(backend):
    """While a tape is executed another thread of Python can do something."""
    a, target = torch.ones(700, 700), torch.empty(700, 700)
    started, counted = threading.Event(), []

    def describe(ops):
        for _ in range(300):
            ops.add_product(a, a, 0, target)
        started.set()

    def play():
        execute(NativeExecutor(backend), describe)

    other = threading.Thread(target=play)
    other.start()
    started.wait()
    while other.is_alive():
        counted.append(None)
    assert len(counted) > 1000


@pytest.mark.usefixtures("chunked")
def test_other_products_and_threads_are_right(libraries, threads, monkeypatch):
    """Where torch exports nothing, scipy's products run on Python's threads, each on one."""
    threads(2)
    stack = stack_of(5, 6, (8, 8), dtype=torch.float32)
    x, _ = points(stack, 70, dtype=torch.float32)
    expected = result_of(stack, "forward", x)
    before, address = threadpool_info(), package.address_in_torch
    for missing in ({"sgemm_"}, {"torch_parallel_for"}, {"MKL_Set_Num_Threads_Local"}):
        with monkeypatch.context() as patch:
            for module in (package, native):
                patch.setattr(
                    module, "address_in_torch", lambda n, m=missing: None if n in m else address(n)
                )
            built = native.Backend(Library(list(libraries.values())[-1]))
            patch.setattr(native, "backend", lambda actual=built: actual)
            assert built.loop is None
            assert_alike(result_of(stack, "forward", x), expected, 1e-5)
    assert threadpool_info() == before


def test_what_the_backend_does_not_read_runs_in_python(backend, monkeypatch):
    """Other dtypes, strides and devices, and KAPPAFLOW_NATIVE=0."""
    narrow, wide = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float64)

    def kind(*tensors, product_dtype=torch.float32):
        return type(native.executor(tensors, product_dtype))

    assert kind(narrow, narrow) is NativeExecutor
    assert package.describe() == f"native backend ({backend._library.instructions})"
    for tensors in ((wide, narrow), (narrow, wide), (narrow, narrow.T), (narrow.to("meta"),)):
        assert kind(*tensors) is Executor
    assert kind(narrow, product_dtype=torch.bfloat16) is Executor
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")
    assert kind(narrow) is Executor
    assert package.describe() == "no native backend"


def test_a_library_of_another_source_warns_once(libraries, use, monkeypatch, tmp_path):
    """A file that is out of date or damaged is not used; a missing one is no cause for a word."""
    assert use(tmp_path / "missing.so") is None
    (tmp_path / "damaged.so").write_text("not a library")
    with pytest.warns(
        RuntimeWarning, match=r"damaged\.so.* Python code runs instead\. Reinstall kappaflow"
    ):
        assert use(tmp_path / "damaged.so") is None
    shutil.copytree(package.FOLDER, tmp_path / "changed")
    (tmp_path / "changed" / "tapes.c").write_text("\n")
    monkeypatch.setattr(package, "FOLDER", tmp_path / "changed")
    with pytest.warns(RuntimeWarning, match="not compiled from") as caught:
        assert [use(libraries["default"]), native.backend()] == [None, None]
    assert len(caught) == 1


def test_the_library_of_the_processor_is_chosen(monkeypatch, tmp_path):
    """Its own set of instructions, or the common one if there is no file for it."""
    monkeypatch.setattr(package, "FOLDER", tmp_path)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert package.path_of_library().name == "native_default.so"
    (tmp_path / "native_avx2.so").touch()
    assert package.path_of_library().name == "native_avx2.so"


def test_a_wheel_has_the_libraries_and_its_platform(build, monkeypatch, tmp_path):
    """With a compiler it is tagged for any Python on this platform; without one it is pure."""
    warned, data = [], {"artifacts": []}
    app = types.SimpleNamespace(display_warning=warned.append)
    hook = types.SimpleNamespace(app=app, root=str(tmp_path))
    monkeypatch.setattr(build, "compile_all", lambda: [tmp_path / "native" / "native_avx2.so"])
    build.CustomBuildHook.initialize(hook, "standard", data)
    assert data["artifacts"] == ["/native/native_avx2.so"]
    assert re.fullmatch(r"py3-none-\w+", data["tag"])
    assert not data["pure_python"]
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    pure = {"artifacts": []}
    build.CustomBuildHook.initialize(hook, "standard", pure)
    assert pure == {"artifacts": []}
    assert warned == ["kappaflow is built without its native backend: there is no C compiler"]


def test_a_compiler_that_fails_leaves_nothing(build, monkeypatch, tmp_path):
    """Neither a library nor a half of one."""
    monkeypatch.setenv("CC", f"{sys.executable} -c 'import sys; sys.exit(1)'")
    with pytest.raises(subprocess.CalledProcessError):
        build.compile_all(tmp_path)
    assert not list(tmp_path.iterdir())
