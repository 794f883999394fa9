"""The order of the layout, and what no file may do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "kappaflow"
FILES = sorted(SOURCE.rglob("*.py"))

# A file imports only from lines above its own, or from its own package.
LAYOUT = [
    ("errors",),
    ("_checks",),
    ("ranks",),
    ("allowance",),
    ("registry",),
    ("domains",),
    ("reading",),
    ("storage",),
    ("locking",),
    ("replay",),
    ("uncompiled",),
    ("memory",),
    ("linearization",),
    ("fingerprints",),
    ("trace",),
    ("steps",),
    ("reversible",),
    ("bijection",),
    ("nets",),
    ("partition",),
    ("bijections",),
    ("stack",),
    ("factor",),
    ("flows",),
    ("files",),
    ("conditioning",),
    ("energies",),
    ("rewrite",),
    ("theory",),
    ("data",),
    ("adapters",),
    ("converting",),
    ("diagnosis", "doctor"),
    ("cures",),
    ("training",),
    ("report",),
    ("runs",),
    ("experiments",),
    ("estimator", "sbi", "testing"),
    ("demo",),
    ("cli",),
    ("__main__",),
]
PLACE = {name: i for i, names in enumerate(LAYOUT) for name in names}
LOADERS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.jit.load"}
LOADERS |= {"torch.hub.load", "yaml.load", "pd.read_pickle", "pandas.read_pickle"}
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def name_of(path):
    """Returns a file's path below the package."""
    return str(path.relative_to(SOURCE))


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


@pytest.mark.parametrize("path", FILES, ids=name_of)
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


def test_an_unknown_name_is_an_attribute_error():
    """As for any module."""
    import kappaflow

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        kappaflow.nothing  # noqa: B018
