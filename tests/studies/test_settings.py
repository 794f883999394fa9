"""Settings of a reader's own: wrong ones are refused in a sentence, empty lists are none."""

import json
import re
import tomllib

import pytest

from kappaflow.errors import ArgumentError
from kappaflow_studies import run_study
from kappaflow_studies.catalog import STUDIES
from kappaflow_studies.engine.presets import settings_of

NAMES = {
    "linear-depth": "ensembles",
    "factor-tradeoff": "ensembles",
    "depth-factor": "tables",
    "partition": "images",
    "universal": "targets",
    "depth-conditioning": "libraries",
    "padding": "sets",
}


def own(study, tmp_path, **changed):
    """Returns a file with the settings for minutes, but for some."""
    path = tmp_path / "own.json"
    values = tomllib.loads(study.presets.read_text("utf-8"))["minutes"]
    path.write_text(json.dumps(values | changed))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_no_number_may_be_negative(name, tmp_path):
    """Not in a list either; the sentence names the field."""
    study = STUDIES[name]
    for field, value in tomllib.loads(study.presets.read_text())["minutes"].items():
        if isinstance(value, list) and (not value or isinstance(value[0], str)):
            continue
        wrong = -1 if isinstance(value, int) else -1.0
        if isinstance(value, list):
            wrong = [[-1, -1]] if isinstance(value[0], list) else [-1] * len(value)
        with pytest.raises(ArgumentError, match=field):
            settings_of(study, "minutes", own(study, tmp_path, **{field: wrong}))


@pytest.mark.parametrize(("name", "field"), NAMES.items())
def test_an_unknown_name_is_refused_with_those_that_are_known(name, field, tmp_path):
    """Before anything is measured, and nothing is written."""
    study, out = STUDIES[name], tmp_path / "out"
    with pytest.raises(ArgumentError, match=r"'Nobody'.* choose from \w+") as caught:
        run_study(study, out, config=own(study, tmp_path, **{field: ["Nobody"]}))
    assert f"'{field}." in str(caught.value) and not out.exists()


@pytest.mark.parametrize(
    ("name", "changed", "why"),
    [
        ("linear-depth", {"sizes": [7]}, "multiple of 2"),
        ("linear-depth", {"ensembles": ["three-cycle"], "sizes": [4]}, "should come to a case"),
        ("linear-depth", {"depths": []}, "at least 1 item"),
        ("factor-tradeoff", {"couplings": [5]}, "greater than or equal to 6"),
        ("factor-tradeoff", {"draws": [1, 2]}, "a number for each size"),
        ("depth-factor", {"tables": ["bananas-x"]}, "even number of features, got 'bananas-x'"),
        ("depth-factor", {"tables": ["bananas-7"]}, "even number of features, got 'bananas-7'"),
        ("depth-factor", {"levels": [2]}, "equally long lists"),
        ("partition", {"tables": [], "images": []}, "should come to a case"),
        ("padding", {"image_epochs": []}, "a number for each of 'image_sets'"),
        ("padding", {"compared": ["zeros:2"]}, "got 'zeros:2'"),
        ("padding", {"learning_rate": float("inf")}, "finite"),
        ("sphere", {"mixtures": [[16, 1]]}, "greater than or equal to 2"),
        ("depth-conditioning", {"hidden": []}, "at least 1 item"),
        ("depth-conditioning", {"features": 2}, "greater than or equal to 4"),
        ("universal", {"errors": [0.0]}, "greater than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, changed, why, tmp_path):
    """With the reason, before the folder is made."""
    study, out = STUDIES[name], tmp_path / "out"
    with pytest.raises(ArgumentError, match=why):
        run_study(study, out, config=own(study, tmp_path, **changed))
    assert not out.exists()


FEW = {"rows": 64, "epochs": 1, "batch_size": 32, "points": 2, "seeds": 1}
FEW_IMAGES = {"image_batch_size": 256, "image_epochs": 1, "image_points": 2, "channels": 2}
TRAINED = {**FEW, **FEW_IMAGES, "hidden": 4}
PLANE = {**FEW, "depth": 2, "hidden": [4], "measured_every": 1, "draws": 2, "drawn": 20}
NO_IMAGES = {"image_sets": [], "image_sizes": [], "image_epochs": []}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("depth-factor", {**TRAINED, "images": [], "sizes": [], "levels": [], "repeats": 1,
                          "tables": ["bananas-4"], "depths": [2]}),
        pytest.param("depth-factor", {**TRAINED, "tables": [], "images": ["digits"], "sizes": [0],
                                      "levels": [2], "steps": [1], "repeats": 1},
                     marks=pytest.mark.slow),
        pytest.param("partition", {**TRAINED, "images": [], "tables": ["bananas-4"],
                                   "depths": [2], "deeper": []}, marks=pytest.mark.slow),
        ("padding", {**PLANE, **NO_IMAGES, "sets": ["two_moons"], "compared": ["none"],
                     "others": []}),
        ("padding", {**PLANE, **NO_IMAGES, "sets": ["two_moons"], "compared": [],
                     "others": ["zero:1"]}),
        pytest.param("universal", {"targets": ["banana-4d"], "errors": [0.5], "pictured": [],
                                   "samples": 2, "points": 2, "draws": 2},
                     marks=pytest.mark.slow),
        pytest.param("depth-conditioning", {"libraries": ["zuko"], "depths": [2], "features": 4,
                                            "hidden": [2], "steps": 1, "batch": 2, "points": 2,
                                            "test_points": 2, "whitening_draws": 1,
                                            "whitening_layers": 2}, marks=pytest.mark.slow),
        ("linear-depth", {"ensembles": ["Toeplitz"], "sizes": [2], "depths": [2], "draws": 1,
                          "restarts": 1, "adam_steps": 1, "lbfgs_steps": 1}),
        ("factor-tradeoff", {"ensembles": ["three-cycle"], "sizes": [6], "draws": [1],
                             "couplings": [6]}),
        pytest.param("sphere", {"mixtures": [[2, 2]], "budgets": [500], "depths": [1], "steps": 1,
                                "batch_size": 64, "points": 4, "components": [3],
                                "features": [2], "family_components": [2], "tuples": 2,
                                "bound_components": [2], "bound_features": [2],
                                "layer_parameters": [1]}, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_least_of_an_experiment_is_written_too(name, changed, tmp_path):
    """With lists that may be empty left empty: what has no rows has no sentence and no chart."""
    study, out = STUDIES[name], tmp_path / "out"
    done = run_study(study, out, config=own(study, tmp_path, **changed), processes=1)
    assert (out / "index.html").exists() and done.report.cases >= 1
    message = " ".join((*done.report.findings.found, *done.report.findings.differs))
    assert not re.search(r"\b(nan|inf|None)\b", message), message


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("depth-factor", {"images": [], "sizes": [], "levels": [], "depths": [2]}),
        pytest.param(
            "partition", {"images": [], "depths": [2], "deeper": []}, marks=pytest.mark.slow
        ),
    ],
)
def test_trainings_that_stop_do_not_stop_the_experiment(name, changed, tmp_path):
    """They are counted, and the page is written without them."""
    study, out = STUDIES[name], tmp_path / "out"
    wild = {**TRAINED, "epochs": 60, "tables": ["bananas-4"], "learning_rate": 1e30} | changed
    config = own(study, tmp_path, **wild)
    done = run_study(study, out, config=config, processes=1)
    cases = done.report.cases
    stop = "training stopped" if cases == 1 else "trainings stopped"
    assert any(f"{cases} of {cases} {stop}" in message for message in done.report.findings.found)
    assert (out / "index.html").exists()
