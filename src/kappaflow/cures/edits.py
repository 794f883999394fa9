"""Python text with other arguments, other returned values and lines put in, as a diff."""

import ast
import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """Bytes `start` to `end` of a text become others."""

    start: int
    end: int
    text: str


class Text:
    """Python text, its tree, and edits of it that are collected.

    Args:
        source: The text.

    Raises:
        SyntaxError: It is no Python.
    """

    def __init__(self, source: str) -> None:
        self._bytes = source.encode()
        self._lines = [0]
        for line in self._bytes.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self.tree = ast.parse(source)
        self._edits: list[Edit] = []

    def of(self, node: ast.expr) -> str:
        """Returns the text of an expression."""
        return self._bytes[self._start(node) : self._end(node)].decode()

    def replace(self, node: ast.expr, text: str) -> None:
        """Puts a text in the place of an expression."""
        self._edits.append(Edit(self._start(node), self._end(node), text))

    def surround(self, node: ast.expr, before: str, behind: str) -> None:
        """Puts texts in front of and behind an expression, within which there can be edits."""
        for place, text in ((self._start(node), before), (self._end(node), behind)):
            self._edits.append(Edit(place, place, text))

    def insert_line(self, before: ast.stmt, text: str) -> None:
        """Puts a line in front of a statement, as far to the right."""
        decorators = getattr(before, "decorator_list", ())
        first = min([before.lineno, *(one.lineno for one in decorators)])
        start = self._lines[first - 1]
        self._edits.append(Edit(start, start, f"{' ' * before.col_offset}{text}\n"))

    def insert_line_after(self, statement: ast.stmt, text: str) -> None:
        """Puts a line behind a statement, as far to the right."""
        end = self._lines[statement.end_lineno or statement.lineno]
        self._edits.append(Edit(end, end, f"{' ' * statement.col_offset}{text}\n"))

    def set_keyword(self, call: ast.Call, name: str, text: str) -> None:
        """Gives a call a keyword argument, or another value of it."""
        for keyword in call.keywords:
            if keyword.arg == name:
                self.replace(keyword.value, text)
                return
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        if given:
            end = self._behind(max(map(self._end, given)), self._end(call) - 1)
            self._edits.append(Edit(end, end, f", {name}={text}"))
        else:
            end = self._end(call) - 1
            self._edits.append(Edit(end, end, f"{name}={text}"))

    def set_key(self, dictionary: ast.Dict, name: str, text: str) -> None:
        """Gives a dictionary that is written out an entry, or another value of it."""
        for key, value in zip(dictionary.keys, dictionary.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == name:
                self.replace(value, text)
                return
        end = self._end(dictionary) - 1
        before = ", " if dictionary.values else ""
        if dictionary.values:
            end = self._behind(max(map(self._end, dictionary.values)), end)
        self._edits.append(Edit(end, end, f"{before}{name!r}: {text}"))

    def diff(self, name: str) -> str:
        """Returns the edits as a unified diff of a file of this name; empty if there are none."""
        changed = self._bytes
        in_order = sorted(dict.fromkeys(self._edits), key=lambda edit: edit.start)
        for edit in reversed(in_order):  # of one place, the first ends up first
            changed = changed[: edit.start] + edit.text.encode() + changed[edit.end :]
        before, after = (
            text.decode().splitlines(keepends=True) for text in (self._bytes, changed)
        )
        return "".join(difflib.unified_diff(before, after, name, name))

    def _behind(self, end: int, last: int) -> int:
        """Returns where an expression ends with its brackets, of which the tree says nothing."""
        for place in range(end, last):
            letter = self._bytes[place : place + 1]
            if letter == b")":
                end = place + 1
            elif not letter.isspace():
                break
        return end

    def _start(self, node: ast.expr) -> int:
        return self._lines[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr) -> int:
        return self._lines[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
