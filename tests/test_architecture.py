"""The order of the layout, and what no file may do."""

import ast
import subprocess
import sys
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
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def name_of(path):
    """Returns a file's path below src."""
    return str(path.relative_to(ROOT / "src"))


def tree_of(path):
    """Returns the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_modules(path):
    """Returns the full names of all modules and names that a file imports, wherever it does."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} should import by full name"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "kappaflow":
            found.append(f"kappaflow.{node.attr}")
    return found


def home_of(path):
    """Returns the entry of the layout that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_has_a_place_in_the_layout(path):
    """A new module is put in its line."""
    assert home_of(path) == "__init__" or home_of(path) in PLACE


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_from_lines_above_its_own(path):
    """The import order is the architecture; `kappaflow` itself loads its names lazily."""
    home = home_of(path)
    if home == "__init__":
        return
    for module in imported_modules(path):
        if not module.startswith("kappaflow.") or module == "kappaflow.__version__":
            continue
        entry = module.split(".")[1]
        allowed = entry == home or PLACE.get(entry, len(LAYOUT)) < PLACE[home]
        assert allowed, f"{name_of(path)} should not import {module}: it is not above {home!r}"


@pytest.mark.parametrize("path", [*FILES, *STUDIES], ids=name_of)
def test_no_file_unpickles_evaluates_or_asserts(path):
    """No code runs from data, and users never meet an assert."""
    for module in imported_modules(path):
        assert module.split(".")[0] not in UNPICKLING | {"tests", "pytest", "hypothesis"}
    for node in ast.walk(tree_of(path)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno} asserts"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in LOADERS, called
            if called == "np.load":
                said = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert said.get("allow_pickle") == "False", f"line {node.lineno} may unpickle"


def run_python(code):
    """Returns what a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return result.stdout.strip()


def test_importing_the_package_does_not_import_torch():
    """`import kappaflow` and the command line's help answer at once."""
    code = "import sys, kappaflow; kappaflow.__version__; print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_every_public_name_can_be_had():
    """Each name of __all__ is there, and `dir` lists it."""
    code = (
        "import kappaflow as kf; [getattr(kf, name) for name in kf.__all__]; "
        "print(set(kf.__all__) <= set(dir(kf)))"
    )
    assert run_python(code) == "True"


def test_a_flow_is_used_without_loading_the_compiler():
    """Which takes torch a second."""
    code = (
        "import sys, torch, kappaflow as kf; flows = [kf.real_nvp(2, depth=2), kf.spline(2)]; "
        "[flow.log_prob(flow.sample(3)) for flow in flows]; print('torch._dynamo' in sys.modules)"
    )
    assert run_python(code) == "False"


def test_the_import_order_names_what_there_is():
    """ARCHITECTURE.md lists every module and package, once, and no other."""
    assert sorted(LAYOUT) == sorted({home_of(path) for path in FILES} - {"__init__", "__main__"})


def test_only_two_places_of_the_library_import_the_studies():
    """Both inside a function: the library works without them."""
    importing = [
        path
        for path in FILES
        if any(name.startswith("kappaflow_studies") for name in imported_modules(path))
    ]
    assert [name_of(path) for path in importing] == ["kappaflow/cli/reproduce.py"]
    for node in tree_of(importing[0]).body:
        assert not (isinstance(node, ast.ImportFrom) and "studies" in str(node.module))


def test_the_library_works_without_the_studies():
    """All public names load, and an unknown name in a model file is reported as ever."""
    code = (
        "import sys; sys.modules['kappaflow_studies'] = None; import kappaflow as kf; "
        "[getattr(kf, name) for name in kf.__all__]\n"
        "try: kf.registry.build({'name': 'Ring', 'arguments': {}})\n"
        "except kf.errors.FileError as error: print(error)"
    )
    assert run_python(code).startswith("'Ring' is not registered: import the module")


def test_a_name_of_the_library_does_not_import_the_studies():
    """They take most of a second; an unknown name imports them, and nothing that it names."""
    code = (
        "import sys, kappaflow as kf; arguments = {'inputs': 2, 'outputs': 2}; "
        "kf.registry.build({'name': 'MLP', 'arguments': arguments}); "
        "print('kappaflow_studies' in sys.modules)"
    )
    assert run_python(code) == "False"


def test_an_unknown_name_is_an_attribute_error():
    """As for any module."""
    import kappaflow

    with pytest.raises(AttributeError, match="No kappaflow attribute nothing"):
        kappaflow.nothing  # noqa: B018
