"""Training on a table on disk comes to what training on its rows in memory does."""

import numpy as np
import polars as pl
import pytest
import torch

import kappaflow as kf
from kappaflow.data import TableOnDisk, chunks, load_table
from kappaflow.data import on_disk as storage
from kappaflow.data.on_disk import TRAIN
from kappaflow.errors import ArgumentError, DataError, KappaflowError, WriteError
from kappaflow.flows.recipe import from_options
from kappaflow.training import fit_split, on_disk
from kappaflow.training.settings import checked_settings

ROWS = 730
EPOCHS = {"max_epochs": 3, "batch_size": 100}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file of ROWS rows, which are read 100 at a time."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 100)
    frame().write_parquet(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def frame(rows=ROWS):
    """A curved table of three columns."""
    x = np.random.default_rng(0).normal(size=(rows, 3))
    return pl.DataFrame({"a": x[:, 0], "b": 5 * x[:, 1] + x[:, 0] ** 2, "c": x[:, 2]})


def flow(dtype=torch.float32, **arguments):
    """Returns a flow of two columns given one, the same each time."""
    torch.manual_seed(0)
    values = {"depth": 4, "hidden": (8,), "context_features": 1} | arguments
    return from_options(kf.real_nvp, 2, **values).to(dtype)


def losses(result):
    """Returns what an epoch comes to, of all epochs."""
    return [(line["train_nll"], line["validation_nll"]) for line in result.history]


class Kept(kf.training.Callback):
    """Keeps the file of rows of a run, which is gone when the run has ended; may stop it."""

    def __init__(self, out, stop=None):
        self.out, self.stop = out, stop

    def on_epoch(self, flow, figures):
        self.rows = np.load(self.out / "rows" / TRAIN)
        if figures["epoch"] == self.stop:
            raise KeyboardInterrupt


def test_ranks_connect_on_the_kind_of_device_of_the_flow(tmp_path, path, monkeypatch):
    """Without its number, which a launcher assigns."""
    connected = []

    def connecting(device, **_):
        connected.append(device)
        raise InterruptedError

    monkeypatch.setattr(on_disk, "connect_ranks", connecting)
    monkeypatch.setattr(kf.Flow, "device", torch.device("cuda", 1))
    with pytest.raises(InterruptedError):
        kf.fit(flow(), TableOnDisk(path, context=["c"]), out=tmp_path / "run")
    assert connected == ["cuda"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_bit_for_bit_those_of_the_same_rows_in_memory(tmp_path, path, dtype):
    """With units that are fitted already: of a sample, or of all rows, they differ."""
    started, kept = flow(dtype), Kept(tmp_path / "run")
    kf.fit(started, load_table(str(path), context="c"), max_epochs=1)
    weights = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    table = TableOnDisk(path, context=["c"])
    result = kf.fit(started, table, out=kept.out, callbacks=[kept], **EPOCHS)
    assert kept.rows.dtype == str(dtype).removeprefix("torch.")
    other = flow(dtype)
    other.load_state_dict(weights)
    expected = load_table(str(path), context="c")
    both = np.hstack([expected.values, expected.context]).astype(kept.rows.dtype)
    position = {row.tobytes(): i for i, row in enumerate(both)}
    trained = np.array([position[row.tobytes()] for row in kept.rows])
    requested = on_disk.SplitRequest(table, (0.9, 0.1), 0, str(kept.rows.dtype))
    held_out = on_disk.split_shown(requested, None, progress=False).held_out[0]
    assert set(trained) | set(held_out.rows - 1) == set(range(ROWS))
    in_memory = fit_split(other, expected.select(trained), held_out, checked_settings(**EPOCHS))
    assert losses(result) == losses(in_memory)
    for item, same in zip(result.flow.parameters(), other.parameters(), strict=True):
        assert torch.equal(item, same)


def test_units_are_those_of_a_random_sample_of_the_training_rows(tmp_path, path):
    """Not of the first rows, which are not random in a file."""
    frame().sort("b").write_parquet(path)
    result = kf.fit(flow(), TableOnDisk(path, context="c"), out=tmp_path / "run", max_epochs=1)
    expected = frame()["b"].mean(), frame()["b"].std()
    units = next(iter(result.flow.bijection))
    assert units.mean[1].item() == pytest.approx(expected[0], abs=expected[1] / 3)
    assert units.deviation[1].item() == pytest.approx(expected[1], rel=0.3)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_with_the_rows_that_are_there(tmp_path, path, monkeypatch):
    """To the same losses; nothing is read again, and the rows are gone at the end."""
    table, out = TableOnDisk(path, context="c"), tmp_path / "run"
    expected = kf.fit(flow(), table, out=tmp_path / "whole", **EPOCHS)
    with pytest.raises(KeyboardInterrupt):
        kf.fit(flow(), table, out=out, callbacks=[Kept(out, stop=2)], **EPOCHS)
    assert (out / "rows" / TRAIN).exists()
    monkeypatch.setattr(on_disk, "split_on_disk", None)
    result = kf.fit(flow(), table, out=out, **EPOCHS)
    assert losses(result) == losses(expected)
    assert not (out / "rows").exists() and not (tmp_path / "whole" / "rows").exists()


def test_a_table_that_has_changed_is_refused_where_its_rows_have(tmp_path, path, monkeypatch):
    """A file that was only written again is read again; a finished run writes nothing."""
    table, out = TableOnDisk(path, context="c"), tmp_path / "run"
    expected = kf.fit(flow(), table, out=tmp_path / "whole", **EPOCHS)
    with pytest.raises(KeyboardInterrupt):
        kf.fit(flow(), table, out=out, callbacks=[Kept(out, stop=2)], **EPOCHS)
    frame().with_columns(pl.col("a") + 1).write_parquet(path)
    with pytest.raises(ArgumentError, match="was made with other train rows"):
        kf.fit(flow(), table, out=out, **EPOCHS)
    frame().write_parquet(path)
    assert losses(kf.fit(flow(), table, out=out, **EPOCHS)) == losses(expected)
    monkeypatch.setattr(storage, "replace_file", None)
    assert losses(kf.fit(flow(), table, out=out, **EPOCHS)) == losses(expected)


def test_what_cannot_be_had_of_a_table_on_disk_is_refused(tmp_path, path):
    """In a sentence that names the argument, and nothing is left of it."""
    table, out = TableOnDisk(path, context="c"), tmp_path / "run"
    for name, value in {"weights": np.ones(ROWS), "repair": "drop"}.items():
        with pytest.raises(ArgumentError, match=f"'{name}' should be left out for a TableOnDisk"):
            kf.fit(flow(), table, out=out, **{name: value})
    with pytest.raises(ArgumentError, match="'out' should be given for a TableOnDisk"):
        kf.fit(flow(), table)
    with pytest.raises(ArgumentError, match="should have 2 columns"):
        kf.fit(flow(), TableOnDisk(path), out=out)
    with pytest.raises(ArgumentError, match="should have 1 context columns"):
        kf.fit(flow(), TableOnDisk(path, columns=["a", "b"]), out=out)
    frame().with_columns(pl.lit(7.5).alias("b")).write_parquet(path)
    with pytest.raises(DataError, match="100 random rows of .*: column 'b' is constant"):
        kf.fit(flow(), table, out=out)
    assert not out.exists()
    (tmp_path / "others" / "rows").mkdir(parents=True)
    (tmp_path / "others" / "rows" / "mine.npy").touch()
    with pytest.raises(ArgumentError, match="holds other files"):
        kf.fit(flow(), table, out=tmp_path / "others")
    assert (tmp_path / "others" / "rows" / "mine.npy").exists()


def test_values_outside_of_a_domain_are_refused_wherever_they_are(tmp_path, path):
    """In a row that is in no sample, by its number."""
    x = frame().with_columns(pl.col("a").abs())
    x.write_parquet(path)
    table = TableOnDisk(path, context="c")
    result = kf.fit(flow(), table, out=tmp_path / "run", bounds={"a": "positive"}, max_epochs=1)
    samples = result.flow.sample(50, torch.zeros(1, 1))
    assert (samples[..., 0] > 0).all()
    requested = on_disk.SplitRequest(table, (0.9, 0.1), 0, "float32")
    train = on_disk.split_shown(requested, None, progress=False).train
    unseen = sorted(set(range(1, ROWS + 1)) - set(train.sample.rows) - set(train.held_out + 1))
    values = x["a"].to_list()
    values[unseen[400] - 1] = -0.25
    x.with_columns(pl.Series("a", values)).write_parquet(path)
    with pytest.raises(DataError, match=f"above 0, row {unseen[400]} has -0.25"):
        kf.fit(flow(), table, out=tmp_path / "other", bounds={"a": "positive"}, max_epochs=1)


def test_a_disk_that_is_full_is_said_in_a_sentence(tmp_path, path, monkeypatch):
    """The rows that were written are gone, and the same call resumes when there is room."""

    def full(temporary, target):
        raise WriteError(f"{target} cannot be written: No space left on device.")

    table, out = TableOnDisk(path, context="c"), tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(storage, "replace_file", full)
        with pytest.raises(WriteError, match="No space left"):
            kf.fit(flow(), table, out=out, **EPOCHS)
    assert not out.exists()
    assert kf.fit(flow(), table, out=out, **EPOCHS).stopped_because == "max_epochs"


def test_a_type_that_cannot_be_trained_is_refused_before_anything_is_read(tmp_path, path):
    """And numpy has no name for one of them."""
    with pytest.raises(ArgumentError, match="to be trained, got torch.bfloat16"):
        kf.fit(flow(torch.bfloat16), TableOnDisk(path, context="c"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_to_stop_by_may_be_given(tmp_path, path):
    """Then all of the table is trained on."""
    kept, held_out = Kept(tmp_path / "run"), frame().head(50)
    table = TableOnDisk(path, columns=["a", "b"], context="c")
    values = (held_out.select("a", "b"), held_out.select("c").rename({"c": "d"}))
    with pytest.raises(KappaflowError, match="the validation rows should have the columns"):
        kf.fit(flow(), table, validation=values, out=kept.out, max_epochs=1)
    values = load_table(held_out, context="c")
    kf.fit(flow(), table, validation=values, out=kept.out, callbacks=[kept], max_epochs=1)
    expected = frame().to_numpy().astype(np.float32)
    assert kept.rows.tobytes() == np.ascontiguousarray(expected).tobytes()
