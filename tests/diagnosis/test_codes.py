"""The codes of the checks, the page that documents them, and the options that select them."""

import re
import runpy
from pathlib import Path

import pytest
import torch

import kappaflow as kf
from kappaflow.diagnosis import CODES
from kappaflow.diagnosis.check import CHECKS
from kappaflow.diagnosis.checks import checks_of_flows, is_selected

ROOT = Path(__file__).parents[2]


def test_every_code_in_the_source_is_the_code_of_a_check():
    """The codes are listed in order."""
    source = "".join(
        path.read_text("utf-8") for path in (ROOT / "src/kappaflow/diagnosis").rglob("*.py")
    )
    assert set(re.findall(r'"(KF\d{3})"', source)) == set(CODES)
    assert list(CODES) == sorted(CODES)
    assert set(CODES.values()) == {one.title for one in CHECKS.values()}


def test_no_two_functions_check_the_same_code():
    """A second function would replace the first silently."""
    source = "".join(
        path.read_text("utf-8") for path in (ROOT / "src/kappaflow/diagnosis/checks").glob("*.py")
    )
    decorators = re.findall(r'^@check\(\n    "(KF\d{3})"', source, re.MULTILINE)
    assert sorted(decorators) == list(CODES)


def test_the_page_of_rules_is_generated_from_the_checks():
    """Run `python docs/rules_page.py` after a change of a check."""
    page = (ROOT / "docs/rules.md").read_text("utf-8")
    assert runpy.run_path(str(ROOT / "docs/rules_page.py"))["render"](page) == page
    assert re.findall(r"^## (KF\d+): (.*)$", page, re.MULTILINE) == list(CODES.items())


def test_a_check_that_explains_others_comes_before_them():
    """KF403 (wrong scale) before the reconstruction errors that it causes; the rest by code."""
    codes = [one.code for one in checks_of_flows()]
    assert codes[codes.index("KF403") + 1] == "KF201"
    codes.remove("KF403")
    assert codes == sorted(codes)


def examples():
    """Returns the example of each code on the page, where there is one."""
    page = (ROOT / "docs/rules.md").read_text("utf-8")
    sections = re.split(r"^## (KF\d+):", page, flags=re.MULTILINE)[1:]
    blocks = {
        code: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        for code, text in zip(sections[::2], sections[1::2], strict=True)
    }
    return [(code, block[0]) for code, block in blocks.items() if block]


@pytest.mark.parametrize(("code", "example"), examples())
def test_the_example_of_a_rule_makes_it_fire(code, example):
    """The example is run unchanged."""
    torch.manual_seed(0)
    names = {}
    exec(example, names)  # noqa: S102 - our own page
    more = {name: names.get(name) for name in ("make", "log_density")}
    diagnosis = kf.doctor(names["flow"], names["x"], names.get("context"), **more)
    assert code in {one.code for one in diagnosis.findings}


def test_each_rule_of_the_doctor_has_an_example():
    """Except those that need a training or its data."""
    of_runs = {"KF502", "KF505", "KF506", "KF507", "KF508", "KF607"}
    assert [code for code, _ in examples()] == [code for code in CODES if code not in of_runs]


@pytest.mark.parametrize(
    ("select", "ignore", "selected"),
    [
        ((), (), True),
        ((), ("KF2",), False),
        (("KF1",), (), False),
        (("KF203",), ("KF2",), True),
        (("KF2",), ("KF203",), False),
        (("KF2",), ("KF2",), False),
    ],
)
def test_the_longer_prefix_decides(select, ignore, selected):
    """As in linters."""
    assert is_selected("KF203", select, ignore) is selected
