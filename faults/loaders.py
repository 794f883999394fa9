"""Small real files of each kind, with the functions that load them."""

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image

import kappaflow as kf
from kappaflow.cli.app import main
from kappaflow.data import load_table
from kappaflow.data.chunks import open_chunks
from kappaflow.data.matrix import load_matrix
from kappaflow.data.raw import Reading
from kappaflow.errors import KappaflowError
from kappaflow.files import CONFIG, WEIGHTS, read_config, write_weights
from kappaflow.images import load_images
from kappaflow.report.files import draw_again
from kappaflow.runs.stored import read_finished, read_run
from kappaflow.storage import read_tensors
from kappaflow.training import read_metrics, read_result
from kappaflow.training.checkpoint import read_checkpoint

ROWS = 24


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        file: Path of the file, relative to the originals.
        load: Loads a path; other files of the original are in the same folder.
        is_json: Whether the JSON values are mutated too, not only the bytes.
    """

    file: str
    load: Callable[[Path], object]
    is_json: bool = False


def write_originals(folder: Path) -> None:
    """Writes a file of each kind, always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0).normal(size=(ROWS, 3)).round(3)
    frame = pl.DataFrame(numbers, schema=["a", "b", "c"]).with_columns(
        pl.Series("word", [f"w{i % 3}" for i in range(ROWS)])
    )
    frame.write_csv(folder / "table.csv")
    frame.write_csv(folder / "table.tsv", separator="\t")
    (folder / "table.csv.gz").write_bytes(gzip.compress(frame.write_csv().encode(), mtime=0))
    frame.write_parquet(folder / "table.parquet")
    frame.write_ipc(folder / "table.arrow", compression="zstd")
    frame.write_ipc_stream(folder / "stream.arrow")
    np.save(folder / "table.npy", numbers)
    np.savez_compressed(folder / "table.npz", x=numbers, y=numbers[:, 0])
    _write_images(folder / "images")
    turn = torch.eye(4)[[1, 2, 0, 3]]
    kf.factor.save_couplings(kf.factor_linear(turn), folder / "couplings.safetensors")
    if not (folder / "run" / "report.json").exists():
        many = np.random.default_rng(1).normal(size=(300, 2)).round(4)
        pl.DataFrame(many, schema=["a", "b"]).write_csv(folder / "fitted.csv")
        requested = f"--out {folder / 'run'} --depth 2 --hidden 8 --max-epochs 1 --model real_nvp"
        if main(["fit", str(folder / "fitted.csv"), *requested.split()]):
            raise RuntimeError("the run whose files are to be changed could not be made")


def _write_images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    for suffix in ("png", "jpg", "bmp", "gif", "webp", "tif", "ppm"):
        (folder / suffix).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / suffix / f"one.{suffix}")
    idx = struct.pack(">IIII", 0x803, 4, 5, 6) + bytes(range(120))
    (folder / "train-images-idx3-ubyte").write_bytes(idx)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx, mtime=0))
    (folder / "data_batch_1.bin").write_bytes(bytes(4 * 3073))


def _model(path: Path) -> object:
    return kf.load(path.parent)


def _signed_config(path: Path) -> object:
    """Returns a model with a config.json that was changed together with its digest."""
    tensors, _ = read_tensors(path.parent / WEIGHTS)
    try:
        write_weights(path.parent / WEIGHTS, tensors, read_config(path.parent / CONFIG))
        return kf.load(path.parent)
    finally:
        (path.parent / WEIGHTS).unlink()


def _run(path: Path) -> object:
    return read_run(path.parent), read_result(path.parent), read_finished(path.parent)


def _report(path: Path) -> object:
    return draw_again(path.parent)


def _metrics(path: Path) -> object:
    return read_metrics(path.parent)


def _checkpoint(path: Path) -> object:
    return read_checkpoint(path.parents[1])


def _table(path: Path) -> object:
    """Returns a table, loaded as a whole or in chunks, after an attempt to load it as a matrix."""
    try:
        load_matrix(str(path))
    except KappaflowError:
        pass
    chunks = open_chunks(str(path), Reading(load_table(path).columns))
    return [chunks.read(place) for place in range(len(chunks))]


def _images(path: Path) -> object:
    images = load_images(path if path.suffix in ("", ".gz") else path.parent)
    return images.batch(range(min(4, len(images))))


def _couplings_file(path: Path) -> object:
    return kf.factor.load_couplings(path)


KINDS: dict[str, Kind] = {
    "config.json": Kind("run/config.json", _model, is_json=True),
    "config.json with a right digest": Kind("run/config.json", _signed_config, is_json=True),
    "model.safetensors": Kind("run/model.safetensors", _model),
    "checkpoint": Kind("run/checkpoint/state.safetensors", _checkpoint),
    "metrics.jsonl": Kind("run/metrics.jsonl", _metrics, is_json=True),
    "result.json": Kind("run/result.json", _run, is_json=True),
    "report.json": Kind("run/report.json", _report, is_json=True),
    "couplings": Kind("couplings.safetensors", _couplings_file),
    "csv": Kind("table.csv", _table),
    "tsv": Kind("table.tsv", _table),
    "csv.gz": Kind("table.csv.gz", _table),
    "parquet": Kind("table.parquet", _table),
    "arrow": Kind("table.arrow", _table),
    "arrow stream": Kind("stream.arrow", _table),
    "npy": Kind("table.npy", _table),
    "npz": Kind("table.npz", _table),
    **{
        suffix: Kind(f"images/{suffix}/one.{suffix}", _images)
        for suffix in ("png", "jpg", "bmp", "gif", "webp", "tif", "ppm")
    },
    "idx": Kind("images/train-images-idx3-ubyte", _images),
    "idx.gz": Kind("images/train-images-idx3-ubyte.gz", _images),
    "CIFAR-10 batch": Kind("images/data_batch_1.bin", _images),
}
