"""The papers have no open references, and a proof of each statement; with LaTeX they build."""

import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAPERS = ROOT / "docs" / "papers"
LIMIT = 500_000  # bytes of a committed PDF
STATEMENTS = "theorem", "lemma", "proposition", "corollary"
BLOCK = re.compile(rf"\\begin\{{({'|'.join(STATEMENTS)}|proof)\}}(\[[^\n]*\])?")


def load():
    """Returns docs/build_papers.py as a module."""
    path = ROOT / "docs" / "build_papers.py"
    spec = importlib.util.spec_from_file_location("build_papers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


papers = load()


def undefined(text):
    """Returns the references and citations without a label or an entry."""
    references = set(re.findall(r"\\(?:eq)?ref\{([^}]*)\}", text))
    cited = {name for group in re.findall(r"\\cite\{([^}]*)\}", text) for name in group.split(",")}
    labels = set(re.findall(r"\\label\{([^}]*)\}", text))
    entries = set(re.findall(r"\\bibitem\{([^}]*)\}", text))
    return sorted((references - labels) | (cited ^ entries))


def unproved(text):
    """Returns the statements that no proof follows before the next statement."""
    kinds = [(found[1], found.start()) for found in BLOCK.finditer(text)]
    following = [*kinds[1:], ("end", len(text))]
    # A proof may stand after its theorem's corollary, if it names the theorem.
    named = set(re.findall(r"\\begin\{proof\}\[[^\n]*\\ref\{([^}]*)\}", text))
    return [
        text[at : at + 60]
        for (kind, at), (after, end) in zip(kinds, following, strict=True)
        if kind != "proof"
        and after != "proof"
        and not named & set(re.findall(r"\\label\{([^}]*)\}", text[at:end]))
    ]


@pytest.mark.parametrize("name", papers.NAMES)
def test_a_paper_defines_what_it_cites_and_proves_what_it_states(name):
    """Labels, bibliography, proofs and figures, as far as the source alone can tell."""
    text = (PAPERS / f"{name}.tex").read_text("utf-8")
    assert undefined(text) == []
    assert unproved(text) == []
    assert set(re.findall(r"\\includegraphics\[[^]]*\]\{([^}]*)\}", text)) <= set(papers.FIGURES)
    assert all(path.exists() for path in papers.FIGURES.values())
    for environment in set(re.findall(r"\\begin\{(\w+\*?)\}", text)):
        begins, ends = (text.count(rf"\{word}{{{environment}}}") for word in ("begin", "end"))
        assert begins == ends, environment


def test_missing_references_and_proofs_are_seen():
    """A planted error of each kind."""
    theorem = r"\begin{theorem}\label{a} x \end{theorem}"
    proof = r"\begin{proof} y \end{proof}"
    assert unproved(theorem + proof) == []
    assert len(unproved(theorem + theorem + proof)) == 1
    assert undefined(r"\ref{a} \label{a} \cite{b,c} \bibitem{b} \bibitem{d}") == ["c", "d"]


@pytest.mark.parametrize("name", papers.NAMES)
def test_a_committed_pdf_is_small(name):
    """Whoever clones the repository pays for it."""
    pdf = (PAPERS / f"{name}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) < LIMIT


def test_the_committed_pdfs_are_of_these_sources():
    """After a change of text, figures or tables: make papers."""
    assert papers.SUMS.read_text("utf-8") == papers.checksums()


def test_the_figures_on_rounding_errors_are_those_of_the_results(monkeypatch):
    """The table, and the sentences on the accuracy of couplings."""
    monkeypatch.syspath_prepend(str(ROOT))
    backward_errors = importlib.import_module("benchmarks.backward_errors")
    results = ROOT / "benchmarks" / "results" / "backward-errors.json"
    lines = json.loads(results.read_text("utf-8"))["lines"]
    table = (PAPERS / "backward-errors.tex").read_text("utf-8")
    assert backward_errors.latex_table(lines) == table
    six, eleven, _, householder, _ = (
        [line for line in lines if line["kind"] == kind] for kind in backward_errors.KINDS
    )
    assert len(six) == 64
    text = (PAPERS / "couplings.tex").read_text("utf-8")
    sentence = re.search(r"inverse, are at most (.*)", text)[1]
    numbers = map(float, re.findall(r"most \$([\d.]+)\$", f"most {sentence}"))
    share, most, of_eleven, of_six, of_kappa = numbers
    for line, other, triangular in zip(six, eleven, householder, strict=True):
        assert line["application"] <= min(share * line["amplification"], most + 0.05)
        assert line["inverse"] <= min(share * line["inverse_amplification"], most + 0.05)
        assert other["residual"] <= of_eleven * other["amplification"]
        assert line["residual"] <= of_six * line["amplification"]
        assert line["residual"] <= of_kappa * triangular["condition_number"]  # that of the map


def test_numbers_of_results_are_typeset_as_formulas():
    """Plus-minus, ranges and powers of ten."""
    assert papers.tex("on [-3, 3]") == "on $[-3, 3]$"
    assert papers.tex("0.1 ± 0.2") == r"0.1 $\pm$ 0.2"
    assert papers.tex("4.58 × 10⁻⁵") == r"$4.58 \cdot 10^{-5}$"
    assert len(papers.divergence_rows().splitlines()) == 10


@pytest.mark.parametrize(
    "number",
    [
        "4.04",
        "4.05",
        "0.56",
        "0.57",
        "1.05",
        "1.07",
        "0.0015",
        "0.0075",
        "2.73",
        "2.72",
        "301",
        "54",
    ],
)
def test_the_numbers_of_the_study_are_those_of_its_page(number):
    """The page is made from the measurements."""
    page = (ROOT / "docs" / "experiments" / "universal.md").read_text("utf-8")
    text = (PAPERS / "universal.tex").read_text("utf-8")
    section = text[text.index(r"\section{Measurements}") : text.index(r"\section{What is open}")]
    number = re.compile(rf"(?<![\d.]){re.escape(number)}(?!\d)")
    assert number.search(section)
    assert number.search(page)


@pytest.mark.slow
def test_the_papers_build_without_warnings(tmp_path):
    """In another folder, so that committed files stay as they are."""
    if absent := papers.missing():
        pytest.skip(f"not installed: {', '.join(absent)}")
    papers.build(tmp_path)
    assert all((tmp_path / f"{name}.pdf").stat().st_size < LIMIT for name in papers.NAMES)
