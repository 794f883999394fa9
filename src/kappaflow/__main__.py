"""`python -m kappaflow` is the command `kappaflow`."""

from kappaflow.cli import main

if __name__ == "__main__":
    main()
