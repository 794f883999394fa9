"""Prints the lower bounds of pyproject.toml as exact versions, for pip's --constraint."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("estimator", "figures", "images", "onnx", "zuko")

if __name__ == "__main__":
    content = tomllib.loads(Path("pyproject.toml").read_text())
    project, dev = content["project"], content["dependency-groups"]["dev"]
    extras = project["optional-dependencies"]
    expected = [
        *project["dependencies"],
        *dev,
        *(line for name in EXTRAS for line in extras[name]),
    ]
    for line in expected:
        requirement = Requirement(line)
        for bound in requirement.specifier:
            if bound.operator in {">=", "=="}:
                print(f"{requirement.name}=={bound.version}")
