"""The order of the layout, and what no file may do."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "kappaflow"
FILES = sorted(SOURCE.rglob("*.py"))
STUDIES = sorted((ROOT / "src" / "kappaflow_studies").rglob("*.py"))
WIDTH = 31  # of the column of names in ARCHITECTURE.md


def _layout():
    """Returns the names of ARCHITECTURE.md's import order, in order."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    block = text.partition("## Import order")[2].split("```")[1].strip("\n")
    return [name for line in block.splitlines() for name in line[:WIDTH].split()]


LAYOUT = _layout()
PLACE = {name: i for i, name in enumerate([*LAYOUT, "__main__"])}
LOADERS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.jit.load"}
LOADERS |= {"torch.hub.load", "yaml.load", "pd.read_pickle", "pandas.read_pickle"}
LAST_NAMES = {name.rpartition(".")[2] for name in LOADERS}
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def name_of(path):
    """Returns a file's path below src."""
    return str(path.relative_to(ROOT / "src"))


@cache
def tree_of(path):
    """Returns the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def nodes_of(path, *, types=True):
    """Yields the nodes of a file; without those under TYPE_CHECKING if `types` is false."""
    queue = [tree_of(path)]
    for node in queue:
        yield node
        only_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        queue += [] if only_types and not types else ast.iter_child_nodes(node)


@cache
def imported_modules(path, *, types=True):
    """Returns the full names of all modules and names that a file imports, also in functions."""
    names = []
    for node in nodes_of(path, types=types):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} should import by full name"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "kappaflow"
        ):
            names.append(f"kappaflow.{node.attr}")
    return names


def home_of(path):
    """Returns the entry of the layout that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_file_has_a_place_in_the_layout():
    """A new module is put in its line."""
    assert [name_of(path) for path in FILES if home_of(path) not in {"__init__", *PLACE}] == []


def imports_from_below(path):
    """Yields a sentence for each import of a file that the import order does not allow."""
    home = home_of(path)
    if home == "__init__":  # `kappaflow` itself loads its names lazily
        return
    for module in imported_modules(path):
        if not module.startswith("kappaflow.") or module == "kappaflow.__version__":
            continue
        entry = module.split(".")[1]
        if entry != home and PLACE.get(entry, len(LAYOUT)) >= PLACE[home]:
            yield f"{name_of(path)} should not import {module}: it is not above {home!r}"


def test_files_import_only_from_lines_above_their_own():
    """The import order is the architecture."""
    assert [problem for path in FILES for problem in imports_from_below(path)] == []


HANGING = LAYOUT[LAYOUT.index("cli") + 1 :]  # packages of the library that the core loads by name
STUDY = "kappaflow_studies"


def test_no_file_of_the_core_imports_what_hangs_on_it():
    """The core loads these packages and the studies by name and works without them."""
    for path in FILES:
        if home_of(path) in {"__init__", *HANGING}:
            continue
        packages = {".".join(name.split(".")[:2]) for name in imported_modules(path)}
        assert not packages & {f"kappaflow.{name}" for name in HANGING}, name_of(path)
        assert not [name for name in packages if name.startswith(STUDY)], name_of(path)


def import_graph():
    """Returns the files that each file imports, also in functions, by module names."""
    files = {}
    for path in [*FILES, *STUDIES]:
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        files[name.removesuffix(".__init__")] = path
    graph = {}
    for name, path in files.items():
        modules = {module_of(target, files) for target in imported_modules(path, types=False)}
        graph[name] = modules - {None, name, "kappaflow"}
    return graph


def module_of(name, files):
    """Returns the module of our own that a full name belongs to, or None."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name or None


def test_no_files_import_one_another_in_a_circle():
    """Apart from annotations, any file can be read before those that import it."""
    try:
        TopologicalSorter(import_graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_file_is_longer_than_450_lines():
    """A longer file holds more than one topic."""
    lines = {name_of(path): path.read_text("utf-8").count("\n") for path in [*FILES, *STUDIES]}
    assert {name: count for name, count in lines.items() if count > 450} == {}


def unsafe_code(path):
    """Yields a sentence for each import, call or statement of a file that may not be there."""
    for module in imported_modules(path):
        if module.split(".")[0] in UNPICKLING | {"tests", "pytest", "hypothesis"}:
            yield f"{name_of(path)} should not import {module}"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assert):
            yield f"{name_of(path)}:{node.lineno} asserts"
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name not in LAST_NAMES:
                continue
            position, called = f"{name_of(path)}:{node.lineno}", ast.unparse(node.func)
            if called in LOADERS:
                yield f"{position} calls {called}"
            safe = ("allow_pickle", "False")
            if called == "np.load" and safe not in [
                (word.arg, ast.unparse(word.value)) for word in node.keywords
            ]:
                yield f"{position} may unpickle"


def test_no_file_unpickles_evaluates_or_asserts():
    """No code runs from data, and users never meet an assert."""
    assert [problem for path in [*FILES, *STUDIES] for problem in unsafe_code(path)] == []


def test_unsafe_code_and_imports_from_below_are_found(tmp_path, monkeypatch):
    """The searches above see what they are for."""
    path = tmp_path / "data.py"
    path.write_text(
        "import pickle\nimport kappaflow.cli\nassert pickle\neval('1')\nnp.load('x.npy')\n"
        "def plot():\n    from kappaflow.plot import latent\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "name_of", lambda path: path.name)
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    assert list(unsafe_code(path)) == [
        "data.py should not import pickle",
        "data.py:3 asserts",
        "data.py:4 calls eval",
        "data.py:5 may unpickle",
    ]
    assert [problem.partition(":")[0] for problem in imports_from_below(path)] == [
        "data.py should not import kappaflow.cli",
        "data.py should not import kappaflow.plot.latent",
    ]


def run_python(code):
    """Returns what a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    return result.stdout.strip()


def test_importing_the_package_does_not_import_torch():
    """`import kappaflow` and the command line's help answer at once."""
    code = "import sys, kappaflow; kappaflow.__version__; print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_every_public_name_is_available():
    """`dir` lists each name of __all__."""
    import kappaflow

    assert all(getattr(kappaflow, name) is not None for name in kappaflow.__all__)
    assert set(kappaflow.__all__) <= set(dir(kappaflow))


def test_a_flow_is_used_without_loading_the_compiler_or_the_studies():
    """Each takes most of a second to import."""
    code = (
        "import sys, kappaflow as kf; arguments = {'inputs': 2, 'outputs': 2}; "
        "kf.registry.build({'name': 'MLP', 'arguments': arguments}); "
        "flows = [kf.real_nvp(2, depth=2), kf.spline(2)]; "
        "[flow.log_prob(flow.sample(3)) for flow in flows]; "
        "given = kf.real_nvp(2, depth=2, context_features=1); import torch; "
        "given.log_prob(given.sample(3, torch.ones(3, 1)), torch.ones(3, 1)); "
        "names = 'torch._dynamo', 'sympy', 'kappaflow_studies'; "
        "print([name for name in names if name in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_the_import_order_names_what_there_is():
    """ARCHITECTURE.md lists every module and package, once, and no other."""
    assert sorted(LAYOUT) == sorted({home_of(path) for path in FILES} - {"__init__", "__main__"})


@pytest.mark.slow
def test_the_library_works_without_the_studies():
    """All public names load, and an unknown name in a model file is reported as ever."""
    code = (
        "import sys; sys.modules['kappaflow_studies'] = None; import kappaflow as kf; "
        "[getattr(kf, name) for name in kf.__all__ if name != 'theory']\n"
        "try: kf.registry.build({'name': 'Ring', 'arguments': {}})\n"
        "except kf.errors.FileError as error: print(error)"
    )
    assert run_python(code).startswith("'Ring' is not registered: import the module")


def test_an_unknown_name_is_an_attribute_error():
    """As for any module; it names what users of other libraries look for."""
    import kappaflow

    for name, hint in (
        ("nothing", r"has no attribute 'nothing'\."),
        ("RealNVP", "'RealNVP': did you mean 'real_nvp'"),
        ("NSF", "did you mean 'spline'"),
        ("MAF", "did you mean 'zuko_flow"),
        ("Realnvp", "did you mean 'real_nvp'"),
        ("ActNorm", "did you mean 'bijections.ActNorm'"),
        ("DiagGaussian", "did you mean 'flows.DiagonalNormal'"),
    ):
        with pytest.raises(AttributeError, match=hint):
            getattr(kappaflow, name)
    assert not hasattr(kappaflow, "__wrapped__")


def test_names_of_other_libraries_lead_to_names_that_exist():
    """Each class here is public, and each argument is one of a recipe or of `fit`."""
    import kappaflow as kf
    from kappaflow.flows.recipe import flat_signature
    from kappaflow.names import ARGUMENTS, CLASSES

    for name in CLASSES:
        home, _, last = name.partition("(")[0].rpartition(".")
        assert last in (getattr(kf, home) if home else kf).__all__
    recipes = ("real_nvp", "spline", "glow", "fit")
    known = {key for name in recipes for key in flat_signature(getattr(kf, name)).parameters}
    assert set(ARGUMENTS) <= known | set(kf.training.Settings.model_fields)
