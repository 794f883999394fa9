"""`assert_healthy`: the doctor in a test, of this project or of another."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from kappaflow._checks import one_of
from kappaflow.diagnosis import SEVERITIES, check_codes, doctor, filter_findings
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
    """Raises what the doctor finds, if it finds something.

    Args:
        flow: A flow of ours, or of any library that `kappaflow.wrap` takes.
        x: Points from the data, (B, *event); samples of the flow if left out.
        context: (B, C), for a conditional flow.
        allow: The most severe kind of finding that passes.
        select: Codes of findings, or beginnings of them, such as "KF2"; all if empty.
        ignore: The same, left out.

    Raises:
        ContractError: There is a finding; an AssertionError, with a line for each.
        ArgumentError: The flow cannot be examined, or a code is that of no finding.

    Example:
        >>> import torch, kappaflow as kf
        >>> from kappaflow.testing import assert_healthy
        >>> flow = kf.real_nvp(2, depth=2, hidden=(4,))
        >>> assert_healthy(flow, torch.randn(16, 2))
    """
    passing = one_of("allow", allow, ("nothing", "note", "warning"))
    severe = SEVERITIES if passing == "nothing" else SEVERITIES[: SEVERITIES.index(passing)]
    check_codes(select, ignore)
    diagnosis = filter_findings(doctor(flow, x, context), select, ignore)
    lines = [
        f"{one.severity} {one.code}{f' in layer {one.layer}' if one.layer else ''}: {one.message} "
        f"{one.cause} {one.cure}"
        for one in diagnosis.findings
        if one.severity in severe
    ]
    if lines:
        raise ContractError("\n".join(lines))
