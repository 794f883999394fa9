"""The examples of docs/converting.md run unchanged."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "converting.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
LIBRARIES = ("zuko", "nflows", "normflows", "FrEIA")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs(number, tmp_path, monkeypatch):
    """If its library is installed."""
    text = BLOCKS[number]
    for library in LIBRARIES:
        if re.search(rf"^(import|from) {library}\b", text, re.MULTILINE):
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, f"converting.md, {number}", "exec"), {"__name__": "example"})


def test_there_is_an_example_for_each_library():
    """And one of a flow that is refused."""
    text = "\n".join(BLOCKS)
    assert all(re.search(rf"^(import|from) {name}\b", text, re.MULTILINE) for name in LIBRARIES)
    assert "ConversionError" in text
