"""In which float type a flow can be used, from its condition number at the points."""

import math

from kappaflow.conditioning import TRUSTED, Profile

ROOM = 10  # below the share of digits that is lost where nothing can be trusted
WIDER = {"float16": "float32", "bfloat16": "float32", "float32": "float64"}


def usable_in(profile: Profile, dtype: str) -> str:
    """Returns "float32 safe", "decode in float64", or "unusable in float32".

    Args:
        profile: Of the flow.
        dtype: Of the flow, such as "float32".

    Returns:
        By what rounding times the worst condition number leaves of a result.
    """
    worst = profile.condition_number[-1].max().item()
    lost = profile.eps * worst
    if math.isnan(lost) or lost > TRUSTED:
        return f"unusable in {dtype}"
    if lost <= TRUSTED / ROOM:
        return f"{dtype} safe"
    return f"decode in {WIDER[dtype]}" if dtype in WIDER else f"{dtype} with care"
