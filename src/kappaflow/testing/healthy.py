"""`assert_healthy`, an assertion for tests that fails if the doctor finds a problem."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from kappaflow._checks import one_of
from kappaflow.diagnosis import SEVERITIES, check_codes, filter_findings
from kappaflow.diagnosis.doctor import diagnose_rows
from kappaflow.testing.contract import ContractError


def assert_healthy(
    flow: object,
    x: Tensor | None = None,
    context: Tensor | None = None,
    *,
    allow: Literal["nothing", "note", "warning"] = "note",
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> None:
    """Raises an AssertionError if the doctor finds anything more severe than `allow`.

    It is about the flow as a map: samples are not compared with rows, which an untrained flow does
    not match.

    Args:
        flow: A kappaflow flow, or one that `kappaflow.wrap` supports.
        x: Rows of data (B, *event); by default samples of the flow.
        context: Context rows (B, C), for a conditional flow.
        allow: Highest severity that does not fail the assertion.
        select: Codes or prefixes of codes to report, such as "KF2"; all if empty.
        ignore: Codes or prefixes of codes to ignore.

    Raises:
        ContractError: The findings, one per line. It is a subclass of AssertionError.
        ArgumentError: The flow cannot be diagnosed, or no check has such a code.

    Example:
        >>> import torch, kappaflow as kf
        >>> from kappaflow.testing import assert_healthy
        >>> flow = kf.real_nvp(2, depth=2, hidden=(4,))
        >>> assert_healthy(flow, torch.randn(16, 2))
    """
    passing = one_of("allow", allow, ("nothing", "note", "warning"))
    severe = SEVERITIES if passing == "nothing" else SEVERITIES[: SEVERITIES.index(passing)]
    check_codes(select, ignore)
    diagnosis = filter_findings(
        diagnose_rows(flow, x, context, compares_samples=False), select, ignore
    )
    lines = [
        f"{finding.severity} {finding.code}"
        f"{f' in layer {finding.layer}' if finding.layer else ''}: {finding.message} "
        f"{finding.cause} {finding.fix}"
        for finding in diagnosis.findings
        if finding.severity in severe
    ]
    if lines:
        raise ContractError("\n".join(lines))
