"""The command `kappaflow`: its commands, and what an error looks like on a terminal."""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from kappaflow import __version__
from kappaflow.cli.data import data
from kappaflow.cli.doctor import doctor
from kappaflow.cli.factor import factor
from kappaflow.cli.fit import fit
from kappaflow.cli.native import native
from kappaflow.cli.printable import tell
from kappaflow.cli.report import report
from kappaflow.cli.reproduce import reproduce
from kappaflow.cli.rewrite import rewrite
from kappaflow.cli.sample import sample
from kappaflow.cli.score import score
from kappaflow.cli.tradeoff import tradeoff
from kappaflow.errors import BuildError, KappaflowError, NumericalError, WriteError

USAGE, FAILURE, INTERRUPTED = 2, 1, 130

app = App(
    name="kappaflow",
    help=(
        "Normalizing flows with their depth and their conditioning in plain sight.\n\n"
        "Start with: kappaflow fit magic --out runs/magic"
    ),
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
COMMANDS = (
    fit, sample, score, doctor, report, factor, rewrite, tradeoff, reproduce, data, native,
)  # fmt: skip
for command in COMMANDS:
    app.command(command)


def main(tokens: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    Args:
        tokens: The words after the program's name; those of this process if left out.

    Returns:
        0 for success, 1 for a failure, 2 for an argument or a file that cannot be used, 130 for
        Ctrl-C.
    """
    # Products this small gain little from a second thread, and on a busy machine two threads wait
    # for each other: see docs/decisions. It must be set before torch is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        done = app(
            sys.argv[1:] if tokens is None else tokens, exit_on_error=False, print_error=False
        )
    except CycloptsError as error:
        return _complain(str(error), USAGE)
    except (BuildError, NumericalError, WriteError) as error:
        return _complain(str(error), FAILURE)
    except KappaflowError as error:
        return _complain(str(error), USAGE)
    except KeyboardInterrupt:
        again = "a fit, or what is made in parts, goes on when the same command is given"
        return _complain(f"stopped; {again}.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone; nothing is wrong, and Python should not complain at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        return _complain(f"{error.filename or 'a file'}: {error.strerror or error}.", FAILURE)
    return done if isinstance(done, int) else 0


def _complain(message: str, status: int) -> int:
    tell(f"kappaflow: {' '.join(message.split())}", file=sys.stderr)
    return status
