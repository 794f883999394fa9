"""The forms of 1x1 convolutions are trained alike, and their table says what the results say."""

import json

import pytest
import torch

from abacus import MACHINE

TINY = {"batch": 16, "image": [1, 8, 8], "levels": 2, "steps": 1, "hidden": 3}
LARGER = {**TINY, "image": [3, 8, 8], "hidden": 9}


def condition(median, largest, flow):
    """Returns the condition numbers of a flow."""
    return {"median": median, "max": largest, "flow": flow}


def line_of(form, seed, test, after):
    """Returns a line of a training."""
    settings = {"part": "training", "form": form, "seed": seed, "steps": 400, "shape": TINY}
    before = condition(1.0, 1.0, 5.0)
    return {**settings, "parameters": 640, "before": before, "after": after, "test": test}


RESULTS = {
    "preset": "minutes",
    "machine": MACHINE,
    "lines": [
        line_of("plain", 0, 2.0, condition(3.0, 9.0, 100.0)),
        line_of("plain", 1, 2.2, condition(4.0, 7.0, 140.0)),
        line_of("plain", 2, 2.4, condition(5.0, 8.0, 120.0)),
        line_of("SVD, bound 4", 0, 2.5, condition(1.5, 2.0, 50.0)),
        {
            "part": "times",
            "repetitions": 11,
            "shape": LARGER,
            "forms": {
                "plain": {"median_ms": 100.0, "to_plain": 1.0, "repetitions": 11},
                "orthogonal": {"median_ms": 110.0, "to_plain": 1.12, "repetitions": 11},
            },
        },
    ],
}


def rows_of(text):
    """Returns the cells of the table by form."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_the_table_has_medians_over_the_seeds_and_the_largest_of_all(benchmark):
    """A row for each form, with the settings above it."""
    text = benchmark("page").images_page({"mixing": RESULTS})
    rows = rows_of(text[text.index("## Forms of 1x1") :])
    spread = "2.200 (2.000 to 2.400)"
    assert rows["plain"] == ["640", "4", "9", "no", "5", "120", spread, "1.00"]
    assert rows["SVD, bound 4"][1:4] == ["1.5", "2", "at most 4"]
    assert rows["orthogonal"] == ["", "", "", "1", "", "", "", "1.12"]
    assert "400 steps of Adam" in text and "over 3 seeds" in text
    assert "3 x 8 x 8" in text and "11 repetitions" in text


def test_nothing_is_said_of_times_or_trainings_that_were_not_measured(benchmark):
    """The others still are."""
    page = benchmark("page").images_page
    lines = RESULTS["lines"]
    only = page({"mixing": {**RESULTS, "lines": lines[-1:]}})
    assert "steps of Adam" not in only and "repetitions" in only
    only = page({"mixing": {**RESULTS, "lines": lines[:-1]}})
    assert "steps of Adam" in only and "in turn, " not in only


@pytest.fixture
def short(benchmark):
    """Returns what a training of a few steps with a form comes to, from a job as JSON."""
    shape = benchmark("row").ImageShape(**{**TINY, "image": (1, 8, 8)})

    def run(form, steps):
        jobs = benchmark("mixing")._trainings(steps, 1, shape)
        job = next(job for job in jobs if job.arguments["form"] == form)
        return benchmark("worker").TASKS[job.task](**json.loads(json.dumps(job.arguments)))

    return run


@pytest.mark.slow
def test_a_training_moves_a_form_that_is_free_and_not_one_that_is_bound(short):
    """From condition number 1; what a rotation cannot do its neighbors may."""
    free, bound = short("plain", 30), short("orthogonal", 30)
    for found in (free, bound):
        assert found["before"]["max"] == pytest.approx(1, abs=1e-5)
        assert found["after"]["flow"] != pytest.approx(found["before"]["flow"], rel=1e-3)
    assert free["after"]["max"] > 1.01
    assert bound["after"]["max"] == pytest.approx(1, abs=1e-5)
    assert free["parameters"] == 4**2 + 8**2


def test_condition_numbers_are_those_of_the_matrices_and_of_the_flow(benchmark):
    """From singular values taken here."""
    module = benchmark("mixing_training")
    shape = benchmark("row").ImageShape(**{**TINY, "image": (1, 8, 8)})
    torch.manual_seed(0)
    flow = module.glow_of("plain", shape).eval()
    layers = module.mixing_of(flow)
    assert len(layers) == 2
    for layer, stretch in zip(layers, (3.0, 5.0), strict=True):
        with torch.no_grad():
            layer.linear.weight[0] *= stretch
    found = module.conditions(flow, torch.randn(2, 1, 8, 8))
    assert found["max"] == pytest.approx(5.0, rel=1e-4)
    assert found["median"] == pytest.approx(4.0, rel=1e-4)
    assert 5.0 <= found["flow"] <= 15.0 * (1 + 1e-4)


def test_steps_of_all_forms_are_timed(benchmark):
    """Each beside the plain form of the same round."""
    shape = benchmark("row").ImageShape(**{**TINY, "image": (3, 4, 4), "batch": 2, "levels": 1})
    found = benchmark("mixing_training").step_times(2, shape)
    assert list(found) == list(benchmark("mixing_training").FORMS)
    assert found["plain"]["to_plain"] == 1
    assert all(figures["median_ms"] > 0 for figures in found.values())
