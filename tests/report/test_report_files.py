"""Reports on disk."""

import json
import math
from dataclasses import replace

import pytest
from pydantic import TypeAdapter, ValidationError
from tests.report.examples import GOLD, build_report, changed

from kappaflow.conditioning import ProfileQuantiles
from kappaflow.errors import FileError
from kappaflow.finding import Finding
from kappaflow.report.files import draw_again, from_json, read_report, store_report, to_json


def test_a_report_reads_back_as_it_was_written(tmp_path):
    """The numbers of report.json are the numbers of the report."""
    report = build_report()
    page = store_report(report, tmp_path / "run")
    assert page == tmp_path / "run" / "report.html"
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert read_report(tmp_path / "run") == report


def test_the_json_file_keeps_its_form():
    """The keys and the layout of report.json are a contract: a gold file holds them."""
    gold = GOLD.read_text(encoding="utf-8")
    assert to_json(from_json(gold)) == gold


def test_numbers_that_are_not_finite_stay_what_they_are(tmp_path):
    """The file is JSON without a bare NaN; nan, infinity and names come back unchanged."""
    report = build_report(columns=1, layers=2, epochs=2)
    bad = [float("nan"), float("-inf")]
    evidence = {"worst": float("inf"), "name": "NaN", "digits": "1e3", "whole": 3, "real": 3.0}
    evidence |= {"lowest": float("-inf"), "none": None}
    finding = replace(report.result.findings[0], evidence=evidence)
    profile = report.profile.model_dump() | {"layers": ["NaN", "b"]}
    profile["sigma_max"]["median"] = bad
    report = changed(
        report,
        profile=ProfileQuantiles(**profile),
        findings=[finding],
        test=report.result.test.model_copy(update={"nll_standardized": float("inf")}),
        two_sample=replace(report.charts.two_sample, auc=float("nan"), not_checked=("NaN",)),
    )
    text = to_json(report)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    again = from_json(text)
    assert str(again.profile.sigma_max.median) == "[nan, -inf]"
    assert again.profile.layers == ["NaN", "b"]
    assert str(again.result.findings[0].evidence) == str(evidence)  # types, too
    assert again.result.test.nll_standardized == float("inf")
    assert math.isnan(again.charts.two_sample.auc)
    assert again.charts.two_sample.not_checked == ("NaN",)
    assert to_json(again) == text


def test_a_report_on_data_that_nobody_registered_is_refused(tmp_path):
    """The sentence names the kinds that are registered."""
    content = json.loads(to_json(changed(build_report(), kind="sounds")))
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(FileError, match="is a report on 'sounds', .* of data: .*table"):
        draw_again(tmp_path)


def test_a_folder_without_a_report_is_one_sentence(tmp_path):
    """One sentence names the missing file."""
    with pytest.raises(FileError, match=r"report\.json is missing: .* holds no report\.$"):
        read_report(tmp_path)
    with pytest.raises(FileError, match="is missing"):
        read_report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"about": {', "damaged or cut short"),
        (b"[" * 200_000, "damaged or cut short"),
        (b"[]", "is not a report"),
        (b"{}", "is not a report: 'about' is wrong"),
    ],
    ids=["cut", "deep", "list", "object"],
)
def test_a_damaged_report_is_one_clear_sentence(tmp_path, content, words):
    """Users never see a traceback of a parser."""
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(FileError, match=words) as caught:
        read_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_is_an_error(tmp_path):
    """A report of another version is refused, not half read."""
    content = json.loads(to_json(build_report())) | {"extra": 1}
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(FileError, match="'extra' is wrong"):
        read_report(tmp_path)


@pytest.mark.parametrize(
    "value", [True, [1.0], {"number": 1.0}, {"number": "one"}, {"number": []}, {}]
)
def test_evidence_is_a_number_or_a_text(value):
    """Booleans, lists and objects are refused."""
    content = vars(build_report(layers=2).result.findings[0]) | {"evidence": {"a": value}}
    with pytest.raises(ValidationError, match="evidence"):
        TypeAdapter(Finding).validate_python(content)


def without(key):
    """Returns a function that removes a key."""
    return lambda profile: profile.pop(key)


def with_value(key, value, inside=None):
    """Returns a function that sets another value."""
    return lambda profile: (profile[inside] if inside else profile).update({key: value})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("condition_number"), "'profile.condition_number' is wrong: Field required"),
        (with_value("layers", []), "'profile.layers' is wrong"),
        (with_value("layers", ["one"]), "should hold 1 numbers, one per layer, got 16"),
        (
            with_value("median", [1.0] * 15, "round_trip_data"),
            "'profile' is wrong: round_trip_data.median should hold 16 numbers, .* got 15",
        ),
        (with_value("p95", ["a"] * 16, "sigma_min"), "'profile.sigma_min.p95.0' is wrong"),
        (with_value("p50", [1.0] * 16, "sigma_min"), "'profile.sigma_min.p50' is wrong"),
        (with_value("median", "b", "predicted_round_trip"), "predicted_round_trip.median"),
        (with_value("worst_layer", 16), "worst_layer should be from 0 to 15, got 16"),
        (with_value("status", "fine"), "'profile.status' is wrong"),
    ],
)
def test_a_damaged_profile_is_found_on_reading(tmp_path, damage, words):
    """Nothing that `render` cannot draw is read."""
    content = json.loads(to_json(build_report()))
    damage(content["profile"])
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(FileError, match=words):
        read_report(tmp_path)
