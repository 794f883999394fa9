"""Model files: the same function comes back, or one clear sentence says why not."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import kappaflow as kf
from cases import FLOWS, alternating
from kappaflow.files import read_config, write_weights
from kappaflow.storage import read_tensors, write_tensors
from kappaflow.testing.contract import jittered

CONFIG, WEIGHTS = "config.json", "model.safetensors"
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@pytest.fixture
def flow():
    """A small flow off its start."""
    return jittered(kf.real_nvp(3, depth=2, hidden=(4,), partition="random"))


@pytest.fixture
def saved(flow, tmp_path):
    """The folder that it was saved to."""
    kf.save(flow, tmp_path / "model")
    return tmp_path / "model"


def states_equal(a, b):
    """Whether two modules hold the same names, types and bits."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a
    )


@pytest.mark.parametrize(("name", "dtype"), alternating(FLOWS, *DTYPES))
def test_a_loaded_flow_is_the_saved_one_bit_for_bit(name, dtype, tmp_path):
    """State, type, repr and values are the same, and it is in evaluation mode."""
    flow, x, context = FLOWS[name].build(DTYPES[dtype])
    kf.save(flow, tmp_path)
    loaded = kf.load(tmp_path)
    assert states_equal(flow, loaded)
    assert repr(loaded) == repr(flow)
    assert not any(part.training for part in loaded.modules())
    with torch.no_grad():
        assert torch.equal(loaded.log_prob(x, context), flow.log_prob(x, context))


def test_saving_leaves_the_flow_and_the_random_numbers_alone(flow, tmp_path):
    """Also where a parameter is nan: a flow that has gone wrong can be looked at later."""
    with torch.no_grad():
        next(flow.parameters()).fill_(float("nan"))
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    state = torch.random.get_rng_state()
    kf.save(flow.train(), str(tmp_path / "a" / "b"))
    assert torch.equal(state, torch.random.get_rng_state())
    assert flow.training
    for content in (flow.state_dict(), kf.load(tmp_path / "a" / "b").state_dict()):
        torch.testing.assert_close(content, before, rtol=0, atol=0, equal_nan=True)


def test_saving_again_replaces_both_files(flow, saved):
    """The second flow is the one that is loaded, and nothing else is left in the folder."""
    other = jittered(kf.nice(2, depth=1, hidden=(4,)))
    kf.save(other, saved, overwrite=True)
    assert states_equal(kf.load(saved), other)
    assert sorted(os.listdir(saved)) == [CONFIG, WEIGHTS]


def test_a_saved_flow_is_not_replaced_by_accident(flow, saved):
    """Both files are as before; what a killed save left is no flow, and is replaced."""
    before = {name: (saved / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    with pytest.raises(kf.errors.ArgumentError, match="holds a saved flow: pass overwrite=True"):
        kf.save(jittered(flow, seed=5), saved)
    assert before == {name: (saved / name).read_bytes() for name in before}
    (saved / CONFIG).unlink()
    kf.save(flow, saved)
    assert states_equal(kf.load(saved), flow)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_models_of_other_libraries_are_never_replaced(flow, tmp_path, name):
    """Other libraries use the same two names."""
    if name == CONFIG:
        (tmp_path / name).write_text('{"model_type": "bert"}')
    else:
        save_file({"weight": torch.ones(3)}, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(kf.errors.ArgumentError, match="a model that is not of this kappaflow"):
        kf.save(flow, tmp_path, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: before}


def test_a_failing_write_leaves_the_old_file_whole(flow, saved, monkeypatch):
    """A full disk gives a FileError, the old weights remain, and no temporary file stays."""
    other = jittered(copy.deepcopy(flow), seed=5)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(kf.errors.FileError, match="cannot be written: No space left on device"):
        kf.save(other, saved, overwrite=True)
    monkeypatch.undo()
    assert sorted(os.listdir(saved)) == [CONFIG, WEIGHTS]
    assert states_equal(kf.load(saved), flow) and not states_equal(flow, other)


def test_files_can_be_read_by_whoever_the_umask_lets(saved):
    """A model file has the mode of any new file, not the private one of a temporary file."""
    umask = os.umask(0)
    os.umask(umask)
    assert (saved / WEIGHTS).stat().st_mode & 0o777 == 0o666 & ~umask


def edit(saved, change):
    """Rewrites config.json after `change` has had its dictionary."""
    config = json.loads((saved / CONFIG).read_text())
    change(config)
    (saved / CONFIG).write_text(json.dumps(config))


def rewrite_tensors(saved, change):
    """Rewrites the weights after `change` has had them, with a digest that is right."""
    tensors, _ = read_tensors(saved / WEIGHTS)
    change(tensors)
    write_weights(saved / WEIGHTS, tensors, read_config(saved / CONFIG))


def rewrite_config(saved, change):
    """Rewrites config.json and the digest of the weights to fit it."""
    edit(saved, change)
    rewrite_tensors(saved, lambda tensors: None)


def not_a_flow(config):
    config["model"] = {"name": "Permutation", "arguments": {"index": [0, 1]}}


DAMAGES = {
    "no folder": (
        lambda s: s.rename(s.parent / "gone"),
        "is not a directory: a model is one",
    ),
    "no config": (lambda s: (s / CONFIG).unlink(), "config.json is missing: .* holds no model"),
    "no weights": (lambda s: (s / WEIGHTS).unlink(), "is missing: .* no complete model"),
    "empty config": (lambda s: (s / CONFIG).write_text(""), "config.json is not JSON"),
    "config is no text": (lambda s: (s / CONFIG).write_bytes(b"\xff\xfe\x00"), "is not JSON"),
    "config is deep": (lambda s: (s / CONFIG).write_text("[" * 100_000), "is not JSON"),
    "config is a list": (lambda s: (s / CONFIG).write_text("[1]"), "has format version None"),
    "other version": (
        lambda s: edit(s, lambda c: c.update(format_version=2)),
        "has format version 2, this kappaflow reads version 1",
    ),
    "other format": (lambda s: edit(s, lambda c: c.update(format="x")), "'format' is wrong: "),
    "unknown key": (lambda s: edit(s, lambda c: c.update(extra=1)), "unknown key 'extra'"),
    "missing key": (lambda s: edit(s, lambda c: c.pop("model")), "'model' is wrong: "),
    "key of a wrong type": (lambda s: edit(s, lambda c: c.update(dtype=3)), "'dtype' is wrong: "),
    "another model": (
        lambda s: edit(s, lambda c: c["model"]["arguments"].update(seed=1)),
        "does not match config.json next to it: the digest says",
    ),
    "integer dtype": (
        lambda s: rewrite_config(s, lambda c: c.update(dtype="int64")),
        "asks for the type 'int64', which is no floating-point type",
    ),
    "dtype is a function": (
        lambda s: rewrite_config(s, lambda c: c.update(dtype="load")),
        "asks for the type 'load', which is no floating-point type",
    ),
    "columns are a number": (
        lambda s: rewrite_config(s, lambda c: c.update(run={"columns": -1})),
        "should have a list of names as 'columns', got -1",
    ),
    "not a flow": (lambda s: rewrite_config(s, not_a_flow), "describes a Permutation, not a flow"),
    "unknown name": (
        lambda s: rewrite_config(s, lambda c: c["model"].update(name="test.Gone")),
        "config.json: 'test.Gone' is not registered: import the module that defines it",
    ),
    "unknown argument": (
        lambda s: rewrite_config(s, lambda c: c["model"]["arguments"].update(width=3)),
        "'real_nvp' cannot be built from its arguments: .*'width'",
    ),
    "impossible argument": (
        lambda s: rewrite_config(s, lambda c: c["model"]["arguments"].update(depth=0)),
        "'real_nvp' cannot be built from its arguments: 'depth' should be at least 1",
    ),
    "weights are a folder": (
        lambda s: ((s / WEIGHTS).unlink(), (s / WEIGHTS).mkdir()),
        "safetensors is missing",
    ),
    "weights are text": (lambda s: (s / WEIGHTS).write_text("hello"), "is damaged or cut short"),
    "no digest": (
        lambda s: save_file({"a": torch.zeros(1)}, s / WEIGHTS),
        "was written by something else",
    ),
    "a tensor too few": (
        lambda s: rewrite_tensors(s, lambda t: t.popitem()),
        "does not fit the model: .*Missing key",
    ),
    "a tensor too many": (
        lambda s: rewrite_tensors(s, lambda t: t.update(more=torch.zeros(1))),
        'does not fit the model: .*Unexpected key.* "more"',
    ),
    "a tensor of another shape": (
        lambda s: rewrite_tensors(
            s, lambda t: t.update({"bijection.bijections.0.mean": torch.zeros(4)})
        ),
        "does not fit the model: .*size mismatch for bijection.bijections.0.mean",
    ),
    "an index that is no permutation": (
        lambda s: rewrite_tensors(
            s, lambda t: t["bijection.bijections.1.bijections.0.index"].zero_()
        ),
        "does not fit the model: .*bijections.0.index differs from the permutation of this",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_one_clear_file_error(name, saved):
    """Each damage gives its own sentence, of one line, and never another exception."""
    damage, message = DAMAGES[name]
    damage(saved)
    with pytest.raises(kf.errors.FileError, match=message) as caught:
        kf.load(saved)
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_a_file_error(flow, tmp_path):
    """Neither loading nor saving takes a file for a directory."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(kf.errors.FileError, match="file is not a directory"):
        kf.load(tmp_path / "file")
    with pytest.raises(kf.errors.FileError, match="file cannot be made a directory"):
        kf.save(flow, tmp_path / "file")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_a_file_error(flow, tmp_path):
    """The system's reason is part of the sentence."""
    tmp_path.chmod(0o500)
    with pytest.raises(kf.errors.FileError, match="cannot be written: Permission denied"):
        kf.save(flow, tmp_path)


def outcome(saved, flow):
    """Returns whether loading gives a FileError or the same flow; anything else fails the test."""
    try:
        loaded = kf.load(saved)
    except kf.errors.FileError:
        return "error"
    assert states_equal(loaded, flow)
    assert repr(loaded) == repr(flow)
    return "same"


def test_a_model_cut_short_anywhere_is_a_file_error(flow, saved):
    """At 60 lengths of either file nothing but a FileError comes, and for longer weights."""
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(content + b"\0" * 8)
    assert outcome(saved, flow) == "error"
    (saved / WEIGHTS).write_bytes(content)
    for name in (WEIGHTS, CONFIG):
        content = (saved / name).read_bytes()
        for length in range(0, len(content) - 2, max(1, len(content) // 60)):
            (saved / name).write_bytes(content[:length])
            assert outcome(saved, flow) == "error"
        (saved / name).write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_flipped_bit_is_a_file_error_or_changes_nothing(name, flow, saved):
    """At 400 places, header and data alike, no flip gives another model or another exception."""
    content = (saved / name).read_bytes()
    generator = torch.Generator().manual_seed(0)
    header = 8 + int.from_bytes(content[:8], "little") if name == WEIGHTS else len(content)
    bits = [
        *range(8 * 8),
        *torch.randint(8 * min(header, len(content)), (200,), generator=generator).tolist(),
        *torch.randint(8 * len(content), (136,), generator=generator).tolist(),
    ]
    outcomes = []
    for bit in bits:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (saved / name).write_bytes(flipped)
        outcomes.append(outcome(saved, flow))
    assert outcomes.count("error") > 0.8 * len(outcomes)


class NotRegistered(kf.Bijection):
    """A user's bijection that nobody registered."""

    def forward(self, x, context=None):
        return x, x.new_zeros(len(x))

    inverse = forward


def appended(flow):
    flow.bijection.bijections.append(kf.bijections.Permutation((2, 1, 0)))


def replaced(flow):
    flow.bijection = kf.Chain([kf.bijections.ElementwiseAffine(3)])


def another_memory(flow):
    flow.bijection.bijections[1].memory = "store"


def another_bound(flow):
    coupling = kf.AffineCoupling(kf.Partition.half(3), kf.nets.MLP(1, 4, (4,)))
    flow.__dict__.update(jittered(kf.Flow(kf.StandardNormal(3), coupling)).__dict__)
    flow.bijection.scale_bound = 1.0


@pytest.mark.parametrize("change", [appended, another_memory, another_bound, replaced])
def test_a_flow_changed_after_it_was_built_is_not_saved(change, flow, tmp_path):
    """Its description would be of another function, so nothing is written."""
    change(flow)
    with pytest.raises(kf.errors.ArgumentError, match="'flow' was changed after it was built"):
        kf.save(flow, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_part_exchanged_for_one_with_other_state_is_saved_as_it_is(tmp_path):
    """A permutation's index is state, so exchanging it is no change of the description."""
    parts = [kf.bijections.Permutation((1, 2, 0)), kf.bijections.ElementwiseAffine(3)]
    flow = kf.Flow(kf.StandardNormal(3), kf.Chain(parts))
    flow.bijection.bijections[0] = kf.bijections.Permutation((2, 1, 0))
    kf.save(flow, tmp_path)
    assert states_equal(kf.load(tmp_path), flow)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kf.Flow(kf.StandardNormal(2), NotRegistered()), "a NotRegistered cannot be"),
        (lambda: kf.bijections.Permutation((0, 1)), "'flow' should be a Flow, got Permutation"),
        (
            lambda: of_two_types(),
            "'flow' should hold numbers of one type, got torch.float32, torch.float64",
        ),
    ],
)
def test_what_no_file_can_describe_is_not_saved(make, message, tmp_path):
    """The sentence says what to do about it, and nothing is written."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.save(make(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def of_two_types():
    """Returns a flow in two types, which loading in one would change."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    flow.bijection.bijections[0].double()
    return flow


@kf.register("test_files.Identity")
class Identity(NotRegistered):
    """The identity, which has an argument."""

    def __init__(self, end):
        super().__init__()
        self.end = end


def test_numbers_that_json_has_no_word_for_come_back(tmp_path):
    """An infinite argument is written and read as such."""
    kf.save(kf.Flow(kf.StandardNormal(2), Identity(float("-inf"))), tmp_path)
    assert kf.load(tmp_path).bijection.end == float("-inf")


def test_a_model_is_not_saved_over_a_run(flow, tmp_path):
    """The run's report and result would then be of another model."""
    kf.fit(flow, torch.randn(100, 3), max_epochs=1, out=tmp_path / "run")
    before = (tmp_path / "run" / WEIGHTS).read_bytes()
    with pytest.raises(kf.errors.ArgumentError, match="holds a run"):
        kf.save(flow, tmp_path / "run")
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == before


def test_the_same_content_is_the_same_bytes(tmp_path):
    """Whatever order the library below writes its header in: files can be compared."""
    paths = [tmp_path / f"{i}.safetensors" for i in range(20)]
    for path in paths:
        write_tensors(path, {"a": torch.ones(3)}, {"x": "1", "y": "2", "z": "3"})
    assert len({path.read_bytes() for path in paths}) == 1
    assert read_tensors(paths[0])[1] == {"x": "1", "y": "2", "z": "3"}


@pytest.mark.slow
def test_a_rewritten_flow_is_loaded_by_a_program_that_never_rewrites(tmp_path):
    """The names of all packages of the library are known without importing each of them first."""
    flow, _ = kf.rewrite_fixed_partition(kf.real_nvp(4, depth=2, hidden=(4,), partition="random"))
    kf.save(flow, tmp_path)
    code = f"import kappaflow as kf; print(len(kf.load({str(tmp_path)!r}).bijection))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(flow.bijection)
