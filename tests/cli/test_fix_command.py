"""`kappaflow doctor RUN --fix`: findings go, the run that was examined stays."""

import inspect
import json

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.cli.doctor import doctor
from kappaflow.files import describe_model, read_config, write_weights

SMALL = ("--hidden", 8, "--max-epochs", 2, "--quiet")


def contents(folder):
    """Returns the bytes of all files of a folder, by name."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def respelled(run, change):
    """Changes the flow of a finished run in place."""
    flow = kf.load(run)
    with torch.no_grad():
        change(flow)
    config = read_config(run / "config.json")
    assert describe_model(flow).model == config.model
    write_weights(run / "model.safetensors", flow.state_dict(), config)


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    """A csv whose column d is a - 2 b up to 3e-5."""
    path = tmp_path_factory.mktemp("near") / "near.csv"
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    d = x[:, 0] - 2 * x[:, 1] + 3e-5 * rng.normal(size=600)
    np.savetxt(path, np.column_stack([x, d]), delimiter=",", header="a,b,c,d", comments="")
    return path


@pytest.fixture(scope="module")
def squeezed(table, tmp_path_factory):
    """A run with linear layers, one of which is nearly singular."""
    from kappaflow.cli.app import main

    out = tmp_path_factory.mktemp("squeezed") / "run"
    words = ("fit", table, "--depth", 3, "--mixing", "lu", "--out", out, *SMALL)
    assert main([str(word) for word in words]) == 0

    def squeeze(flow):
        layers = [part for part in flow.modules() if isinstance(part, kf.bijections.LULinear)]
        layers[1].triangles[1, 1] = -12.0  # exp(-12)

    respelled(out, squeeze)
    return out


@pytest.mark.slow
def test_a_nearly_singular_layer_gets_a_bound_and_the_flow_is_trained_on(run, squeezed, tmp_path):
    before, new = contents(squeezed), tmp_path / "new"
    found = run("doctor", squeezed, "--fix", "--into", new, "--epochs", 3, "--json")
    message = json.loads(found.out)
    assert "KF305" in [one["code"] for one in message["before"]["findings"]]
    assert "KF305" not in [one["code"] for one in message["after"]["findings"]]
    assert [word.split(":")[0] for word in message["done"]] == [
        "bound",
        "trained for 3 more epochs",
    ]
    assert message["after"]["measured"]["condition_number_max"] < 1e4
    assert message["before"]["measured"]["condition_number_max"] > 1e4
    assert contents(squeezed) == before
    assert (new / "report.html").exists()
    assert json.loads((new / "fixes.json").read_text()) == message
    assert run("score", new, read_config(new / "config.json").run["source"]["data"]).status == 0
    assert run("report", new).status == 0


@pytest.mark.slow
def test_float64_is_what_rounding_asks_for(run, squeezed, tmp_path):
    new = tmp_path / "new"
    found = run("doctor", squeezed, "--fix", "float64", "--into", new)
    assert found.status == 0, found.err
    assert "float64: converted from float32 to float64" in found.out
    assert "condition number max" in found.out
    flow, old = kf.load(new), kf.load(squeezed)
    assert flow.dtype == torch.float64
    x = torch.zeros(1, 3)
    torch.testing.assert_close(flow.log_prob(x.double()), old.double().log_prob(x.double()))
    assert json.loads((new / "diagnosis.json").read_text())["measured"]["dtype"] == "float64"


def test_neighboring_linear_layers_become_one_on_a_saved_model(run, tmp_path):
    there = kf.bijections.Linear.of([[1.0, 1.0], [1.0, 1.0 + 2e-5]])
    layers = [there, kf.bijections.Linear.of(torch.linalg.inv(there.matrix().double()).float())]
    kf.save(
        kf.Flow(kf.StandardNormal(2), kf.Chain([kf.bijections.ActNorm(2), *layers])),
        tmp_path / "model",
    )
    found = run("doctor", tmp_path / "model", "--fix", "fuse")
    assert "merged neighboring linear layers" in found.out
    fused = kf.load(tmp_path / "model-fixed")
    assert len(fused.bijection) < 3


@pytest.mark.slow
def test_a_column_that_nearly_follows_is_named_with_the_options_of_fit(run, near, tmp_path):
    folder = tmp_path / "run"
    assert run("fit", near, "--depth", 2, "--out", folder, *SMALL).status == 0
    fixed = run("doctor", folder, "--fix")
    assert "Nothing changed" in fixed.out
    assert "Another training may help: column 'd' nearly follows from others" in fixed.out
    assert "fit again with --exclude d, or with --jitter d" in fixed.out


@pytest.mark.slow
def test_the_same_command_resumes_a_training_that_was_killed_before_its_report(
    run, squeezed, tmp_path
):
    new = tmp_path / "bounded"
    run("doctor", squeezed, "--fix", "bound", "--into", new, "--epochs", 1)
    result = json.loads((new / "result.json").read_text())
    kept = {key: result[key] for key in ("history", "validation_nll", "best_epoch")}
    kept["stopped_because"] = result["stopped_because"]
    (new / "result.json").write_text(json.dumps(kept))
    run("doctor", squeezed, "--fix", "bound", "--into", new, "--epochs", 1)
    again = json.loads((new / "result.json").read_text())
    assert again["test"]["nll"] == pytest.approx(result["test"]["nll"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fix", "--epochs", 0), "epochs"),
        (("--fix", "--into", "."), "'into' should be a new folder, . exists already"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run, finished, words, message):
    found = run("doctor", finished, *words)
    assert found.status != 0
    assert message in found.err
    assert "Traceback" not in found.err
    assert len(found.err.strip().splitlines()) == 1


COMBINED = {"run", "fix", "into", "epochs", "json"}
VALUES = {"select": "KF3", "ignore": "KF3", "decimal": ",", "device": "cpu", "context": "a"}


@pytest.mark.parametrize("option", sorted(set(inspect.signature(doctor).parameters) - COMBINED))
def test_no_other_option_of_the_doctor_combines_with_a_fix(run, tmp_path, option):
    """None is ignored in silence, and nothing is read or written."""
    parameter = inspect.signature(doctor).parameters[option]
    words = ["doctor", tmp_path / "run"]
    if parameter.kind is parameter.POSITIONAL_ONLY:
        words.append("rows.csv")
    else:
        words.append(f"--{option}")
        words += [] if parameter.default is False else [VALUES.get(option, "page.html")]
    outcome = run(*words, "--fix")
    assert outcome.status == 2
    assert "only combines with --into" in outcome.err or f"'{option}' is for" in outcome.err
    assert not any(tmp_path.iterdir())


def test_a_run_has_no_new_run_in_it(run, finished):
    """It stays byte for byte what it was."""
    before = contents(finished)
    found = run("doctor", finished, "--fix", "float64", "--into", finished / "new")
    assert found.status == 2 and "'into' should be outside of" in found.err
    assert contents(finished) == before


def test_a_fix_without_training_keeps_an_unfinished_training(run, squeezed, tmp_path):
    """It does not overwrite the training of another fix, and says why."""
    new = tmp_path / "bounded"
    run("doctor", squeezed, "--fix", "bound", "--into", new, "--epochs", 1)
    (new / "result.json").unlink()
    before = contents(new)
    found = run("doctor", squeezed, "--fix", "float64", "--into", new)
    assert found.status == 2 and "holds an unfinished training" in found.err
    assert contents(new) == before


def test_a_fix_without_effect_says_so(run, finished, tmp_path):
    """The reason differs for named fixes and for findings without an automatic fix."""
    for fixes, why in ((["bound"], "bound finds"), (["fuse", "bound"], "fuse and bound find")):
        found = run("doctor", finished, "--fix", *fixes)
        assert f"Nothing changed: {why} nothing to change." in found.out
    layer = kf.bijections.ElementwiseAffine(2, log_scale=[800.0, 0.0])
    kf.save(kf.Flow(kf.StandardNormal(2), layer).double(), tmp_path / "model")
    found = run("doctor", tmp_path / "model", "--fix")
    assert "Nothing changed: no automatic fix applies to these findings." in found.out
    assert found.status == 1


def test_fixes_that_train_need_the_data(run, tmp_path):
    kf.save(kf.real_nvp(3, depth=2, hidden=(8,)), tmp_path / "model")
    found = run("doctor", tmp_path / "model", "--fix", "bound")
    assert "whose original data still exists" in found.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
