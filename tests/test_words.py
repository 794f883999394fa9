"""The vocabulary of the repository: no private dialect."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = {
    r"anew": "again",
    r"beside": "next to, compared with",
    r"said": "the name of the message",
    r"told": "the name of what receives the message",
    r"goes on": "resumes, continues",
    r"in words(?=[.,;])": "as text",
    r"in the mean(?! (over|square))": "on average",
    r"mend(s|ed)?": "fix",
    r"pilot": "model search",
    r"far_apart|staircases|least_numbers": "packing, quantizer, min_parameters",
}


@cache
def texts():
    """Returns the path and the text of each file."""
    folders = ("src", "benchmarks", "tests", "faults", "tools")
    files = [path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")]
    files.remove(Path(__file__))
    files += [*ROOT.glob("*/**/*.jinja"), *ROOT.glob("docs/**/*.md")]
    files += ROOT.glob("docs/**/*.tex")
    files += [ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")]
    names = [path.relative_to(ROOT).as_posix() for path in files]
    return [(name, (ROOT / name).read_text("utf-8")) for name in names if "_build" not in name]


@pytest.mark.parametrize("word", BANNED)
def test_no_file_uses_a_word_of_the_old_dialect(word):
    """Each line that does is listed; `BANNED` has the plain word."""
    pattern = re.compile(rf"\b({word})\b", re.IGNORECASE)
    lines = [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts()
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not lines, f"write {BANNED[word]!r} instead:\n" + "\n".join(lines)


def test_a_banned_word_is_found():
    """The patterns match whole words only."""
    pattern = re.compile(rf"\b({'|'.join(BANNED)})\b", re.IGNORECASE)
    assert pattern.search("made anew") and pattern.search("returned in words.")
    assert not pattern.search("renewed") and not pattern.search("for word in words:")
