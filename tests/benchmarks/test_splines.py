"""Spline couplings are measured next to those of others, and the page says what was found."""

import json
from functools import partial

import pytest
import torch


@pytest.mark.filterwarnings("ignore:Inputs to the softmax:UserWarning")  # of nflows
def test_rows_are_of_one_shape(benchmark):
    """Our networks are as large as those of zuko's couplings; each way comes back."""
    rows, shape = benchmark("splines_rows"), benchmark("splines").shape_of(2, 8, 4)
    sizes = {}
    for row in rows.spline_rows():
        if not row.installed or row.name.endswith("compiled"):
            continue
        model = row.build(shape)
        sizes[row.name] = sum(p.numel() for p in model.module.parameters())
        with torch.no_grad():
            x = shape.data()
            torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=1e-3, atol=1e-3)
            assert model.log_prob(x).shape == (8,) and model.sample(3).shape == (3, 16)
    ours, zuko = sizes["kappaflow, recompute"], sizes.get("zuko, couplings")
    assert zuko is None or ours == zuko


@pytest.mark.slow
def test_a_small_benchmark_runs_end_to_end_to_its_page(benchmark, tmp_path, monkeypatch):
    """Two couplings, narrow networks, two rounds, a row of each kind."""
    file, module = tmp_path / "splines.json", benchmark("splines")
    kinds = ("kappaflow, recompute", "zuko, couplings")
    rows = [row for row in module.spline_rows() if row.name in kinds]
    assert len(rows) == len(kinds)
    monkeypatch.setattr(module, "spline_rows", lambda: rows)
    module.splines(widths=(8,), repetitions=2, depth=2, batch=16, file=file)
    parts = {line["part"] for line in json.loads(file.read_text())["lines"]}
    assert "times" in parts
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-couplings.md").read_text()
    assert "2 couplings of 16 features" in text and "| kappaflow, recompute |" in text
    assert "| zuko, couplings |" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_the_compiled_row_has_the_density_of_the_others(benchmark, monkeypatch):
    """Compiled without code for the processor, which takes a minute."""
    compiled = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled(function))
    found = []
    for row in benchmark("splines_rows").spline_rows():
        if row.name in ("kappaflow, store", "kappaflow, store, compiled"):
            torch.manual_seed(0)
            shape = benchmark("splines").shape_of(2, 8, 4)
            found.append(row.build(shape).log_prob(shape.data()))
    one, other = found
    torch.testing.assert_close(one, other)
