"""Entry point of the command line: registers the commands and prints errors as one line."""

import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cyclopts import App, CycloptsError, UnusedCliTokensError

from kappaflow import __version__
from kappaflow.cli.data import data
from kappaflow.cli.depth import depth
from kappaflow.cli.doctor import doctor
from kappaflow.cli.export import export
from kappaflow.cli.factor import factor
from kappaflow.cli.fit import fit
from kappaflow.cli.impute import impute
from kappaflow.cli.prune import prune
from kappaflow.cli.report import report
from kappaflow.cli.reproduce import reproduce
from kappaflow.cli.rewrite import rewrite
from kappaflow.cli.sample import sample
from kappaflow.cli.score import score
from kappaflow.cli.show import print_text
from kappaflow.errors import BuildError, KappaflowError, NumericalError, RankError, WriteError
from kappaflow.options import COMMAND
from kappaflow.ranks import rank

USAGE, FAILURE, INTERRUPTED, TERMINATED = 2, 1, 130, 143
RESUME = "stopped: run the same command again to resume a fit."


def _version() -> str:
    from kappaflow.native import describe  # loads torch

    return f"{__version__}, {describe()}"


app = App(
    name="kappaflow",
    help=(
        "Normalizing flows with their depth and their conditioning in plain sight.\n\n"
        "Start with: kappaflow fit magic --out runs/magic"
    ),
    version=_version,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
COMMANDS = (
    fit, sample, score, impute, doctor, report, export, factor, rewrite, prune, depth,
    reproduce, data,
)  # fmt: skip
for command in COMMANDS:
    app.command(command)


def main(tokens: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    Args:
        tokens: The arguments after the program's name; `sys.argv[1:]` if left out.

    Returns:
        0 for success, 1 for a failure, 2 for an invalid argument or input file, 130 for Ctrl-C,
        143 for SIGTERM.
    """
    # Small matrix products gain little from a second thread, and on a busy machine two threads
    # wait for each other: see docs/decisions. This must be set before torch is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = sys.argv[1:] if tokens is None else tokens
    text = shlex.join(("kappaflow", *words)).encode(errors="backslashreplace").decode()
    before = COMMAND.set(text)
    try:
        with _stopped_by_sigterm(), _plain_warnings():
            done = app(words, exit_on_error=False, print_error=False)
    except UnusedCliTokensError as error:
        unused = " ".join(error.unused_tokens or ())
        return _complain(f"'{unused}' is not an argument here, nor the value of an option.", USAGE)
    except CycloptsError as error:
        return _complain(str(error), USAGE)
    except (BuildError, NumericalError, RankError, WriteError) as error:
        return _complain(str(error), FAILURE)
    except KappaflowError as error:
        return _complain(str(error), USAGE)
    except KeyboardInterrupt as stopped:
        message = getattr(stopped, "__notes__", [RESUME])[0]
        return _complain(message, TERMINATED if isinstance(stopped, _Terminated) else INTERRUPTED)
    except BrokenPipeError:
        # The reader closed the pipe, which is not an error. Keep Python from reporting it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        return _complain(f"{error.filename or 'a file'}: {error.strerror or error}.", FAILURE)
    finally:
        COMMAND.reset(before)
    return done if isinstance(done, int) else 0


class _Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, so that it stops a command in the same way as Ctrl-C."""


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Turns SIGTERM into an exception, if this is the main thread (only it gets signals)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Prints warnings like other messages: one line, without a line of source code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *where, **how: _say(f"warning: {message}")
        yield


def _complain(message: str, status: int) -> int:
    _say(message)
    return status


def _say(message: str) -> None:
    who = f"rank {rank()}: " if rank() else ""
    print_text(f"kappaflow: {who}{' '.join(message.split())}", file=sys.stderr)
