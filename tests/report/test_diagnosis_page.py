"""The page of a diagnosis: findings as cards, with charts of what was measured."""

import dataclasses
import json
import re

import pytest
from tests.report import examples

import kappaflow as kf
from kappaflow.report.diagnosis import render_diagnosis


def figures_of(html):
    """Returns the figures that the script of a page draws, by name."""
    text = re.search(r'id="figure-data">(.*?)</script>', html, re.DOTALL)[1]
    return json.loads(text)


def card_of(html, code):
    """Returns the part of the page that is about a finding."""
    cards = re.findall(r'<article class="finding.*?</article>', html, re.DOTALL)
    return next(card for card in cards if f"<span>{code}</span>" in card)


def finding(code="KF999", **parts):
    """Returns a finding of a check that the page does not know."""
    content = {
        "severity": "warning",
        "layer": None,
        "message": "Something new is the matter.",
        "cause": "A cause.",
        "fix": "A fix.",
        "evidence": {"share": 0.25, "where": "the tail", "count": 3, "nothing": None},
    }
    return kf.diagnosis.Finding(code=code, **(content | parts))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "code", "figures"),
    [
        (examples.with_wrong_samples, "KF206", ["with-samples"]),
        (examples.ill_conditioned, "KF301", ["condition", "singular-values"]),
        (examples.not_finite, "KF101", ["log-prob"]),
        (examples.with_small_error, "KF203", ["log-dets"]),
    ],
)
def test_a_finding_has_the_figure_that_explains_it(make, code, figures):
    """In its card and nowhere else, with layer, cause, fix, and the title of its check."""
    diagnosis = make()
    html = render_diagnosis(diagnosis, title="flows.py:make", points="some points")
    card = card_of(html, code)
    assert re.findall(r'data-figure="([^"]+)"', card) == figures
    assert all(html.count(f'data-figure="{name}"') == 1 for name in figures_of(html))
    assert f"<dt>Check</dt><dd>{code}: " in card
    assert "<dt>Cause</dt>" in card and "<dt>Fix</dt>" in card
    assert "<h1>flows.py:make</h1>" in html and "some points" in html
    assert "Do not use" in html


def test_marks_lie_where_the_numbers_say():
    """The density returned with samples against log_prob, from the table that JSON has too."""
    diagnosis = examples.with_wrong_samples()
    figure = figures_of(render_diagnosis(diagnosis))["with-samples"]
    marks = figure["data"][-1]
    assert marks["x"] == diagnosis.tables["sample_densities"]["layers"]
    assert marks["y"] == diagnosis.tables["sample_densities"]["with_samples"]
    gaps = [y - x for x, y in zip(marks["x"], marks["y"], strict=True)]
    assert gaps == pytest.approx([-2.0] * 64, abs=1e-4)


@pytest.mark.slow
def test_a_small_difference_is_drawn_as_a_difference():
    """The size of the marks would hide 0.01 nats on a scale of several."""
    figure = figures_of(render_diagnosis(examples.with_small_error()))["log-dets"]
    for trace in figure["data"]:
        assert trace["y"] == pytest.approx([0.01] * 64, abs=1e-4)
    assert "difference" in figure["layout"]["yaxis"]["title"]["text"]


def test_a_healthy_flow_has_a_page_that_says_so():
    """And shows everything that was measured, including the float type."""
    html = render_diagnosis(
        kf.doctor(kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2)))
    )
    assert (
        "Use with care" in html  # samples were not compared with rows
        and "found no error, no warning" in html
        and "float32 safe" in html
    )
    expected = {"condition", "envelope", "round-trips", "far-out", "log-dets"}
    assert expected <= set(figures_of(html))


def test_the_rows_of_a_diagnosis_are_named_once():
    """Where they come from is a fact with its own name, next to their number."""
    html = render_diagnosis(examples.healthy(), points="held-out rows of the run")
    facts = html.split('id="measured"')[1].split("</section>")[0]
    names = re.findall(r'<th scope="row">(.*?)</th>', facts)
    assert names[0] == "measured at" and len(names) == len(set(names))


def test_only_what_was_measured_is_drawn():
    """Without tables and profile there is no figure and no empty section."""
    complete = examples.healthy()
    bare = dataclasses.replace(complete, tables={}, profile=None, goodness=None)
    html = render_diagnosis(bare)
    assert figures_of(html) == {} and 'data-figure="' not in html
    assert 'id="depth"' not in html and 'id="others"' not in html
    assert "far-out" not in figures_of(render_diagnosis(dataclasses.replace(complete, tables={})))


def test_an_unknown_check_is_shown():
    """The page needs no change for checks that users add."""
    html = render_diagnosis(dataclasses.replace(examples.healthy(), findings=(finding(),)))
    card = card_of(html, "KF999")
    assert "Something new is the matter." in card and "the tail" in card and "0.25" in card
    assert "<dt>Check</dt>" not in card


@pytest.mark.slow
def test_text_from_users_is_escaped():
    """A layer, a message or a title may contain markup."""
    markup = "<script>alert(1)</script>"
    diagnosis = dataclasses.replace(
        examples.healthy(), findings=(finding(layer=markup, message=markup, cause=markup),)
    )
    html = render_diagnosis(diagnosis, title=markup, points=markup)
    assert markup not in html and "&lt;script&gt;alert(1)" in html


def test_numbers_that_are_not_finite_are_left_out_and_counted():
    """The page says how many are missing."""
    html = render_diagnosis(examples.not_finite())
    assert "are not finite and are left out" in html
    assert "unusable in float32" in html
    assert "The largest distance from it is an amount that is not finite" in html


@pytest.mark.slow
def test_a_page_is_written_whole_and_replaces_another(tmp_path):
    """No other file is left in the folder."""
    path = tmp_path / "page.html"
    path.write_text("old")
    assert kf.write_diagnosis(examples.healthy(), path, title="mine") == path
    assert "<h1>mine</h1>" in path.read_text(encoding="utf-8")
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("page.txt", "'path' should end in .html"),
        ("none/page.html", "cannot be written: there is no folder"),
        ("folder.html", "'path' should be a file"),
    ],
)
def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path, place, why):
    """The path is checked before anything is drawn."""
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(kf.KappaflowError, match=re.escape(why)):
        kf.write_diagnosis(examples.healthy(), tmp_path / place)


def test_a_flow_in_place_of_its_diagnosis_is_one_sentence(tmp_path):
    """And no file is written."""
    flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
    with pytest.raises(kf.errors.ArgumentError, match="what kappaflow.doctor returns, got Flow"):
        kf.write_diagnosis(flow, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
