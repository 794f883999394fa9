"""Compiles the native backend for the wheel; `python hatch_build.py` does so in a checkout.

There is one library for each set of instructions, so that a wheel runs on any processor of its
platform and uses its widest registers. Without a compiler the wheel is pure Python, and everything
works without the backend.
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
# Flags of gcc and clang, and of cl (untested), by the names that torch has for processors.
AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mprefer-vector-width=512"]
SETS = {"avx2": (AVX2, "/arch:AVX2"), "avx512": ([*AVX2, *AVX512], "/arch:AVX512")}


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
    names = ("cl", "clang", "gcc") if sys.platform == "win32" else ("cc", "gcc", "clang")
    compiler = shlex.split(os.environ.get("CC", "")) or list(filter(shutil.which, names))[:1]
    if not compiler:
        raise OSError("there is no C compiler")
    made, sources = [], sorted(FOLDER.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    files = [str(path) for path in sources if path.suffix == ".c"]
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    for name, flags in {"default": ([], ""), **(SETS if is_x86 else {})}.items():
        made.append(folder / f"native_{name}.so")
        half = made[-1].with_suffix(f".{os.getpid()}")  # a library in use is never written to
        options = ["-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", *flags[0]]
        options += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
        options += [f'-DSOURCE="{digest}"', *files, "-o", str(half), "-lm"]
        if Path(compiler[0]).stem.lower() == "cl":
            options = ["/nologo", "/O2", "/LD", f'/DSOURCE="\\"{digest}\\""', f"/Fe:{half}"]
            options += [*filter(None, flags[1:]), *files]
        try:
            subprocess.run([*compiler, *options], check=True)
            half.replace(made[-1])
        finally:
            half.unlink(missing_ok=True)
    return made


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
