"""`kappaflow native`."""

from kappaflow.cli.show import tell


def native() -> None:
    """Build the native backend of coupling stacks, which is faster on several threads.

    For example:

    kappaflow native
    """
    from kappaflow.stack.native import build

    tell(build())
