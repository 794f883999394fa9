"""The codes of the checks, the page that documents them, and the options that select them."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from kappaflow.diagnosis import CODES
from kappaflow.diagnosis.check import CHECKS
from kappaflow.diagnosis.checks import checks_of_flows, is_selected
from kappaflow.diagnosis.doctor import diagnose_rows

ROOT = Path(__file__).parents[2]
CHECK_FILES = [path.read_text("utf-8") for path in ROOT.glob("src/kappaflow/diagnosis/**/*.py")]
PAGE = runpy.run_path(str(ROOT / "docs/rules_page.py"))
EXAMPLES = {code: text for code in CODES if (text := PAGE["example"](CHECKS[code]))}


def test_every_code_in_the_source_is_the_code_of_a_check():
    """The codes are listed in order, and no second function replaces the first silently."""
    source = "".join(CHECK_FILES)
    assert set(re.findall(r'"(KF\d{3})"', source)) == set(CODES)
    decorators = re.findall(r'^@check\(\n    "(KF\d{3})"', source, re.MULTILINE)
    assert sorted(decorators) == list(CODES)


def test_the_page_of_rules_has_each_check():
    """With its title and its example, except those that need a training or its data."""
    page = PAGE["rules_page"]()
    assert re.findall(r"^## (KF\d+): (.*)$", page, re.MULTILINE) == list(CODES.items())
    of_runs = {"KF502", "KF505", "KF506", "KF507", "KF508", "KF511", "KF607"}
    assert CODES.keys() - EXAMPLES.keys() == of_runs
    assert all(f"```python\n{text}```" in page for text in EXAMPLES.values())


def test_a_check_that_explains_others_comes_before_them():
    """KF403 (wrong scale) before the reconstruction errors that it causes; the rest by code."""
    codes = [check.code for check in checks_of_flows()]
    assert codes[codes.index("KF403") + 1] == "KF201"
    codes.remove("KF403")
    assert codes == sorted(codes)


@pytest.mark.parametrize(("code", "example"), EXAMPLES.items())
def test_the_example_of_a_rule_makes_it_fire(code, example):
    """The example is run unchanged; the codes of samples alone (KF5) need a comparison."""
    torch.manual_seed(0)
    names = {}
    exec(example, names)  # noqa: S102 - our own page
    more = {name: names.get(name) for name in ("make", "log_density")}
    more["compares_samples"] = code.startswith("KF5")
    diagnosis = diagnose_rows(names["flow"], names["x"], names.get("context"), **more)
    assert code in {finding.code for finding in diagnosis.findings}


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
