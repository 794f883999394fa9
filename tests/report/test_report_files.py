import json
from pathlib import Path

import pytest

from kappaflow.errors import FileError
from kappaflow.report import read_report, write_report
from kappaflow.report.files import from_json, to_json

GOLD = Path(__file__).parent / "gold" / "report.json"


def test_a_report_reads_back_as_it_was_written(report, tmp_path):
    """The numbers of report.json are the numbers of the report."""
    page = write_report(report, tmp_path / "run")
    assert page == tmp_path / "run" / "report.html"
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert read_report(tmp_path / "run") == report


def test_the_json_file_keeps_its_form(make_report):
    """The keys and the layout of report.json are a contract: a gold file holds them."""
    small = make_report(columns=2, layers=2, epochs=2, rows=6)
    gold = GOLD.read_text(encoding="utf-8")
    assert from_json(gold) == small
    assert to_json(from_json(gold)) == gold


def test_numbers_that_are_not_finite_stay_what_they_are(make_report, tmp_path):
    """The file is JSON without bare NaN, and nan, infinity and names survive it."""
    report = make_report(columns=1, layers=2, epochs=2)
    bad = [float("nan"), float("-inf")]
    finding = report.findings[0].model_copy(update={"evidence": {"worst": float("inf")}})
    report = report.model_copy(
        update={
            "profile": report.profile | {"sigma_max": {"median": bad}, "layers": ["NaN", "b"]},
            "findings": [finding],
            "gaussian_nll_standardised": float("inf"),
            "marginals": [report.marginals[0].model_copy(update={"column": "NaN"})],
        }
    )
    text = to_json(report)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    again = from_json(text)
    assert str(again.profile["sigma_max"]["median"]) == "[nan, -inf]"
    assert again.profile["layers"] == ["NaN", "b"]
    assert again.findings[0].evidence == {"worst": float("inf")}
    assert again.gaussian_nll_standardised == float("inf")
    assert again.marginals[0].column == "NaN"
    assert to_json(again) == text


def test_a_folder_without_a_report_says_so(tmp_path):
    """One sentence names the missing file."""
    with pytest.raises(FileError, match=r"report\.json is missing: .* holds no report\.$"):
        read_report(tmp_path)
    with pytest.raises(FileError, match="is missing"):
        read_report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged or cut short"),
        (b'{"about": {', "damaged or cut short"),
        (b"\xff\xfe\x00", "damaged or cut short"),
        (b"[" * 200_000, "damaged or cut short"),
        (b"[]", "is no report"),
        (b"{}", "is no report: 'about' is wrong"),
        (b'{"findings": [3], "profile": 4}', "is no report"),
        (b'{"findings": 7}', "is no report"),
    ],
    ids=["empty", "cut", "binary", "deep", "list", "object", "wrong", "number"],
)
def test_a_damaged_report_is_one_clear_sentence(tmp_path, content, words):
    """No traceback of a parser reaches the reader."""
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(FileError, match=words) as caught:
        read_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_is_an_error(report, tmp_path):
    """A report of another version is not half understood."""
    content = json.loads(to_json(report)) | {"extra": 1}
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(FileError, match="'extra' is wrong"):
        read_report(tmp_path)
