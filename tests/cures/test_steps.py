"""Which findings ask for which cure."""

import pytest

from kappaflow.cures import CURES
from kappaflow.diagnosis import Diagnosis, Finding

WORST = {"worst": 1e-2, "predicted": 1e-3}


def diagnosis(code, severity="error", **evidence):
    """Returns a diagnosis of one finding."""
    finding = Finding(code, severity, None, "message", "cause", "cure", evidence)
    return Diagnosis((finding,), "verdict")


@pytest.mark.parametrize(
    ("found", "asked"),
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
def test_a_finding_asks_for_what_answers_it(found, asked):
    assert {name for name, cure in CURES.items() if cure.is_asked_for(found)} == asked


def test_every_code_is_one_of_the_doctors():
    from kappaflow.diagnosis import CODES

    assert {code for cure in CURES.values() for code in cure.codes} <= set(CODES)
