"""Writes the sections of docs/rules.md from the checks: python docs/rules_page.py."""

import inspect
import re
from pathlib import Path

from kappaflow.diagnosis.check import CHECKS, Check
from kappaflow.diagnosis.checks import CODES

PAGE = Path(__file__).parent / "rules.md"


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
    paragraphs = [" ".join(one.split()) for one in text.strip().split("\n\n")]
    texts = f"*{check.severity.capitalize()}.* {check.cause} **Fix:** {check.fix}"
    code = example(check)
    block = f"\n\n```python\n{code}```" if code else ""
    return "\n\n".join([f"## {check.code}: {check.title}", texts, *paragraphs]) + block


def render(page: str) -> str:
    """Returns the page with its introduction and the sections of all checks."""
    introduction = page.partition("\n## KF")[0].rstrip()
    return "\n\n".join([introduction, *(section(CHECKS[code]) for code in CODES)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text("utf-8")), "utf-8")
