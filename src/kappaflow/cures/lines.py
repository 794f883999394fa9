"""The lines to change in code of the reader's own that makes a flow of any library."""

import ast
from collections.abc import Iterator

from torch import nn

from kappaflow.cures.edits import Text
from kappaflow.cures.steps import asks_for_float64
from kappaflow.cures.their_arguments import BOUNDS, Arguments
from kappaflow.diagnosis import Diagnosis

UNBOUNDED = ("KF101", "KF102", "KF301", "KF302", "KF303")  # above a note
STARTS = "KF401"
DENSITY_OF_DRAWS = "KF206"


def lines_to_change(source: str, file: str, name: str, flow: object, found: Diagnosis) -> str:
    """Returns what to change in a file that makes a flow, as a diff that `patch -p0` takes.

    Scales get a bound where layers of the library have an argument for one; a flow that float32 is
    too narrow for is made in float64; norms that wait for their first data get it; a density that
    comes with samples, and is wrong, is asked for on its own.

    Args:
        source: The text of the file.
        file: Its name.
        name: Of the flow in it, or of the function that makes the flow.
        flow: What it makes.
        found: What the doctor says of it.

    Returns:
        The diff, empty where there is no such line.
    """
    text = Text(source)
    codes = {one.code for one in found.findings if one.severity != "note"}
    if codes & set(UNBOUNDED):
        _bound_scales(text, _libraries(flow))
    if DENSITY_OF_DRAWS in codes:
        _ask_for_log_prob(text)
    if isinstance(flow, nn.Module):
        for place in _places(text.tree, name):
            if any(one.code == STARTS for one in found.findings):
                _start_norms(text, place, flow)
            if asks_for_float64(found):
                _in_float64(text, place, name)
    return text.diff(file)


def _libraries(flow: object) -> set[str]:
    """Returns the packages that a flow and its parts are of."""
    parts = list(flow.modules()) if isinstance(flow, nn.Module) else [flow]
    parts += getattr(flow, "transforms", None) or []  # of a distribution
    return {type(part).__module__.split(".")[0] for part in parts}


def _bound_scales(text: Text, libraries: set[str]) -> None:
    """Sets the arguments that bound scales, wherever a layer of a library with such is made."""
    known = _imported(text.tree)
    needs_root: set[str] = set()
    for node in ast.walk(text.tree):
        if not isinstance(node, ast.Call):
            continue
        for part in (node.func, *node.args):
            library, arguments = _bounds_of(_full_name(part, known))
            if library not in libraries:
                continue
            for name, value in arguments.items():
                written = next((arg for arg in node.args if isinstance(arg, ast.Dict)), None)
                if part is not node.func and written is not None:
                    text.set_key(written, name, value)
                else:
                    text.set_keyword(node, name, value)
                if f"{library}." in value and known.get(library) != library:
                    needs_root.add(library)
    for library in sorted(needs_root):
        text.insert_line(_first_statement(text.tree), f"import {library}")


def _first_statement(tree: ast.Module) -> ast.stmt:
    """Returns the first statement that an import may stand in front of."""

    def comes_first(statement: ast.stmt) -> bool:
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        return is_future or isinstance(statement, ast.Expr)  # a docstring

    return next(one for one in tree.body if not comes_first(one))


def _bounds_of(full_name: str) -> tuple[str, Arguments]:
    library, last = full_name.split(".")[0], full_name.rsplit(".", 1)[-1]
    return library, BOUNDS.get((library, last), {})


def _imported(tree: ast.Module) -> dict[str, str]:
    """Returns what names of imports stand for: {"Fm": "FrEIA.modules"}."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                known[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return known


def _full_name(node: ast.expr, known: dict[str, str]) -> str:
    """Returns the dotted name that an expression stands for, empty where it is none."""
    if isinstance(node, ast.Name):
        return known.get(node.id, "")
    if isinstance(node, ast.Attribute):
        before = _full_name(node.value, known)
        return f"{before}.{node.attr}" if before else ""
    return ""


def _ask_for_log_prob(text: Text) -> None:
    """Takes `x, log_prob = flow.sample(n, return_log_prob=True)` apart."""
    for node in ast.walk(text.tree):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, call = node.targets[0], node.value
        if not (isinstance(target, ast.Tuple) and len(target.elts) == 2):
            continue
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        flag = next((one for one in call.keywords if one.arg == "return_log_prob"), None)
        if flag is None:
            continue
        x, log_prob = map(text.of, target.elts)
        text.replace(target, x)
        text.replace(flag.value, "False")
        text.insert_line_after(node, f"{log_prob} = {text.of(call.func.value)}.log_prob({x})")


Place = ast.Return | ast.Assign


def _places(tree: ast.Module, name: str) -> Iterator[Place]:
    """Yields the statements in which a flow of this name is returned or named."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.Return))
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            yield node


def _in_float64(text: Text, place: Place, name: str) -> None:
    """Makes what is returned, or named, float64."""
    value = place.value
    if value is None:
        return
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    if isinstance(place, ast.Assign) and len(parts) == 1:
        text.insert_line_after(place, f"{name} = {name}.double()")
        return
    for part in parts:
        plain = isinstance(part, ast.Name | ast.Attribute | ast.Call | ast.Subscript)
        text.surround(part, *(("", ".double()") if plain else ("(", ").double()")))


def _start_norms(text: Text, place: Place, made: nn.Module) -> None:
    """Calls a flow once on its points before it is returned with them."""
    value = place.value
    if not (isinstance(place, ast.Return) and isinstance(value, ast.Tuple)):
        return
    flow, x, *context = (text.of(part) for part in value.elts)
    named = all(word.isidentifier() for word in (flow, x, *context))
    if not named or "torch" not in _imported(text.tree):
        return
    if hasattr(made, "log_prob"):
        call = f"{flow}.log_prob({', '.join((x, *context))})"
    elif "FrEIA" in _libraries(made):
        call = f"{flow}({', '.join((x, *(f'[{one}]' for one in context)))})"
    else:
        return
    for line in (
        f"{flow}.train()",
        "with torch.no_grad():",
        f"    {call}  # its norms start from these rows",
        f"{flow}.eval()",
    ):
        text.insert_line(place, line)
