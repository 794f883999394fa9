"""The text of docs/rules.md, from the checks of the doctor; Sphinx writes the page."""

import inspect
import re

from kappaflow.diagnosis.check import CHECKS, Check
from kappaflow.diagnosis.checks import CODES

START = """# What the doctor finds

The checks of the [doctor](doctor.md), by code. Each example makes a `flow` and rows `x` (the last
two a `log_density`) for which its check reports a finding. A finding may have a more specific
severity, cause and fix than those given here."""


def example(check: Check) -> str:
    """Returns the code of a check's example, with its imports; empty where there is none."""
    code = inspect.cleandoc(check.observe.__doc__ or "").partition("\nExample:\n")[2]
    if not code:
        return ""
    imports, body = ["import torch", "import kappaflow as kf"], inspect.cleandoc(code)
    while body.startswith("import "):
        line, _, body = body.partition("\n")
        imports.insert(0, line)
    blank = "\n\n\n" if re.match(r"\n*(def|class) ", body) else "\n\n"
    return "\n".join(imports) + blank + body.lstrip() + "\n"


def section(check: Check) -> str:
    """Returns the section of a check."""
    text = inspect.cleandoc(check.observe.__doc__ or "")
    text = re.split(r"\n(?:Example|Args):\n", text)[0]
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    texts = f"*{check.severity.capitalize()}.* {check.cause} **Fix:** {check.fix}"
    code = example(check)
    block = f"\n\n```python\n{code}```" if code else ""
    return "\n\n".join([f"## {check.code}: {check.title}", texts, *paragraphs]) + block


def rules_page() -> str:
    """Returns the page as Markdown."""
    return "\n\n".join([START, *(section(CHECKS[code]) for code in CODES)]) + "\n"
