"""Builds the papers in docs/papers as PDF, for `make papers`; needs pdflatex and rsvg-convert.

Figures and the table of divergences come from committed results. Any warning of LaTeX is an error.
On Debian: apt-get install --no-install-recommends texlive-latex-recommended
texlive-fonts-recommended librsvg2-bin.
"""

import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent
PAPERS = DOCS / "papers"
NAMES = "couplings", "universal"
RESULTS = DOCS / "experiments" / "universal"
FIGURES = {
    "worst-maps": DOCS / "theory" / "worst-maps.svg",
    "rates": RESULTS / "figures" / "rates.svg",
    "every-point": RESULTS / "figures" / "every-point.svg",
}
DIVERGENCES = RESULTS / "divergence.csv"
SETTINGS = "32 on [-3, 3]", "512 on [-6, 6]"  # number of cells and their range, of the rows shown
SOURCES = sorted([*PAPERS.glob("*.tex"), *FIGURES.values(), DIVERGENCES])
SUMS = PAPERS / "SHA256SUMS"
DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
POWER = re.compile(r"([0-9.]+)\s×\s10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)")
TROUBLE = re.compile(r"^(?:! .*|.*(?:Warning|Overfull|Underfull).*)$", re.MULTILINE)
SAME_TIME = {**os.environ, "SOURCE_DATE_EPOCH": "0"}  # the same sources make the same bytes
TOOLS = "pdflatex", "rsvg-convert"


def tex(text: str) -> str:
    """Returns a cell of a table of results in LaTeX."""
    text = re.sub(r"\[-(\d), \d\]", r"$[-\1, \1]$", text.replace("±", r"$\pm$"))
    return POWER.sub(lambda m: rf"${m[1]} \cdot 10^{{{m[2].translate(DIGITS)}}}$", text)


def divergence_rows() -> str:
    """Returns the rows of the table of divergences."""
    with DIVERGENCES.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row[0].endswith(SETTINGS)]
    return "".join(" & ".join(map(tex, row)) + r" \\" + "\n" for row in rows)


def checksums() -> str:
    """Returns the SHA-256 of all that the papers are made of, a line for each file."""
    sums = [(hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in SOURCES]
    return "".join(f"{digest}  {path.relative_to(DOCS)}\n" for digest, path in sums)


def build(folder: Path) -> None:
    """Writes the papers as PDF into a folder; raises RuntimeError with the warnings of LaTeX."""
    parts = folder / "build"
    parts.mkdir(parents=True, exist_ok=True)
    if folder != PAPERS:
        for path in PAPERS.glob("*.tex"):
            shutil.copy(path, folder)
    for name, source in FIGURES.items():
        command = ["rsvg-convert", "-f", "pdf", "-o", parts / f"{name}.pdf", source]
        subprocess.run(command, env=SAME_TIME, check=True)
    (parts / "divergence.tex").write_text(divergence_rows(), "utf-8")
    for name in NAMES:
        for _ in range(2):  # the first run collects the references
            latex(name, folder)
        code, output = latex(name, folder)
        problems = TROUBLE.findall(output)
        if code or problems:
            raise RuntimeError("\n".join(problems) or output[-2000:])
        shutil.copy(parts / f"{name}.pdf", folder)


def latex(name: str, folder: Path) -> tuple[int, str]:
    """Returns the exit status and the output of pdflatex in a folder."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-output-directory=build"]
    done = subprocess.run(
        [*command, f"{name}.tex"],
        cwd=folder,
        env=SAME_TIME,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.returncode, done.stdout


def missing() -> list[str]:
    """Returns the programs and the packages of LaTeX that are not installed."""
    if tools := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return tools
    used = re.findall(r"\\usepackage(?:\[.*\])?\{(.*)\}", (PAPERS / "preamble.tex").read_text())
    files = [f"{name}.sty" for names in used for name in names.split(",")]
    return [
        file
        for file in files
        if subprocess.run(["kpsewhich", file], capture_output=True, check=False).returncode
    ]


if __name__ == "__main__":
    if absent := missing():
        sys.exit(f"Not installed: {', '.join(absent)}.\n{__doc__}")
    build(PAPERS)
    SUMS.write_text(checksums(), "utf-8")
