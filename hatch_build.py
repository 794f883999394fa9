"""Compiles the native backend for the wheel; `python hatch_build.py` does so in a checkout.

One library for each set of instructions: a wheel runs on any processor of its platform, and loops
over 16 numbers at a time take a third of the time of those over 4. Without a compiler the wheel is
pure Python, and everything works without the backend.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script
    BuildHookInterface = object

FOLDER = Path(__file__).parent / "src" / "kappaflow" / "native"
# Named as torch names what it finds in a processor; see kappaflow/native.
UNIX = {
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mprefer-vector-width=512"],
    "avx2": [],
}
WINDOWS = {"avx512": ["/arch:AVX512"], "avx2": ["/arch:AVX2"]}


def compile_all(folder: Path = FOLDER) -> list[Path]:
    """Compiles a library for each set of instructions of this machine's kind of processor.

    Args:
        folder: Where to write them.

    Returns:
        The libraries.

    Raises:
        OSError: There is no compiler.
        subprocess.CalledProcessError: The compiler fails.
    """
    compiler = _compiler()
    is_cl = Path(compiler[0]).stem.lower() == "cl"
    sets: dict[str, list[str]] = {"default": []}
    if platform.machine().lower() in ("x86_64", "amd64"):
        wide = WINDOWS if is_cl else {k: ["-mavx2", "-mfma", *v] for k, v in UNIX.items()}
        sets |= wide
    return [
        _compile(compiler, folder / f"native_{name}.so", flags, is_cl)
        for name, flags in sets.items()
    ]


def _compiler() -> list[str]:
    given = shlex.split(os.environ.get("CC", ""))
    names = ["cl", "clang", "gcc"] if sys.platform == "win32" else ["cc", "gcc", "clang"]
    for name in names:
        if not given and shutil.which(name):
            given = [name]
    if not given:
        raise OSError("there is no C compiler")
    return given


def _compile(compiler: list[str], target: Path, flags: list[str], is_cl: bool) -> Path:
    sources = sorted(FOLDER.glob("*.[ch]"))
    made = target.with_suffix(f".{os.getpid()}")  # so that a library in use is never written to
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    if is_cl:
        options = ["/nologo", "/O2", "/LD", f'/DSOURCE="\\"{digest}\\""', f"/Fe:{made}"]
    else:
        options = ["-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden"]
        options += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
        options += [f'-DSOURCE="{digest}"', "-o", str(made)]
    libraries = [] if is_cl else ["-lm"]
    try:
        subprocess.run([*compiler, *options, *flags, *FOLDER.glob("*.c"), *libraries], check=True)
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)
    return target


class CustomBuildHook(BuildHookInterface):
    """Adds the compiled libraries to a wheel, and tags it with its platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compiles, or warns and leaves the wheel pure."""
        try:
            made = compile_all()
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"kappaflow is built without its native backend: {error}")
            return
        kind = sysconfig.get_platform().replace("universal2", platform.machine())
        build_data["artifacts"] += [f"/{path.relative_to(self.root)}" for path in made]
        build_data["tag"] = f"py3-none-{kind.replace('-', '_').replace('.', '_')}"
        build_data["pure_python"] = False


if __name__ == "__main__":
    for library in compile_all():
        print(library)
