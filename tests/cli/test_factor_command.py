"""`kappaflow factor`: from a matrix in a file to couplings, a table and a page."""

import dataclasses
import io
import json
import math
import re
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

import kappaflow as kf
from kappaflow.runs import factor


@pytest.fixture
def matrix(tmp_path):
    """Returns the path of a Gaussian matrix of 6 features with a negative determinant."""
    entries = np.random.default_rng(0).standard_normal((6, 6))
    entries[0] *= -np.sign(np.linalg.det(entries))
    np.save(tmp_path / "map.npy", entries)
    return tmp_path / "map.npy"


@pytest.mark.slow
def test_factor_prints_a_line_a_coupling_and_what_the_product_is_worth(run, matrix):
    """Six couplings that take turns, with residual, condition numbers, sign and method."""
    outcome = run("factor", matrix)
    assert outcome.status == 0 and outcome.err == ""
    lines = re.findall(r"^(\d)  +features (\d) to (\d)  +([\d.]+)$", outcome.out, re.MULTILINE)
    assert [line[:3] for line in lines] == [
        (str(i), *(("3", "5") if i % 2 else ("0", "2"))) for i in range(1, 7)
    ]
    facts = dict(re.split("  +", line, maxsplit=1) for line in outcome.out.splitlines()[8:])
    assert float(facts["relative residual"]) < 1e-10
    assert facts["map"] == "6 features in 6 couplings, by continuation"
    assert facts["condition numbers"] == ", ".join(line[3] for line in lines)
    assert facts["sign"] == "one sign flip in coupling 1 of 6"


@pytest.mark.slow
def test_the_same_as_json_leaves_the_matrices_out(run, matrix):
    """What each coupling keeps and changes, and the numbers."""
    result = json.loads(run("factor", matrix, "--json", "--partition", "alternating").out)
    assert [coupling["kept"] for coupling in result["couplings"][:2]] == [[0, 2, 4], [1, 3, 5]]
    own = np.linalg.cond(np.load(matrix))
    assert result["matrix_condition_number"] == pytest.approx(own)
    assert result["condition_number"] == max(c["condition_number"] for c in result["couplings"])
    assert result["features"] == 6 and result["flipped"] == 1
    assert "weight" not in json.dumps(result)


@pytest.mark.slow
def test_a_number_that_is_not_finite_is_null_in_json(run, matrix, monkeypatch):
    """Bare NaN is no JSON."""

    def infinite(*arguments, **settings):
        result = kf.factor_linear(*arguments, **settings)
        return dataclasses.replace(result, residual=math.inf)

    monkeypatch.setattr(factor, "factor_linear", infinite)
    outcome = run("factor", matrix, "--json")
    assert json.loads(outcome.out, parse_constant=pytest.fail)["residual"] is None


@pytest.mark.slow
def test_the_couplings_are_written_and_multiply_to_the_matrix(run, matrix, tmp_path):
    """In float64, readable by anything."""
    out = tmp_path / "couplings.safetensors"
    outcome = run("factor", matrix, "--out", out)
    assert outcome.status == 0 and str(out) in outcome.out
    parts = load_file(out)
    product = np.eye(6)
    for number in range(1, 7):
        factor = np.eye(6)
        kept, changed = (parts[f"coupling.{number}.{name}"] for name in ("kept", "changed"))
        factor[np.ix_(changed, kept)] = parts[f"coupling.{number}.weight"]
        factor[changed, changed] = parts[f"coupling.{number}.diagonal"]
        product = product @ factor
    assert np.allclose(product, np.load(matrix), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_the_page_is_written(run, matrix, tmp_path):
    """The factors and the curve are in it; progress is shown on a terminal only."""
    page = tmp_path / "factors.html"
    outcome = run("factor", matrix, "--report", page)
    assert outcome.status == 0 and outcome.err == ""
    text = page.read_text()
    assert '"factors-6"' in text and '"trade-off"' in text and "map.npy as 6 couplings" in text


def test_a_permutation_comes_through_the_pipe_in_as_few_couplings_as_work(
    run, monkeypatch, tmp_path
):
    """- is csv on standard input, fewest finds four for the exchange of two features."""
    pipe = io.TextIOWrapper(io.BytesIO(b"0,1\n1,0\n"))
    monkeypatch.setattr(sys, "stdin", pipe)
    result = json.loads(run("factor", "-", "--couplings", "fewest", "--json").out)
    assert 1 < len(result["couplings"]) <= 4 and result["residual"] < 1e-14
