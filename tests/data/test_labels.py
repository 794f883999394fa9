"""Text in a context: a column of zeros and ones for each label."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import kappaflow as kf
from kappaflow.cli.app import main
from kappaflow.data.labels import labels_of
from kappaflow.errors import ArgumentError, DataError

SHORT = {"search_time": 0, "max_epochs": 1, "progress": False}


def frame(rows=400, labels=("north", "south", "west")):
    """Returns rows whose mean depends on the label."""
    rng = np.random.default_rng(0)
    codes = rng.integers(len(labels), size=rows)
    x = rng.normal(3.0 * codes, 1.0)
    return pl.DataFrame({"region": np.array(labels)[codes], "x": x, "y": rng.normal(x, 1.0)})


def test_a_text_becomes_a_column_for_each_label():
    """In alphabetical order; other contexts stay where they are."""
    rows = frame().with_columns(age=pl.Series(np.arange(400.0) % 7))
    table = kf.load_table(rows, context=["age", "region"])
    names = ("age", "region=north", "region=south", "region=west")
    assert table.context_columns == names and table.columns == ("x", "y")
    assert table.left_out == () and (table.context[:, 1:].sum(1) == 1).all()
    assert (table.context[:, 2] == (rows["region"] == "south").to_numpy()).all()


def test_labels_of_a_frame_choose_the_density():
    """A frame with the text serves as rows and as context; a label alone is a context."""
    rows = frame()
    flow = kf.fit_auto(
        rows, context="region", **SHORT | {"max_epochs": 10, "learning_rate": 0.02}
    ).flow
    assert flow.context_columns == ("region=north", "region=south", "region=west")
    one_hot = torch.tensor(kf.load_table(rows, context="region").context).float()
    own = flow.log_prob(rows[["x", "y"]], one_hot)
    assert torch.equal(flow.log_prob(rows), own)
    assert torch.equal(flow.log_prob(pd.DataFrame(rows.to_dict(as_series=False))), own)
    means = flow.sample(400, pd.DataFrame({"region": ["north", "west"]}))[..., 0].mean(0)
    assert means[1] - means[0] > 3
    samples = flow.sample(2, pd.DataFrame({"region": ["north", "west"]}), as_frame="polars")
    assert samples["region"].to_list() == ["north", "west"] * 2


def test_a_run_scores_and_samples_by_labels(tmp_path, capsys):
    """Samples have the text again; an unknown label has no score, and no samples."""
    data, run, out = tmp_path / "a.csv", tmp_path / "run", tmp_path / "samples.csv"
    frame(120).write_csv(data)
    command = ["fit", str(data), "--out", str(run), "--context", "region", "--max-epochs", "1"]
    assert main([*command, "--depth", "2", "--hidden", "8", "--quiet"]) == 0
    other = frame(60).with_columns(region=pl.Series(["north"] * 59 + ["east"]))
    other.write_csv(tmp_path / "b.csv")
    assert (
        main(["score", str(run), str(tmp_path / "b.csv"), "--out", str(tmp_path / "s.csv")]) == 0
    )
    scores = pl.read_csv(tmp_path / "s.csv")["log_prob"]
    assert scores.drop_nulls().drop_nans().len() == 59
    labels = tmp_path / "labels.csv"
    labels.write_text("region\nwest\nnorth\n")
    sample = ["sample", str(run), "-n", "3", "--context", str(labels), "--out", str(out)]
    assert main(sample) == 0
    assert pl.read_csv(out)["region"].value_counts().sort("region")["count"].to_list() == [3, 3]
    labels.write_text("region\neast\n")
    capsys.readouterr()
    assert main(sample) == 2
    assert (
        "'east' at line 2; the labels that were trained on are 'north'" in capsys.readouterr().err
    )
    assert json.loads((run / "report.json").read_text())["about"]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_label_is_missing(missing):
    """In each column of its labels, and in conditions; pandas has NaN among texts."""
    rows = frame().with_columns(region=pl.when(pl.col("x") > 5).then(None).otherwise("region"))
    gone = rows["region"].is_null().to_numpy()
    if missing is not None:
        values = rows.to_dict(as_series=False)
        values["region"] = [missing if text is None else text for text in values["region"]]
        rows = pd.DataFrame(values)
    table = kf.load_table(rows, context="region")
    assert np.isnan(table.context[gone]).all() and not np.isnan(table.context[~gone]).any()
    assert len(kf.load_table(rows, where="region!=north").rows) < (~gone).sum()


@pytest.mark.parametrize(("count", "words"), [(1, "holds one text"), (60, "holds 60 different")])
def test_a_text_with_too_few_or_too_many_labels_is_refused(count, words):
    """A context has 2 to 50."""
    labels = tuple(f"l{i}" for i in range(count))
    rows = pl.concat([frame(600, labels), frame(600, labels)])
    with pytest.raises(ArgumentError, match=words):
        kf.load_table(rows, context="region")


def test_another_label_is_an_error_that_names_its_row():
    """Where the columns of labels are named."""
    flow = kf.fit_auto(frame(120), context="region", **SHORT).flow
    other = frame(9).with_columns(region=pl.lit("east"))
    with pytest.raises(DataError, match="'east' at row 1, and 8 more rows have other labels"):
        flow.log_prob(other)


def test_a_text_in_the_context_of_a_table_on_disk_is_refused(tmp_path, monkeypatch):
    """Its labels would be known at the end only."""
    monkeypatch.setattr("kappaflow.data.chunks.CHUNK_ROWS", 100)
    frame().write_parquet(tmp_path / "a.parquet")
    table = kf.data.TableOnDisk(tmp_path / "a.parquet", context=["region"])
    with pytest.raises(ArgumentError, match="which holds text: a table on disk takes numbers"):
        kf.fit(kf.spline(2, context_features=3), table, out=tmp_path / "run", max_epochs=1)


def test_only_columns_of_labels_become_texts():
    """Numbers under names with an equals sign stay numbers."""
    half, eye = np.array([0.5, 1.0]), np.eye(2)
    columns = {"a=b": eye[0], "a=c": eye[1], "d=e": half, "d=f": 1 - half, "g": half}
    texts = labels_of(columns)
    assert list(texts) == ["a", "d=e", "d=f", "g"] and texts["a"].tolist() == ["b", "c"]
