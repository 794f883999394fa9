"""A kind of data of a user's own: registered from outside, then fitted, reported and scored."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import kappaflow as kf
from kappaflow.cli.app import main
from kappaflow.data import Kind, dataset, register_kind
from kappaflow.data.batches import Batch
from kappaflow.errors import ArgumentError, DataError
from kappaflow.report.files import read_report
from kappaflow.runs import DataConfig, ModelConfig, RunConfig, RunData, RunKind

LENGTH = 6


@dataclass(frozen=True, eq=False)
class Series:
    """Time series of one length, each of which is an example: a dataset."""

    values: np.ndarray
    source: str
    warnings: tuple[str, ...] = ()

    def __len__(self):
        return len(self.values)

    def fingerprint(self):
        return hashlib.sha256(self.values.tobytes()).hexdigest()

    def describe(self):
        return {"series_length": self.values.shape[1]}

    def batches(self, flow):
        if flow.event_shape != self.values.shape[1:]:
            raise ArgumentError(f"'data' should have series of {flow.event_shape[0]} numbers.")
        return Batch(torch.from_numpy(self.values).to(flow.device, flow.dtype), None)

    def check(self, flow, *, held_out=False):
        if not np.isfinite(self.values).all():
            raise DataError(f"{self.source} has numbers that are not finite.")


@dataclass(frozen=True)
class SeriesConfig(DataConfig):
    """Which series a run uses."""

    kind = "series"
    split_seed: int = 0

    def load(self):
        series = read_series(self.data)
        parts = split_series(series, (0.8, 0.1, 0.1), self.split_seed)
        return SeriesData(self, *parts, fingerprint=series.fingerprint())


@dataclass(frozen=True)
class SeriesData(RunData):
    """The series of a run, split."""

    def build_flow(self, model, seed):
        torch.manual_seed(seed)
        return kf.real_nvp(LENGTH, **model.arguments)

    def facts(self):
        return [("source", self.config.data), ("series", f"{len(self.train):,} to train on")]


class SeriesRuns(RunKind):
    """What commands do with runs on series."""

    name, plural, example, entry = "series", "series", "series", "series_length"
    config, run = SeriesConfig, RunConfig[SeriesConfig]

    def read(self, run, flow, source, *, decimal=None):
        return read_series(source)

    def split_data(self, flow, train, validation, test):
        return SeriesData(SeriesConfig(test.source), train, validation, test)


class SeriesKind(Kind):
    """Series in files of JSON lines."""

    name = "series"

    def recognizes(self, source):
        return isinstance(source, Series) or str(source).endswith(".jsonl")

    def load(self, source, flow):
        return source if isinstance(source, Series) else read_series(source)

    def split(self, data, fractions, seed):
        return split_series(data, fractions, seed)

    def models(self):
        return {"real_nvp": kf.real_nvp}

    def runs(self):
        return SeriesRuns()


def read_series(path):
    """Returns the series of a file, one a line."""
    lines = Path(path).read_text().splitlines()
    return Series(np.array([json.loads(line) for line in lines]), str(path))


def split_series(series, fractions, seed):
    """Returns parts of series in a random order."""
    order = np.random.default_rng(seed).permutation(len(series))
    ends = np.round(np.cumsum(fractions)[:-1] * len(order)).astype(int)
    return tuple(Series(series.values[part], series.source) for part in np.split(order, ends))


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Registers series, and returns the path of a file of 300 random walks."""
    known = {kind.name: kind for kind in dataset.kinds()}
    monkeypatch.setattr(dataset, "KINDS", known)
    register_kind(SeriesKind)
    walks = np.random.default_rng(0).standard_normal((300, LENGTH)).cumsum(1)
    path = tmp_path / "walks.jsonl"
    path.write_text("".join(f"{json.dumps(walk)}\n" for walk in walks.tolist()))
    return path


def test_a_third_kind_is_fitted_and_reported_from_python(file, tmp_path):
    """`fit` splits it, `write_report` compares held-out series, `doctor` finds no error."""
    result = kf.fit(kf.real_nvp(LENGTH, depth=4, hidden=(8,)), str(file), max_epochs=2)
    assert isinstance(result.validation, Series) and len(result.validation) == 30
    page = result.report(tmp_path / "page.html").read_text("utf-8")
    assert "30" in page and "held-out series" in page
    half = kf.write_report(result.flow, str(file), tmp_path / "half.html").read_text("utf-8")
    assert "random half" in half
    with pytest.raises(ArgumentError, match="'weights' should be left out for series"):
        kf.fit(result.flow, str(file), weights=np.ones(300))


def test_a_third_kind_runs_through_the_commands(file, tmp_path, capsys):
    """fit, report, doctor and score; options of tables are refused."""
    out, scores = tmp_path / "run", tmp_path / "scores.csv"
    words = ["fit", str(file), "--out", str(out), "--depth", "2", "--max-epochs", "2", "--quiet"]
    assert main(words) == 0 and main(words) == 0
    assert json.loads((out / "config.json").read_text())["run"]["series_length"] == LENGTH
    assert read_report(out).result.kind == "series"
    assert main(["report", str(out)]) == 0
    assert main(["doctor", str(out)]) in (0, 1)
    assert "held-out series of the run" in capsys.readouterr().out
    assert main(["score", str(out), str(file), "--out", str(scores)]) == 0
    table = pl.read_csv(scores)
    assert table.columns == ["series", "log_prob", "percentile"] and len(table) == 300
    assert main(["score", str(out), str(file), "--id", "x"]) == 2
    error = capsys.readouterr().err
    assert "300 series" in error and "'id' should be left out for series" in error


def test_a_kind_without_runs_is_fitted_and_refused_elsewhere(file, tmp_path, monkeypatch):
    """`fit` needs the `Kind` alone."""
    monkeypatch.setattr(SeriesKind, "runs", Kind.runs)
    result = kf.fit(kf.real_nvp(LENGTH, depth=2, hidden=(8,)), str(file), max_epochs=1)
    with pytest.raises(ArgumentError, match="no method 'runs'"):
        result.report(tmp_path / "page.html")
    with pytest.raises(ArgumentError, match="already the name of a kind"):
        register_kind(type("Other", (SeriesKind,), {}))


def test_the_base_classes_say_what_they_cannot_do(file):
    """Without samples or a search there is one clear sentence."""
    data = SeriesConfig(str(file)).load()
    with pytest.raises(ArgumentError, match="recipe for this data"):
        data.search(None, None)
    with pytest.raises(ArgumentError, match="it is one on series: call kappaflow.load"):
        SeriesRuns().samples(None, 3)
    assert SeriesRuns().model("real_nvp", {}) == ModelConfig()
