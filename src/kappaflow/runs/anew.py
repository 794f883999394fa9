"""What a report says of a flow that was written anew, and what it says without its data."""

from typing import TypeVar

from kappaflow.conditioning import Profile, layers_of
from kappaflow.diagnosis import Diagnosis
from kappaflow.flows import Flow
from kappaflow.report import About, FindingView, ImageReport, ProfileView, Report

ANEW = "written anew"
R = TypeVar("R", Report, ImageReport)


def about_anew(about: About, flow: Flow, how: str) -> About:
    """Returns what a report says of the model, for a flow that was written anew."""
    facts = dict(about.model) | {
        "layers": str(len(layers_of(flow.core))),
        "parameters": f"{sum(p.numel() for p in flow.parameters()):,}",
        ANEW: how,
    }
    title = about.title.removesuffix(f", {ANEW}")
    note = "the learning curves and the times are those of the flow before it was written anew"
    return about.model_copy(
        update={
            "title": f"{title}, {ANEW}",
            "model": list(facts.items()),
            "notes": list(dict.fromkeys([*about.notes, note])),
        }
    )


def on_samples(report: R, about: About, diagnosis: Diagnosis, depth: Profile) -> R:
    """Returns a report with the conditioning of another flow of the same function, at samples."""
    said = "its data was not found as it was: the conditioning is that at samples of the flow"
    changed = {
        "about": about.model_copy(update={"notes": [*about.notes, said]}),
        "profile": ProfileView.model_validate(depth.to_dict()),
        "verdict": diagnosis.verdict,
        "ok": diagnosis.ok,
        "findings": [FindingView(**vars(finding)) for finding in diagnosis.findings],
    }
    return report.model_copy(update=changed)
