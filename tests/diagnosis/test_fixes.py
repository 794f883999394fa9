"""Which fixes apply to which findings."""

from typing import get_args

import pytest

from kappaflow.cli.doctor import Fixes
from kappaflow.diagnosis import Diagnosis, Finding
from kappaflow.diagnosis.fixes import FIXES

WORST = {"worst": 1e-2, "predicted": 1e-3}


def diagnosis(code, severity="error", **evidence):
    """Returns a diagnosis of one finding."""
    finding = Finding(code, severity, None, "message", "cause", "fix", evidence)
    return Diagnosis((finding,), "verdict")


@pytest.mark.parametrize(
    ("finding", "applied"),
    [
        (diagnosis("KF301", "warning"), {"fuse", "float64"}),
        (diagnosis("KF302", "note"), set()),
        (diagnosis("KF302", "warning"), {"fuse"}),
        (diagnosis("KF305", "warning"), {"fuse", "bound"}),
        (diagnosis("KF202", **WORST), {"float64"}),
        (diagnosis("KF202", worst=1e-2, predicted=1e-6), set()),  # a layer is no inverse
        (diagnosis("KF201", finite_share=0.5), set()),
        (diagnosis("KF203"), set()),
    ],
)
def test_fixes_apply_to_their_findings(finding, applied):
    assert {name for name, fix in FIXES.items() if fix.applies_to(finding)} == applied


def test_the_command_offers_every_fix():
    """The option repeats the names, so that its help loads without torch."""
    names = get_args(get_args(get_args(get_args(Fixes)[0])[0])[0])
    assert sorted(names) == sorted(FIXES)


def test_every_code_is_that_of_a_check():
    from kappaflow.diagnosis import CODES

    assert {code for fix in FIXES.values() for code in fix.codes} <= set(CODES)
