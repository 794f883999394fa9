"""The measurements of accelerators run on the CPU in their place."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks.row import ImageShape, Shape


@pytest.fixture
def module(benchmark):
    """The module of the command."""
    return benchmark("gpu")


def uncompiled(flow, *, compiled):
    """Stands for the compiled likelihood."""
    assert compiled
    return lambda x, *, context, is_whole: flow.log_prob(x, context)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has one")
def test_without_an_accelerator_one_sentence_is_printed(module, tmp_path, capsys):
    """With exit status 1, and no file."""
    with pytest.raises(SystemExit) as ended:
        module.gpu(file=tmp_path / "gpu.json")
    assert ended.value.code == 1 and not list(tmp_path.iterdir())
    assert " ".join(capsys.readouterr().err.split()) == module.NONE


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
def test_tiny_measurements_run_on_the_cpu_and_make_the_page(
    module, benchmark, tmp_path, monkeypatch
):
    """Each recipe in each memory mode, beside the peers, with its difference from the CPU."""
    trained = {"1": {"time_s": 3.0, "nll": 2.0}, "2": {"time_s": 2.0, "nll": 2.0}}
    monkeypatch.setattr(module, "_ranks", lambda *_: trained)
    monkeypatch.setattr(module, "Likelihood", uncompiled)
    networks = benchmark("splines_rows").SplineNetworks
    sizes = module.Sizes(
        Shape(depth=2, batch=8, features=4, hidden=(8, 8)),
        networks(depth=2, batch=8, features=4, hidden=(8, 8)),
        ImageShape(batch=2, image=(3, 8, 8), levels=2, steps=1, hidden=4),
        points=4,
        repetitions=1,
    )
    found = module.measured("cpu", sizes)
    rows = {(line["family"], line["row"]) for line in found["lines"]}
    for family in ("real_nvp", "spline", "glow"):
        modes = [row for name, row in rows if name == family and row.startswith("kappaflow")]
        assert len(modes) == 6  # three modes, each compiled too
    assert not [line for line in found["lines"] if "failed" in line or not line["time_s"]]
    assert len(found["equality"]) == 18 and all(
        line["log_prob"] == 0 for line in found["equality"]
    )
    assert found["spectra"]["difference"] == 0
    (tmp_path / "gpu.json").write_text(json.dumps(found))
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks-gpu.md").read_text()
    assert "| real_nvp, kappaflow, store |" in text and "two ranks" in text


def test_ranks_train_by_torchrun(module, monkeypatch):
    """One rank and two, on the device that is measured; a machine with one device has none."""
    commands = []

    def run(words, **_):
        commands.append(words)
        folder = Path(words[-1])
        folder.mkdir()
        (folder / "result.json").write_text('{"test_nll": 1.0}')

    monkeypatch.setattr(module.subprocess, "run", run)
    assert module._ranks("cpu", 2)["2"]["nll"] == 1.0
    assert [words[words.index("--nproc-per-node") + 1] for words in commands] == ["1", "2"]
    assert all(words[words.index("--device") + 1] == "cpu" for words in commands)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert module._ranks("cuda", 2) is None
