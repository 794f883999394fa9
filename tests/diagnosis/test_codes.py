"""The codes: each that a rule yields is listed, and the documentation has all."""

import re
from pathlib import Path

import pytest
import torch

import kappaflow as kf
from kappaflow.diagnosis import CODES
from kappaflow.diagnosis.codes import is_chosen

ROOT = Path(__file__).parents[2]


def test_each_code_of_a_rule_is_listed_and_each_listed_one_is_a_rules():
    """In the order of their numbers."""
    source = "".join(
        path.read_text("utf-8")
        for path in (ROOT / "src/kappaflow/diagnosis").rglob("*.py")
        if path.name != "codes.py"
    )
    assert set(re.findall(r'"(KF\d{3})"', source)) == set(CODES)
    assert list(CODES) == sorted(CODES)


def test_the_page_of_rules_has_each_code_once_as_a_heading():
    """With what the list says of it."""
    page = (ROOT / "docs/rules.md").read_text("utf-8")
    assert re.findall(r"^## (KF\d+): (.*)$", page, re.MULTILINE) == list(CODES.items())


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
    """As it stands on the page."""
    torch.manual_seed(0)
    names = {}
    exec(example, names)  # noqa: S102 - our own page
    more = {name: names.get(name) for name in ("make", "log_density")}
    diagnosis = kf.doctor(names["flow"], names["x"], names.get("context"), **more)
    assert code in {one.code for one in diagnosis.findings}


def test_each_rule_of_the_doctor_has_an_example():
    """But those that need a training or its data."""
    of_runs = {"KF502", "KF505", "KF506", "KF507", "KF607"}
    assert [code for code, _ in examples()] == [code for code in CODES if code not in of_runs]


@pytest.mark.parametrize(
    ("select", "ignore", "chosen"),
    [
        ((), (), True),
        ((), ("KF2",), False),
        (("KF1",), (), False),
        (("KF203",), ("KF2",), True),
        (("KF2",), ("KF203",), False),
        (("KF2",), ("KF2",), False),
    ],
)
def test_the_longer_beginning_decides(select, ignore, chosen):
    """As linters do it."""
    assert is_chosen("KF203", select, ignore) is chosen
