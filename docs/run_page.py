"""Runs the blocks of a page in a folder, in order: python docs/run_page.py PAGE.md FOLDER.

Python blocks run in the order of the page, and in between the `kappaflow` lines of blocks that are
marked "sh"; "# exit status 2" after a line states its exit status. Blocks without a
language are for reading. tests/docs does the same in a short form.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LENGTHS = re.compile(r"(max_epochs=|--max-epochs |--steps |max_time_s=)\d+")
STATUS = re.compile(r"# exit status (\d)$")


def code_of(text: str, *, short: bool = False) -> str:
    """Returns the code of a page, a line for each of the page.

    Args:
        text: The page, as Markdown.
        short: Trainings take one epoch, and a Glow has one step in each level.

    Returns:
        One Python program.
    """
    found, line = [], 0
    for match in BLOCK.finditer(text):
        start = text.count("\n", 0, match.start(2))
        code = LENGTHS.sub(r"\g<1>1", match[2]) if short else match[2]
        found.append("\n" * (start - line) + (code if match[1] == "python" else commands(code)))
        line = start + match[2].count("\n")
    return "".join(found)


def commands(text: str) -> str:
    """Returns Python that runs the commands of a block in its own process, line by line."""
    lines, begun = [], ""
    for line in text.splitlines():
        begun += line
        if line.endswith("\\"):
            begun = begun[:-1]
            lines.append("\n")
            continue
        words, status = shlex.split(begun, comments=True), STATUS.search(begun)
        if words and words[0] != "kappaflow":
            raise ValueError(f"a block marked sh should hold kappaflow's commands, got {begun!r}")
        call = f"from kappaflow.cli.app import main; done = main({words[1:]})"
        wanted = int(status[1]) if status else 0
        lines.append(f"{call}; assert done == {wanted}, done\n" if words else "\n")
        begun = ""
    return "".join(lines)


if __name__ == "__main__":
    page, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    code = (folder / page.name).with_suffix(".py")
    code.write_text(code_of(page.read_text("utf-8")), "utf-8")
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    sys.exit(subprocess.run([sys.executable, code.name], cwd=folder, env=one_thread).returncode)
