"""`kappaflow fit --on-disk`: a run like any other, of a table that stays on disk."""

import json

import numpy as np
import pytest

from kappaflow.cli.app import main
from kappaflow.files import CONFIG
from kappaflow.runs.stored import read_run, reload_data

MODEL = "--model real_nvp --depth 2 --hidden 8 --max-epochs 1 --quiet".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on a table on disk, which lies next to it."""
    folder = tmp_path_factory.mktemp("on-disk")
    x = np.random.default_rng(0).normal(size=(600, 2))
    np.savetxt(folder / "t.csv", x, delimiter=",", header="a,b", comments="")
    words = ["fit", str(folder / "t.csv"), "--on-disk", *MODEL, "--out", str(folder / "run")]
    assert main(words) == 0
    return folder / "run"


@pytest.mark.slow
def test_a_run_on_disk_is_reported_and_examined_on_its_held_out_rows(run, capsys):
    """Which are drawn again from the table; the report says how many rows repeat others."""
    tables = reload_data(read_run(run))
    assert [len(part) for part in (tables.trained_on, tables.validation, tables.test)] == [
        480,
        60,
        60,
    ]
    result = json.loads((run / "result.json").read_text())
    assert result["test"]["rows"] == 60
    assert ["rows that repeat earlier ones", "none"] in json.loads(
        (run / "report.json").read_text()
    )["about"]["data"]
    assert main(["doctor", str(run)]) == 0
    assert "worst layer" in capsys.readouterr().out
    assert not (run / "rows").exists()


def test_a_run_in_memory_is_described_as_it_always_was(run, tmp_path):
    """None is what folders of runs before there were tables on disk are taken to say."""
    words = ["fit", str(run.parent / "t.csv"), *MODEL, "--out", str(tmp_path / "run")]
    assert main(words) == 0
    config = json.loads((tmp_path / "run" / CONFIG).read_text())
    assert config["run"]["source"].pop("on_disk") is None
    assert main([*words, "--on-disk"]) == 2


@pytest.mark.parametrize(
    "words", [["--where", "a<1"], ["--against", "a<1"], ["--repair", "drop"], ["--jitter", "a"]]
)
def test_what_needs_all_rows_is_refused(run, tmp_path, capsys, words):
    """By its name, before anything is read."""
    data, out = str(run.parent / "t.csv"), tmp_path / "run"
    assert main(["fit", data, "--on-disk", *words, "--out", str(out)]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"kappaflow: '{words[0][2:]}' should be left out with 'on_disk'")
    assert not out.exists()


def test_rows_that_repeat_are_in_one_part_or_dropped(run, tmp_path, capsys):
    """By the choice of --duplicates; weights are not kept for a file."""
    x = np.repeat(np.random.default_rng(0).normal(size=(300, 2)), 2, axis=0)
    data = str(tmp_path / "t.npy")
    np.save(data, x)
    sizes = {}
    for how in ("keep", "drop"):
        out = tmp_path / how
        words = ["fit", data, "--on-disk", "--duplicates", how, *MODEL, "--out", str(out)]
        assert main(words) == 0
        tables = reload_data(read_run(out))
        sizes[how] = [len(p) for p in (tables.trained_on, tables.validation, tables.test)]
    assert sizes == {"keep": [480, 60, 60], "drop": [240, 30, 30]}
    words[4] = "weigh"
    assert main(words) == 2
    assert "'duplicates' should be 'keep' or 'drop'" in capsys.readouterr().err


def test_images_and_standard_input_are_refused(tmp_path, capsys):
    """Neither is a table on disk."""
    for data, message in (("digits", "'on_disk' should be left out"), ("-", "'on_disk' should")):
        assert main(["fit", data, "--on-disk", *MODEL[4:], "--out", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
