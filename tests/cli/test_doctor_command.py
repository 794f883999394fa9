"""`kappaflow doctor` on runs and on flows that Python code makes, its page, and its fixes."""

import inspect
import json

import numpy as np
import polars as pl
import pytest
import torch
from tests.cli.conftest import SMALL, fitted, read, refused
from tests.pretend import CUDA, PretendedDevice

import kappaflow as kf
from kappaflow.cli.doctor import doctor
from kappaflow.cli.fit_options import ReadText
from kappaflow.files import describe_model, read_config, write_weights
from kappaflow.runs import diagnose_run, fix_run, sample_run, score_run, user_code


def codes(diagnosis):
    """Returns the codes of the findings of a diagnosis as JSON."""
    return {finding["code"] for finding in diagnosis["findings"]}


@pytest.fixture
def rows(tmp_path):
    """A table of three columns near 1, which float32 cannot hold to the last digit."""
    values = np.random.default_rng(0).normal(size=(80, 3)) * 1e-6 + 1
    path = tmp_path / "rows.csv"
    pl.DataFrame(values, schema=["a", "b", "c"]).write_csv(path)
    return path


@pytest.mark.slow
def test_a_run_gets_a_verdict_at_its_own_rows_or_others(run, table, finished, tmp_path):
    """Status 0, a sentence, and the figures; as JSON too; a page is named after the folder."""
    healthy = run("doctor", finished, "--out", tmp_path / "page.html")
    assert healthy.status == 0 and healthy.out.startswith((
        "Use this flow with care.",
        "Do not use",
    ))
    assert "held-out rows of the run" in healthy.out
    assert "<h1>run</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    on_table = run("doctor", finished, table)
    assert on_table.status == 0
    assert "held-out rows" in on_table.out
    assert json.loads(run("doctor", finished, table, "--json").out)["ok"] is True


def test_an_error_gives_status_1_and_names_a_layer(run, finished, tmp_path):
    flow = kf.load(finished)
    coupling = flow.bijection.bijections[1].plain().bijections[0]
    coupling.conditioner.layers[-1].bias.data.fill_(float("nan"))
    kf.save(flow, tmp_path / "bad")
    sick = run("doctor", tmp_path / "bad")
    assert sick.status == 1 and "KF101" in sick.out and "1 AffineCoupling" in sick.out


@pytest.mark.slow
def test_a_flow_of_code_is_examined_at_its_points_or_at_a_table(run, code, rows):
    """With columns for the context, and in float64 without rounding the rows."""
    done = run("doctor", f"{code}:healthy")
    assert done.status == 0 and "The flow is numerically sound" in done.out
    assert "points of the code" in done.out
    assert run("doctor", f"{code}:conditional").status == 0
    done = run("doctor", f"{code}:doubling", rows)
    assert f"rows of {rows}" in done.out
    values = np.random.default_rng(0).normal(size=(80, 3))
    pl.DataFrame(values, schema=["a", "b", "c"]).write_csv(rows.with_name("normal.csv"))
    table = rows.with_name("normal.csv")
    assert run("doctor", f"{code}:conditional", table, "--context", "c").status == 0
    diagnosis = json.loads(run("doctor", f"{code}:double", rows, "--json").out)
    assert diagnosis["measured"]["dtype"] == "float64" and "KF602" not in codes(diagnosis)


@pytest.mark.slow
def test_a_fault_is_found_with_exit_status_1(run, code):
    """And can be left out, by its code or by the beginning of it."""
    done = run("doctor", f"{code}:faulty", "--json")
    assert done.status == 1 and codes(json.loads(done.out)) == {"KF203", "KF509"}
    for words in (("--ignore", "KF203", "KF5"), ("--select", "KF1"), ("--ignore", "KF2", "KF509")):
        left = run("doctor", f"{code}:faulty", "--json", *words)
        diagnosis = json.loads(left.out)
        assert left.status == 0 and diagnosis["findings"] == []
        assert diagnosis["verdict"].endswith("2 findings of other codes are hidden.")
    kept = run("doctor", f"{code}:faulty", "--select", "KF203", "--ignore", "KF2")
    assert kept.status == 1


def test_discrete_columns_are_named_as_in_the_table(run, code, tmp_path):
    """For a flow of code; the data of a run was examined when it was fitted."""
    values = np.random.default_rng(0).integers(-3, 4, size=(80, 3))
    path = tmp_path / "rows.csv"
    pl.DataFrame(values, schema=["energy", "b", "c"]).write_csv(path)
    out = run("doctor", f"{code}:doubling", path).out
    assert "KF603: Column 'energy' holds" in out
    assert "samples have energy" in out  # which are compared with the rows


def test_a_page_is_written_next_to_what_is_printed(run, code, tmp_path):
    """With the chosen findings only; an existing one is replaced, but for Ctrl-C."""
    page = tmp_path / "page.html"
    page.write_text("old")
    done = run("doctor", f"{code}:stopped", "--out", page)
    assert done.status == 130 and "Traceback" not in done.err and page.read_text() == "old"
    done = run("doctor", f"{code}:faulty", "--out", page)
    text = page.read_text(encoding="utf-8")
    assert done.status == 1 and f"page                      {page}" in done.out
    assert "<h1>flows.py:faulty</h1>" in text and "KF203" in text
    assert "points of the code" in text and done.err == ""
    ignored = ("--ignore", "KF2", "--ignore", "KF5")
    left = run("doctor", f"{code}:faulty", *ignored, "--out", page, "--json")
    assert left.status == 0 and json.loads(left.out)["findings"] == [] and left.err == ""
    assert "<span>KF203</span>" not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_has_the_same_diagnosis_each_time(run, tmp_path):
    """A flow that is worse than a Gaussian on held-out rows, also when it is examined again."""
    x = np.random.default_rng(0).normal(size=(400, 4)) @ np.diag([1.0, 1.0, 1.0, 1e-2])
    x[:, 3] += x[:, 0] + x[:, 1]
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="a,b,c,d", comments="")
    folder = tmp_path / "run"
    words = ("--depth", 2, "--hidden", 8, "--max-epochs", 1, "--quiet")
    assert run("fit", tmp_path / "x.csv", "--out", folder, *words).status == 0
    stored = read(folder, "diagnosis.json")
    again = json.loads(run("doctor", folder, "--json").out)
    assert "KF501" in codes(stored)
    messages = [[(f["code"], f["message"]) for f in d["findings"]] for d in (again, stored)]
    assert messages[0] == messages[1] and again["verdict"] == stored["verdict"]
    fixed = json.loads(run("doctor", folder, "--fix", "float64", "--json").out)
    assert "KF501" in codes(fixed["after"])
    own = json.loads(run("doctor", folder, tmp_path / "x.csv", "--json").out)
    assert own["verdict"] == stored["verdict"]  # of its own file, the held-out rows
    (tmp_path / "x.csv").rename(tmp_path / "other.csv")
    other = json.loads(run("doctor", folder, tmp_path / "other.csv", "--json").out)
    assert "KF501" not in codes(other)  # of other rows


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the real one")
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_the_device_gives_the_samples_the_scores_and_the_findings_of_the_cpu(
    finished, table, code, monkeypatch
):
    """Samples are drawn from the same latents."""
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")
    devices, original = [], user_code.doctor
    monkeypatch.setattr(
        user_code,
        "doctor",
        lambda f, x, *a, **k: devices.append(x.device) or original(f, x, *a, **k),
    )

    def results(device):
        samples = sample_run(finished, 50, device=device)
        scores = score_run(finished, str(table), device=device)
        diagnoses = (
            diagnose_run(finished, str(table), device=device)[0],
            user_code.diagnose_code(f"{code}:conditional", device=device)[0],
        )
        return samples, scores, [[f.code for f in d.findings] for d in diagnoses]

    expected = results(None)
    with PretendedDevice():
        actual = results("cuda")
    for columns, same in zip(actual[:2], expected[:2], strict=True):
        assert columns.keys() == same.keys()
        for name in columns:
            np.testing.assert_allclose(columns[name], same[name], rtol=1e-4, atol=1e-4)
    assert actual[2] == expected[2]
    assert devices == [torch.device("cpu"), CUDA]


def contents(folder):
    """Returns the bytes of all files of a folder, by name."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def squeezed(table, tmp_path_factory):
    """A run with linear layers, one of which is nearly singular."""
    folder = fitted(tmp_path_factory, table, "--depth", 3, "--mixing", "lu", *SMALL[2:])
    flow = kf.load(folder)
    layers = [part for part in flow.modules() if isinstance(part, kf.bijections.LULinear)]
    with torch.no_grad():
        layers[1].triangles[1, 1] = -12.0  # exp(-12)
    config = read_config(folder / "config.json")
    assert describe_model(flow).model == config.model
    write_weights(folder / "model.safetensors", flow.state_dict(), config)
    return folder


@pytest.mark.slow
def test_a_nearly_singular_layer_gets_a_bound_and_the_flow_is_trained_on(
    run, squeezed, table, tmp_path
):
    """The old run stays; the new one is used as any other."""
    before, new = contents(squeezed), tmp_path / "new"
    result = json.loads(
        run("doctor", squeezed, "--fix", "--into", new, "--epochs", 3, "--json").out
    )
    assert "KF305" in codes(result["before"]) - codes(result["after"])
    names = [clause.split(":")[0] for clause in result["done"]]
    assert names == ["bound", "trained for 3 more epochs"]
    conditions = [result[k]["measured"]["condition_number_max"] for k in ("after", "before")]
    assert conditions[0] < 1e4 < conditions[1]
    assert contents(squeezed) == before
    assert (new / "report.html").exists() and read(new, "fixes.json") == result
    assert run("score", new, table).status == run("report", new).status == 0


@pytest.mark.slow
def test_rounding_is_fixed_by_float64(run, squeezed, tmp_path):
    new = tmp_path / "new"
    outcome = run("doctor", squeezed, "--fix", "float64", "--into", new)
    assert outcome.status == 0, outcome.err
    assert "float64: converted from float32 to float64" in outcome.out
    assert "condition number max" in outcome.out
    flow, old = kf.load(new), kf.load(squeezed)
    assert flow.dtype == torch.float64
    x = torch.zeros(1, 3)
    torch.testing.assert_close(flow.log_prob(x.double()), old.double().log_prob(x.double()))
    assert read(new, "diagnosis.json")["measured"]["dtype"] == "float64"


def test_neighboring_linear_layers_become_one_on_a_saved_model(run, tmp_path):
    first = kf.bijections.Linear.of([[1.0, 1.0], [1.0, 1.0 + 2e-5]])
    layers = [first, kf.bijections.Linear.of(torch.linalg.inv(first.matrix().double()).float())]
    chain = kf.Chain([kf.bijections.ActNorm(2), *layers])
    kf.save(kf.Flow(kf.StandardNormal(2), chain), tmp_path / "model")
    refused(
        run("doctor", tmp_path / "model", "--fix", "bound"), "whose original data still exists"
    )
    outcome = run("doctor", tmp_path / "model", "--fix", "fuse")
    assert "merged neighboring linear layers" in outcome.out
    assert len(kf.load(tmp_path / "model-fixed").bijection) < 3


@pytest.mark.slow
def test_a_training_of_a_fix_is_resumed_and_never_overwritten(run, squeezed, tmp_path):
    """The same command after a kill resumes it; another fix is refused."""
    new = tmp_path / "bounded"
    words = ("doctor", squeezed, "--into", new, "--fix")
    run(*words, "bound", "--epochs", 1)
    result = read(new, "result.json")
    kept = ("history", "validation_nll", "best_epoch", "stopped_because")
    (new / "result.json").write_text(json.dumps({key: result[key] for key in kept}))
    before = contents(new)
    refused(run(*words, "float64"), "holds an unfinished training")
    assert contents(new) == before
    run(*words, "bound", "--epochs", 1)
    assert read(new, "result.json")["test"]["nll"] == pytest.approx(result["test"]["nll"])


COMBINED = {"run", "fix", "into", "epochs", "json", "text"}
VALUES = {"select": "KF3", "ignore": "KF3", "decimal": ",", "device": "cpu", "context": "a"}
VALUES |= {"separator": ";", "comment": "#"}


def test_the_help_names_the_default_epochs_of_a_fix():
    assert f"with --fix ({inspect.signature(fix_run).parameters['epochs'].default})." in (
        inspect.getdoc(doctor)
    )


PARAMETERS = inspect.signature(doctor).parameters
OTHERS = sorted({*PARAMETERS, *vars(ReadText())} - COMBINED)


@pytest.mark.parametrize("option", OTHERS)
def test_no_other_option_of_the_doctor_combines_with_a_fix(run, tmp_path, option):
    """None is ignored in silence, and nothing is read or written."""
    parameter = PARAMETERS.get(option, PARAMETERS["text"])
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


def test_a_fix_without_effect_says_why(run, finished, tmp_path):
    """The reason differs for named fixes and for findings without an automatic fix."""
    for fixes, why in ((["bound"], "bound finds"), (["fuse", "bound"], "fuse and bound find")):
        outcome = run("doctor", finished, "--fix", *fixes)
        assert f"Nothing changed: {why} nothing to change." in outcome.out
    layer = kf.bijections.ElementwiseAffine(2, log_scale=[800.0, 0.0])
    kf.save(kf.Flow(kf.StandardNormal(2), layer).double(), tmp_path / "model")
    outcome = run("doctor", tmp_path / "model", "--fix")
    assert "Nothing changed: no automatic fix applies to these findings." in outcome.out
    assert outcome.status == 1


@pytest.mark.slow
def test_a_column_that_nearly_follows_is_named_with_the_options_of_fit(run, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    d = x[:, 0] - 2 * x[:, 1] + 3e-5 * rng.normal(size=600)
    names = {"delimiter": ",", "header": "a,b,c,d", "comments": ""}
    np.savetxt(tmp_path / "near.csv", np.column_stack([x, d]), **names)
    folder = tmp_path / "run"
    assert run("fit", tmp_path / "near.csv", "--out", folder, *SMALL).status == 0
    fixed = run("doctor", folder, "--fix")
    assert "Nothing changed" in fixed.out
    assert "Another training may help: column 'd' nearly follows from others" in fixed.out
    assert "fit again with --exclude d, or with --jitter d" in fixed.out
