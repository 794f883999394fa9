"""The command line: one file a command; each parses, calls one function, and prints."""

import sys


def main() -> None:
    """Runs the command line of this process and leaves with its status."""
    from kappaflow.cli.app import main as run

    sys.exit(run())
