"""Model folders of strangers: each attack is one sentence, soon, and takes no memory."""

import json
import os
from pathlib import Path

import pytest
import safetensors
import torch
from packaging.version import Version
from safetensors.torch import save_file

import kappaflow as kf
from kappaflow.files import CONFIG, WEIGHTS, read_config, write_weights
from kappaflow.registry import STEP, Allowance, allowed, build
from kappaflow.report.files import draw_again, read_report
from kappaflow.storage import read_tensors
from kappaflow.testing.contract import jittered
from kappaflow.training import read_metrics, read_result
from kappaflow.training.checkpoint import read_checkpoint

GOLD = Path(__file__).parents[1] / "report" / "gold" / "report.json"


@pytest.fixture
def saved(tmp_path):
    """The folder of a small flow."""
    kf.save(jittered(kf.real_nvp(3, depth=2, hidden=(4,))), tmp_path / "model")
    return tmp_path / "model"


def described(saved, model):
    """Makes a folder describe another model, with a digest that is right."""
    config = json.loads((saved / CONFIG).read_text()) | {"model": model}
    (saved / CONFIG).write_text(json.dumps(config))
    tensors, _ = read_tensors(saved / WEIGHTS)
    write_weights(saved / WEIGHTS, tensors, read_config(saved / CONFIG))


def recipe(name="real_nvp", **arguments):
    """Returns a description by name and arguments."""
    return {"name": name, "arguments": arguments}


def nested(depth):
    """Returns a flow of chains, each in another."""
    chain = recipe("Chain", bijections=[])
    for _ in range(depth):
        chain = recipe("Chain", bijections=[chain])
    return recipe("Flow", base=recipe("StandardNormal", event_shape=2), bijection=chain)


ABSURD = {
    "a million million features": recipe(features=10**12),
    "a depth of a thousand million": recipe(features=3, depth=10**9),
    "layers of a thousand million": recipe(features=3, depth=2, hidden=[10**9]),
    "moderate numbers, whose product is terabytes": recipe(
        features=1000, depth=100, hidden=[100_000, 100_000]
    ),
    "a depth that takes long alone": recipe(features=2, depth=10**6, hidden=[1]),
    "many partitions of many features": recipe(
        "Chain",
        bijections=[recipe("Permutation", index=list(range(1000)))] * 1000
        + [recipe("Partition", features=3 * 10**6, kept=[0])] * 10,
    ),
    "an image of a thousand million pixels": recipe(
        "glow", shape=[3, 2**15, 2**15], levels=1, steps=1
    ),
    "a grid of a flow written down": recipe(
        "zuko_flow", features=3, kind="nsf", depth=1, hidden=[8], bins=10**9
    ),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_sizes_are_refused_before_they_are_made(name, saved):
    """What is built is in proportion to the weights next to it."""
    described(saved, ABSURD[name])
    with pytest.raises(kf.errors.FileError, match="far too large for its weights"):
        kf.load(saved)


def test_sizes_are_paid_for_before_they_are_made():
    """The operation that would be too large is never run: no memory of that size is touched."""
    with pytest.raises(kf.errors.FileError, match="far too large"), Allowance(1000):
        torch.ones(2**50)
    with pytest.raises(kf.errors.FileError, match="far too large"), Allowance(1000):
        torch.ones(40)[:, None] @ torch.ones(40)[None]
    with pytest.raises(kf.errors.FileError, match="far too large"), Allowance(1000):
        torch.ones(40)[:, None] + torch.ones(40)[None]
    with Allowance(1000) as allowance:
        torch.ones(40).expand(10**9, 40)  # a view, which takes no memory
    assert allowance.numbers == 1000 - 2 * STEP
    with allowed({"weight": torch.empty(2**20)}):
        torch.ones(2**23)  # in proportion to the weights
    with pytest.raises(kf.errors.FileError, match="far too large"), allowed({}):
        torch.ones(2**23)


@pytest.mark.parametrize("depth", [40, 20_000])
def test_chains_in_chains_without_end_are_refused(depth, saved):
    """Before anything walks through them; six in each other are a model as any."""
    config = json.loads((saved / CONFIG).read_text())
    text = json.dumps({**config, "model": nested(6)})
    deep = text.replace('{"name": "Chain", "arguments": {"bijections": []}}', "DEEP")
    start, end = '{"name": "Chain", "arguments": {"bijections": [', "]}}"
    (saved / CONFIG).write_text(deep.replace("DEEP", start * depth + end * depth))
    with pytest.raises(kf.errors.FileError, match="nested too deeply"):
        kf.load(saved)
    (saved / CONFIG).write_text(text)
    described(saved, nested(6))
    with pytest.raises(kf.errors.FileError, match="Unexpected key"):
        kf.load(saved)


TEXTS = {
    "a byte order mark": (b"\xef\xbb\xbf{}", "is not JSON"),
    "no UTF-8": (b'{"format": "\xe4"}', "is not JSON .*utf-8"),
    "UTF-16": ('{"format": 1}'.encode("utf-16"), "is not JSON"),
    "half a character": (b'{"format_version": 1, "dtype": "\\ud800"}', "is not JSON .*surrogate"),
    "a key with two values": (b'{"format_version": 1, "format_version": 1}', "two values for one"),
    "a number of a million digits": (b'{"format_version": ' + b"9" * 10**6 + b"}", "is not JSON"),
    "an infinite version": (b'{"format_version": Infinity}', "has format version inf"),
    "a million brackets": (b"[" * 10**6, "nested too deeply"),
    "binary": (bytes(range(256)), "is not JSON"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_config_that_is_no_plain_json_is_refused(name, saved):
    """Each with what is wrong with it."""
    content, message = TEXTS[name]
    (saved / CONFIG).write_bytes(content)
    with pytest.raises(kf.errors.FileError, match=message):
        kf.load(saved)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "result.json", "metrics.jsonl", "report.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link in a circle"])
def test_what_is_no_regular_file_is_not_read(name, kind, saved):
    """A pipe would be waited for without end, a device read without end."""
    path = saved / name
    path.unlink(missing_ok=True)
    make = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "folder": os.mkdir,
        "link in a circle": lambda path: path.symlink_to(path.name),
    }
    make[kind](path)
    reader = {"result.json": read_result, "metrics.jsonl": read_metrics}
    reader |= {"report.json": read_report}
    with pytest.raises(kf.errors.FileError):
        reader.get(name, kf.load)(saved)


def test_a_file_that_is_linked_to_is_read_and_never_written(saved, tmp_path):
    """Stores of models link to their files; a link to somewhere else is replaced by a file."""
    elsewhere = tmp_path / "elsewhere"
    (saved / WEIGHTS).rename(elsewhere)
    (saved / WEIGHTS).symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    kf.save(kf.load(saved), saved, overwrite=True)
    kf.save(kf.nice(2, depth=1, hidden=(4,)), saved, overwrite=True)
    assert elsewhere.read_bytes() == before
    assert not (saved / WEIGHTS).is_symlink()


@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.bfloat16, torch.bool, torch.float64]
    + [torch.complex64] * (Version(safetensors.__version__) >= Version("0.7")),
)
def test_tensors_of_another_type_are_refused(dtype, saved):
    """They would be converted without a word."""
    tensors, _ = read_tensors(saved / WEIGHTS)
    name = next(key for key, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name] = tensors[name].to(dtype)
    write_weights(saved / WEIGHTS, tensors, read_config(saved / CONFIG))
    with pytest.raises(kf.errors.FileError, match=f"in {dtype}, the model has torch.float32"):
        kf.load(saved)


@pytest.mark.parametrize("notes", ["[" * 10**5, "[1]", '"a"', '{"digest": 1, "digest": 1}', "{}"])
def test_notes_that_are_none_are_refused(notes, saved):
    """What the header says next to tensors is JSON of a stranger too."""
    save_file({"a": torch.zeros(1)}, saved / WEIGHTS, {"kappaflow": notes})
    with pytest.raises(kf.errors.FileError):
        kf.load(saved)


def test_a_large_config_is_not_read(saved):
    """256 MiB are more than any model says of itself; this file is a hole, of no size on disk."""
    with (saved / CONFIG).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(kf.errors.FileError, match="larger than 256 MiB"):
        kf.load(saved)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    """Whole and with a right digest, but of nothing that this training knows."""
    from kappaflow.training.checkpoint import write_checkpoint

    flow, x = kf.real_nvp(2, depth=2, hidden=(4,)), torch.randn(60, 2)
    kf.fit(flow, x, max_epochs=1, out=tmp_path)
    (tmp_path / "result.json").unlink()
    groups, progress = read_checkpoint(tmp_path)
    for wrong in (
        ({}, progress),
        ({**groups, "optimizer": {"x.y": torch.zeros(1)}}, progress),
        (groups, {"epoch": "one"} | {"other": 1}),
    ):
        write_checkpoint(tmp_path, *wrong)
        with pytest.raises(kf.errors.FileError, match="is not of this training"):
            kf.fit(kf.real_nvp(2, depth=2, hidden=(4,)), x, max_epochs=1, out=tmp_path)


def test_a_report_whose_numbers_do_not_fit_each_other_is_not_drawn(tmp_path):
    """Each of them is a number, and a row of the point clouds is too short."""
    content = json.loads(GOLD.read_text())
    content["charts"]["corner"]["rows"][0] = []
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(kf.errors.FileError, match="its numbers do not fit each other"):
        draw_again(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_headers_that_lie_are_refused(saved):
    """By safetensors, which holds every size to that of the file."""
    for size in (0, 2**62):
        (saved / WEIGHTS).write_bytes(size.to_bytes(8, "little") + b"{}")
        with pytest.raises(kf.errors.FileError, match="is damaged or cut short"):
            kf.load(saved)


def test_numbers_and_names_that_describe_no_part_are_refused(saved):
    """A whole number of 400 digits where a bound is a float; paths and modules as names."""
    for model, message in (
        (recipe(features=3, depth=2, hidden=[4], scale_bound=10**400), "far too large"),
        *((recipe(name), "is not registered") for name in ("../../etc/passwd", "os.system")),
        *((recipe(name), "is not registered") for name in ("kappaflow.load", "\x1b[31m")),
    ):
        described(saved, model)
        with pytest.raises(kf.errors.FileError, match=message):
            kf.load(saved)
    with pytest.raises(kf.errors.FileError, match="'LeakyReLU' cannot be built from"):
        build(recipe("LeakyReLU", negative_slope=10**400))
